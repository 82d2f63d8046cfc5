//! Changes of a running fleet that users ask for: to stop guests, to start them
//! again, to have more or fewer.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::site::Site;
use super::supervisor::{Supervisor, Why};
use crate::control::bridge::Act;
use crate::control::types::{ActAnswer, ActRequest, Refusal, Selection};
use crate::fleet::site::SiteError;
use crate::guest::{Desired, Event, Phase, deadline};
use crate::host;
use crate::interrupt::Interrupt;
use crate::net::ports;
use crate::store::claims::{Claim, Turn};
use crate::store::journal::{Journal, JournalError, Record};
use crate::store::users;
use crate::system::Doing as _;
use crate::units::{GuestIndex, GuestRange};
use crate::vmm::Net;

/// How long guests may take to power off before they are ended by force. Their
/// disks are thrown away, so nothing is lost by force.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// Longest grace that makes sense, so that no sum of times overflows.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long other fleets that choose ports and user ids are waited for, and how
/// often is looked whether they are done.
const TURN_WAIT: Duration = Duration::from_secs(5);
const TURN_PAUSE: Duration = Duration::from_millis(50);

/// Changes that users asked for and that are not complete yet.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    acts: Vec<Pending>,
    /// Fewer guests: all but these go.
    fewer: Option<(GuestRange, oneshot::Sender<Result<ActAnswer, String>>)>,
    /// More guests, once other fleets have chosen what they need.
    more: Option<More>,
    /// What each `stop --all` gives guests to power off, and who waits for the
    /// end.
    ends: Vec<(Duration, ActAnswer, oneshot::Sender<ActAnswer>)>,
    /// The fleet ends, whoever asked for that: no guest is started any more.
    ending: bool,
}

#[derive(Debug)]
struct Pending {
    act: Act,
    /// Guests, and the process that each was when it was asked.
    waiting: Vec<(GuestIndex, Option<u32>)>,
    answer: ActAnswer,
    reply: oneshot::Sender<ActAnswer>,
}

#[derive(Debug)]
struct More {
    count: u32,
    reply: oneshot::Sender<Result<ActAnswer, String>>,
    /// When to try again, and until when.
    again: Instant,
    until: Instant,
}

impl Changes {
    /// Passes a request on to the guests.
    pub(crate) fn act(
        &mut self,
        supervisor: &mut Supervisor,
        journal: &mut Journal,
        act: Act,
        request: &ActRequest,
        reply: oneshot::Sender<ActAnswer>,
    ) {
        let grace = request
            .grace_seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map_or(STOP_GRACE, |grace| grace.min(GRACE_MAX));
        let (guests, mut refused) = selected(supervisor, &request.guests);
        let mut refuse = |id, reason| refused.push(Refusal { id, reason });
        if act == Act::Stop && request.guests == Selection::All {
            let answer = ActAnswer {
                done: guests,
                refused,
            };
            self.ends.push((grace, answer, reply));
            self.end();
            return;
        }
        let leaves = |guest| {
            let rest = self.fewer.as_ref().map(|(rest, _)| rest);
            rest.is_some_and(|rest| !rest.contains(guest))
        };
        let mut asked = Vec::new();
        for guest in guests {
            let member = &supervisor.members()[guest];
            let pid = member.pid();
            match act {
                Act::Kill if pid.is_none() => {
                    let phase = member.guest().phase().name();
                    refuse(guest, format!("it is not running: its state is {phase}"));
                }
                Act::Restart if leaves(guest) || self.ending => {
                    refuse(guest, "it is being removed".to_owned());
                }
                Act::Stop | Act::Kill | Act::Restart => asked.push((guest, pid)),
            }
        }
        let guests = asked.iter().map(|(guest, _)| *guest);
        let recorded = match act {
            Act::Stop => journal.append_durably(guests.map(|guest| Record::Stopped { guest })),
            Act::Restart => journal.append_durably(guests.map(|guest| Record::Wanted { guest })),
            Act::Kill => Ok(()),
        };
        if let Err(error) = recorded {
            for (guest, _) in asked.drain(..) {
                refuse(guest, error.to_string());
            }
        }
        let event = match act {
            Act::Stop => Event::Stop(grace),
            Act::Restart => Event::Restart(grace),
            Act::Kill => Event::Kill,
        };
        for (guest, _) in &asked {
            supervisor.request(*guest, &event);
        }
        let done = asked.iter().map(|(guest, _)| *guest).collect();
        self.acts.push(Pending {
            act,
            waiting: asked,
            answer: ActAnswer { done, refused },
            reply,
        });
        self.go_on(supervisor, journal);
    }

