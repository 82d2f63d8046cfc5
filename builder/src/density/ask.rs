//! Asks guests: `status` on their consoles, a command over SSH.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::Instant;

use super::conditions::cut_paths;
use super::error::DensityError;
use super::subject::Subject;
use crate::bundle::types::GuestReply;
use crate::control::client::{ClientError, Next};
use crate::control::types::{Answer, AskRequest, Selection};
use crate::fleet::each::on_each;
use crate::fleet::ssh::{End, Reachable, SshError};
use crate::guest::deadline;
use crate::host;
use crate::progress;
use crate::units::GuestIndex;
use tty_init::report::Report;

/// What is asked on consoles, and over SSH.
const STATUS: &str = "status --json";
const COMMAND: &str = "status";
/// Clients at a time, for each CPU: most of a log-in is computation.
const CLIENTS_A_CPU: usize = 2;

/// What guests said of themselves.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub replies: Vec<GuestReply>,
    /// Rounds of work, and milliseconds of the guest's own clock.
    pub rounds: BTreeMap<GuestIndex, Burned>,
}

/// How far a guest was with its burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Burned {
    pub rounds: u64,
    pub at_ms: u64,
    pub burns: bool,
}

impl Burned {
    /// Rounds a second since `before`; `None` if the guest was started again, or does
    /// not burn.
    pub(super) fn rate_since(self, before: Self) -> Option<f64> {
        let rounds = self.rounds.checked_sub(before.rounds)?;
        let time = self.at_ms.checked_sub(before.at_ms).filter(|ms| *ms > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "minutes of work")]
        let rate = rounds as f64 * 1000.0 / time as f64;
        (self.burns || rounds > 0).then_some(rate)
    }
}

/// Asks these guests for their status, once each.
pub(super) fn status(
    subject: &Subject<'_>,
    guests: &[GuestIndex],
) -> Result<Answers, DensityError> {
    let mut answers = Answers::default();
    if guests.is_empty() {
        return Ok(answers);
    }
    let bar = progress::bar(guests.len() as u64, "guests asked");
    let request = AskRequest {
        guests: Selection::These(guests.to_vec()),
        command: STATUS.to_owned(),
        within_seconds: None,
    };
    let mut stream = subject.call(|client| client.ask(&request))?;
    loop {
        match stream.next(None) {
            Ok(Next::Item(answer)) => {
                answers.take(&answer);
                bar.inc(1);
            }
            Ok(Next::End | Next::Late) => break,
            Err(ClientError::Interrupted) => return Err(DensityError::Interrupted),
            Err(error) => {
                subject
                    .diary
                    .note(format!("not all guests were asked: {error}"));
                break;
            }
        }
    }
    bar.finish_and_clear();
    answers.miss(guests);
    Ok(answers)
}

impl Answers {
    fn take(&mut self, answer: &Answer) {
        let report = serde_json::from_str::<Report<String>>(&answer.output);
        let failed = match (answer.code, &report) {
            (Some(0), Ok(_)) => None,
            (Some(0), Err(error)) => Some(format!("its answer is malformed: {error}")),
            (Some(code), _) => Some(format!("it exited {code}")),
            (None, _) => Some(cut_paths(&answer.output)),
        };
        if let (None, Ok(report)) = (&failed, &report) {
            let burned = Burned {
                rounds: report.burn.rounds,
                at_ms: report.uptime_ms,
                burns: report.burn.duty > 0,
            };
            self.rounds.insert(answer.id, burned);
        }
        self.replies.push(GuestReply {
            guest: answer.id,
            seconds: answer.seconds,
            failed,
        });
    }

    /// Puts the replies in order, and adds those that are missing.
    fn miss(&mut self, guests: &[GuestIndex]) {
        let came: BTreeSet<_> = self.replies.iter().map(|reply| reply.guest).collect();
        let missing = guests.iter().filter(|guest| !came.contains(guest));
        self.replies.extend(missing.map(|guest| GuestReply {
            guest: *guest,
            seconds: 0.0,
            failed: Some("nobody asked it: the supervisor was lost".to_owned()),
        }));
        self.replies.sort_by_key(|reply| reply.guest);
    }
}

/// Has these guests run a command over SSH, each once; nothing where they have no
/// network.
pub(super) fn logins(
    subject: &Subject<'_>,
    guests: &[GuestIndex],
    among: u32,
) -> Result<Vec<GuestReply>, DensityError> {
    let reachable = match Reachable::find(Some(&subject.name), subject.directories) {
        Ok(reachable) => reachable,
        Err(SshError::NoNetwork { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let within = deadline::command(among, host::cpus());
    let words = [OsString::from(COMMAND)];
    let bar = progress::bar(guests.len() as u64, "guests logged in to");
    let mut replies = Vec::new();
    on_each(
        guests,
        CLIENTS_A_CPU * host::cpus(),
        |guest| {
            if subject.interrupt.requested() {
                return Err(DensityError::Interrupted);
            }
            let _attended = (subject.client).attend(Selection::These(vec![guest])).ok();
            let began = Instant::now();
            let outcome = reachable.run_on(guest, &words, within, subject.interrupt)?;
            let failed = match outcome.end() {
                End::Exited(0) => None,
                End::Exited(code) => Some(format!("it exited {code}")),
                End::Unreachable => Some("it is unreachable".to_owned()),
                End::Late(_) => Some("it took too long".to_owned()),
            };
            Ok(GuestReply {
                guest,
                seconds: began.elapsed().as_secs_f64(),
                failed,
            })
        },
        |_, reply| {
            bar.inc(1);
            replies.push(reply);
        },
    )?;
    bar.finish_and_clear();
    Ok(replies)
}
