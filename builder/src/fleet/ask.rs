//! Questions to guests, and the clients that keep guests in the CPU class `urgent`.
//!
//! A guest is `urgent` while it is asked. If all guests of a fleet were urgent at
//! once, none would come before another, so only a few are asked at a time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tty_init::protocol::Message;

use super::changes::selected;
use super::supervisor::Supervisor;
use crate::control::types::{Answer, AskRequest, Selection};
use crate::host;
use crate::units::GuestIndex;

/// Guests asked at a time, for each CPU.
const AT_A_TIME: usize = 4;
/// Most that a guest's answer may have, in bytes.
const ANSWER_MAX: usize = 256 * 1024;
/// When to look again whether a client has read what it got.
const RETRY: Duration = Duration::from_millis(50);

/// What guests are asked now.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    open: Vec<Ask>,
    attended: Vec<(Vec<GuestIndex>, Sender<()>)>,
    last_tag: u32,
}

#[derive(Debug)]
struct Ask {
    command: String,
    within: Duration,
    answers: Sender<Answer>,
    waiting: VecDeque<GuestIndex>,
    asked: Vec<Asked>,
    /// What the client has no room for yet.
    unsent: VecDeque<Answer>,
}

#[derive(Debug)]
struct Asked {
    guest: GuestIndex,
    tag: u32,
    at: Instant,
    output: String,
}

impl Asks {
    /// Asks guests, a few at a time; each has `patience` unless the request says
    /// otherwise.
    pub(crate) fn begin(
        &mut self,
        supervisor: &mut Supervisor,
        request: &AskRequest,
        answers: Sender<Answer>,
        patience: Duration,
    ) {
        let (guests, refused) = selected(supervisor, &request.guests);
        let within = request
            .within_seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let unsent = refused.into_iter().map(|refusal| Answer {
            id: refusal.id,
            code: None,
            output: refusal.reason,
            seconds: 0.0,
        });
        self.open.push(Ask {
            // A line of its own would be another command.
            command: request.command.replace(char::is_control, " "),
            within: within.unwrap_or(patience),
            answers,
            waiting: guests.into(),
            asked: Vec::new(),
            unsent: unsent.collect(),
        });
        self.go_on(supervisor);
    }

    /// Holds guests `urgent` until the other end of `held` is dropped.
    pub(crate) fn attend(
        &mut self,
        supervisor: &mut Supervisor,
        guests: &Selection,
        held: Sender<()>,
    ) {
        let (guests, _) = selected(supervisor, guests);
        for guest in &guests {
            supervisor.attend(*guest);
        }
        let _ = held.try_send(());
        self.attended.push((guests, held));
    }

    /// When the next turn is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let ends = self.open.iter().flat_map(|ask| {
            let retry = (!ask.unsent.is_empty()).then(|| Instant::now() + RETRY);
            ask.asked
                .iter()
                .map(|asked| asked.at + ask.within)
                .chain(retry)
        });
        ends.min()
    }

    /// Tells everybody who waits for an answer that none comes any more.
    pub(crate) fn give_up(self) {
        for mut ask in self.open {
            let asked = ask.asked.iter().map(|asked| (asked.guest, asked.at));
            let waiting = ask.waiting.iter().map(|guest| (*guest, Instant::now()));
            for (guest, at) in asked.chain(waiting) {
                let what = "the fleet was ended".to_owned();
                ask.unsent.push_back(no_answer(guest, what, at));
            }
            ask.pass_on();
        }
    }

    /// Takes a guest's message, which may be the answer to a question.
    pub(crate) fn hear(
        &mut self,
        supervisor: &mut Supervisor,
        guest: GuestIndex,
        message: &Message<String>,
    ) {
        let Message::Reply {
            tag: Some(tag),
            code,
            output,
            more,
            ..
        } = message
        else {
            return;
        };
        for ask in &mut self.open {
            let is_it = |asked: &Asked| asked.guest == guest && asked.tag == *tag;
            let Some(place) = ask.asked.iter().position(is_it) else {
                continue;
            };
            let asked = &mut ask.asked[place];
            if asked.output.len() + output.len() <= ANSWER_MAX {
                asked.output.push_str(output);
            }
            if !more {
                let asked = ask.asked.swap_remove(place);
                supervisor.leave(guest);
                ask.unsent.push_back(Answer {
                    id: guest,
                    code: Some(*code),
                    output: asked.output,
                    seconds: asked.at.elapsed().as_secs_f64(),
                });
            }
        }
    }

    /// Passes answers on, gives up what is late, and asks the next guests.
    pub(crate) fn go_on(&mut self, supervisor: &mut Supervisor) {
        let now = Instant::now();
        for ask in &mut self.open {
            let (late, asked) = std::mem::take(&mut ask.asked)
                .into_iter()
                .partition(|asked| asked.at + ask.within <= now || !lives(supervisor, asked.guest));
            ask.asked = asked;
            for Asked { guest, at, .. } in late {
                supervisor.leave(guest);
                let what = if lives(supervisor, guest) {
                    format!("no answer within {:.0} s", ask.within.as_secs_f64())
                } else {
                    "it ended before it answered".to_owned()
                };
                ask.unsent.push_back(no_answer(guest, what, at));
            }
            // First, so that only those are left over that `due` looks after:
            // what is left over holds the next questions back.
            ask.pass_on();
            let at_a_time = AT_A_TIME * host::cpus();
            while ask.asked.len() < at_a_time
                && ask.unsent.len() < at_a_time
                && let Some(guest) = ask.waiting.pop_front()
            {
                if !supervisor.members().get(guest).is_some_and(is_up) {
                    let what = "it is not running".to_owned();
                    ask.unsent.push_back(no_answer(guest, what, now));
                    continue;
                }
                self.last_tag = self.last_tag.wrapping_add(1);
                if !supervisor.type_line(guest, &format!("@{} {}", self.last_tag, ask.command)) {
                    let what = "it does not read its console".to_owned();
                    ask.unsent.push_back(no_answer(guest, what, now));
                    continue;
                }
                supervisor.attend(guest);
                ask.asked.push(Asked {
                    guest,
                    tag: self.last_tag,
                    at: now,
                    output: String::new(),
                });
            }
            ask.pass_on();
        }
        self.open.retain(|ask| {
            let is_over = ask.waiting.is_empty() && ask.asked.is_empty() && ask.unsent.is_empty();
            let is_wanted = !ask.answers.is_closed();
            if !is_wanted {
                for asked in &ask.asked {
                    supervisor.leave(asked.guest);
                }
            }
            is_wanted && !is_over
        });
        self.attended.retain(|(guests, held)| {
            if held.is_closed() {
                for guest in guests {
                    supervisor.leave(*guest);
                }
            }
            !held.is_closed()
        });
    }
}

impl Ask {
    fn pass_on(&mut self) {
        while let Ok(place) = self.answers.try_reserve() {
            match self.unsent.pop_front() {
                Some(answer) => place.send(answer),
                None => return,
            }
        }
    }
}

fn lives(supervisor: &Supervisor, guest: GuestIndex) -> bool {
    let member = supervisor.members().get(guest);
    member.is_some_and(super::supervisor::Member::lives)
}

/// Whether a guest listens to its console.
fn is_up(member: &super::supervisor::Member) -> bool {
    use crate::guest::Phase;
    member.lives() && matches!(member.guest().phase(), Phase::Ready | Phase::Unresponsive)
}

fn no_answer(guest: GuestIndex, output: String, at: Instant) -> Answer {
    Answer {
        id: guest,
        code: None,
        output,
        seconds: at.elapsed().as_secs_f64(),
    }
}