    /// Changes the number of guests.
    pub(crate) fn scale(
        &mut self,
        supervisor: &mut Supervisor,
        journal: &mut Journal,
        count: u32,
        reply: oneshot::Sender<Result<ActAnswer, String>>,
    ) {
        let busy = if self.ending {
            Some("the fleet is ending")
        } else if self.fewer.is_some() || self.more.is_some() {
            Some("another change of the number of guests is in progress; try again when it is done")
        } else {
            None
        };
        if let Some(busy) = busy {
            let _ = reply.send(Err(busy.to_owned()));
            return;
        }
        let now = supervisor.members().guests();
        if count > now.count() {
            let again = Instant::now();
            self.more = Some(More {
                count,
                reply,
                again,
                until: again + TURN_WAIT,
            });
            self.go_on(supervisor, journal);
            return;
        }
        let (rest, leaving) = now.split_at(count);
        let stopped = leaving.iter().map(|guest| Record::Stopped { guest });
        if let Err(error) = journal.append_durably(stopped) {
            let _ = reply.send(Err(error.to_string()));
            return;
        }
        for guest in leaving.iter() {
            supervisor.request(guest, &Event::Stop(STOP_GRACE));
        }
        self.fewer = Some((rest, reply));
        self.go_on(supervisor, journal);
    }

    /// Answers the clients whose changes are complete.
    pub(crate) fn go_on(&mut self, supervisor: &mut Supervisor, journal: &mut Journal) {
        for pending in std::mem::take(&mut self.acts) {
            let Pending {
                act,
                mut waiting,
                mut answer,
                reply,
            } = pending;
            waiting.retain(|(guest, before)| !is_done(supervisor, act, *guest, *before));
            if act == Act::Restart
                && let Some((Why::Trouble(trouble), _)) = supervisor.held_back()
            {
                refuse_those_down(supervisor, &mut waiting, &mut answer, &trouble.to_string());
            }
            if waiting.is_empty() {
                let _ = reply.send(answer);
            } else {
                self.acts.push(Pending {
                    act,
                    waiting,
                    answer,
                    reply,
                });
            }
        }
        let are_alone = |rest: GuestRange| {
            let mut members = supervisor.members().iter();
            members.all(|member| rest.contains(member.index()) || !member.lives())
        };
        if let Some((rest, reply)) = self.fewer.take_if(|(rest, _)| are_alone(*rest)) {
            let _ = reply.send(fewer(supervisor, rest).map_err(|error| error.to_string()));
        }
        let now = Instant::now();
        if let Some(mut growth) = self.more.take_if(|growth| growth.again <= now) {
            match more(supervisor, journal, growth.count) {
                Err(ScaleError::Site(SiteError::Turn)) if now < growth.until && !self.ending => {
                    growth.again = now + TURN_PAUSE;
                    self.more = Some(growth);
                }
                answer => {
                    let _ = growth.reply.send(answer.map_err(|error| error.to_string()));
                }
            }
        }
    }

    /// When to go on, if nothing happens before.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.more.as_ref().map(|growth| growth.again)
    }

    /// From now on, nothing but the end of all guests is waited for.
    pub(crate) fn end(&mut self) {
        self.ending = true;
    }

    pub(crate) fn end_is_requested(&self) -> bool {
        self.ending
    }

    /// What guests get to power off when the fleet ends, if the user said so.
    pub(crate) fn grace(&self) -> Option<Duration> {
        self.ends.iter().map(|(grace, ..)| *grace).min()
    }

    /// Answers who waits for the end of the fleet, which has come.
    pub(crate) fn finish(self) {
        for (_, answer, reply) in self.ends {
            let _ = reply.send(answer);
        }
        for pending in self.acts {
            let _ = pending.reply.send(pending.answer);
        }
        if let Some(growth) = self.more {
            let _ = growth.reply.send(Err("the fleet is ending".to_owned()));
        }
    }
}

/// Whether a guest has become what the user asked for.
fn is_done(supervisor: &Supervisor, act: Act, guest: GuestIndex, before: Option<u32>) -> bool {
    let Some(member) = supervisor.members().get(guest) else {
        return true;
    };
    let pid = member.pid();
    match act {
        Act::Stop => pid.is_none(),
        Act::Kill => pid != before,
        Act::Restart => {
            // Somebody may have stopped it since.
            let is_down = member.guest().desired() == Desired::Down;
            let phase = member.guest().phase();
            // A VMM that has said nothing may end at once, for the host's reasons.
            let is_up = pid.is_some() && pid != before && !phase.is_starting();
            is_up || is_down || phase == Phase::Failed
        }
    }
}

/// Has nobody wait for guests that the host keeps down for now; they start once
/// it does not.
fn refuse_those_down(
    supervisor: &Supervisor,
    waiting: &mut Vec<(GuestIndex, Option<u32>)>,
    answer: &mut ActAnswer,
    why: &str,
) {
    let members = supervisor.members();
    let is_down = |guest| members.get(guest).is_some_and(|member| !member.lives());
    for (guest, _) in waiting.extract_if(.., |(guest, _)| is_down(*guest)) {
        answer.refused.push(Refusal {
            id: guest,
            reason: format!("{why}; the fleet keeps trying"),
        });
    }
    let refused: HashSet<_> = answer.refused.iter().map(|refusal| refusal.id).collect();
    answer.done.retain(|id| !refused.contains(id));
}

/// The number of guests could not be changed.
#[derive(Debug, thiserror::Error)]
enum ScaleError {
    /// New guests have no place, or what a change left cannot be recorded there.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The change cannot be recorded.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Adds guests, up to `count`.
fn more(
    supervisor: &mut Supervisor,
    journal: &mut Journal,
    count: u32,
) -> Result<ActAnswer, ScaleError> {
    let now = supervisor.members().guests();
    let all = GuestRange::starting_at(now.begin(), count).map_err(SiteError::from)?;
    let (_, guests) = all.split_at(now.count());
    let site = supervisor.site_mut();
    let turn = site.turn()?;
    // What a change of the number left that was cut short: these are new.
    let new = guests.iter().collect::<Vec<_>>();
    site.forget(&new);
    // Those of these numbers that there were may have been stopped, or burned
    // otherwise.
    let before = site.spec().clone();
    let past = &journal.history().guests;
    let burned = |guest: &GuestIndex| past.get(guest).is_some_and(|past| past.duty.is_some());
    let duty = before.burn;
    let quiet = (guests.iter().filter(burned)).map(|guest| Record::Burn { guest, duty });
    let wanted = guests.iter().map(|guest| Record::Wanted { guest });
    let records: Vec<_> = wanted.chain(quiet).collect();
    journal.append_durably(records)?;
    if let Err(error) = enlarge(site, turn, guests, all) {
        *site.spec_mut() = before;
        site.forget(&new);
        if let Err(error) = site.write_ssh_config() {
            tracing::warn!("{error}");
        }
        return Err(error.into());
    }
    supervisor.become_these(all);
    supervisor.policy_mut().answer_within = deadline::scaled(count, host::cpus());
    supervisor.start_planned();
    Ok(ActAnswer {
        done: guests.iter().collect(),
        refused: Vec::new(),
    })
}

/// Makes room for guests that are new.
fn enlarge(site: &mut Site, turn: Turn, new: GuestRange, all: GuestRange) -> Result<(), SiteError> {
    choose_more(site, turn, all)?;
    site.spec_mut().guests = all;
    site.look_at_qemu()?;
    let interrupt = Interrupt::never().doing("make a pair of sockets")?;
    site.furnish(new, &interrupt)?;
    site.write_ssh_config()?;
    Ok(site.folder().write_spec(site.spec())?)
}

/// Takes what these guests need that no other fleet may have.
fn choose_more(site: &mut Site, turn: Turn, all: GuestRange) -> Result<(), SiteError> {
    let fleet = site.folder().path().to_path_buf();
    let spec = site.spec_mut();
    let before = spec.guests;
    if spec.machine.net == Net::User {
        spec.ports = ports::extend(&fleet, &turn.others().ports(), &spec.ports, all.count())?;
    }
    let own = turn.own(spec.instance).and_then(|own| own.users);
    let users = spec.run_as_base.map(|base| {
        let own = own.unwrap_or_else(|| users::assumed(base, before.end()));
        users::extend(own, all.end(), turn.others())
    });
    turn.take(Claim::of(spec, &fleet, users.transpose()?))?;
    Ok(())
}

/// Forgets all guests but these; they have ended.
fn fewer(supervisor: &mut Supervisor, rest: GuestRange) -> Result<ActAnswer, SiteError> {
    let (_, gone) = supervisor.members().guests().split_at(rest.count());
    let gone: Vec<_> = gone.iter().collect();
    supervisor.become_these(rest);
    let site = supervisor.site_mut();
    site.spec_mut().guests = rest;
    site.spec_mut().ports.truncate(rest.count() as usize);
    site.folder().write_spec(site.spec())?;
    site.write_ssh_config()?;
    site.forget(&gone);
    Ok(ActAnswer {
        done: gone,
        refused: Vec::new(),
    })
}

/// The guests of a selection, and those that there are not.
pub(crate) fn selected(
    supervisor: &Supervisor,
    guests: &Selection,
) -> (Vec<GuestIndex>, Vec<Refusal>) {
    let all = supervisor.members().guests();
    let these = match guests {
        Selection::All => return (all.iter().collect(), Vec::new()),
        Selection::These(these) => these,
    };
    let (mut found, unknown): (Vec<_>, Vec<_>) = these
        .iter()
        .copied()
        .partition(|guest| all.contains(*guest));
    found.sort_unstable();
    found.dedup();
    let ends = (all.iter().next(), all.iter().last());
    let has = match ends {
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "none".to_owned(),
    };
    let refused = unknown.into_iter().map(|id| Refusal {
        id,
        reason: format!("there is no such guest: the fleet has {has}"),
    });
    (found, refused.collect())
}
