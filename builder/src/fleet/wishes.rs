//! What users want of guests that run: to stop, to start again, to be more or
//! fewer.

use std::time::Duration;

use tokio::sync::oneshot;

use super::api::bridge::Act;
use super::api::types::{ActAnswer, ActRequest, Refusal, Selection};
use super::guest::{Event, Phase};
use super::journal::{Journal, Record};
use super::launch::LaunchError;
use super::site::Site;
use super::supervise::STOP_GRACE;
use super::supervisor::Supervisor;
use super::{deadline, ports};
use crate::host;
use crate::interrupt::Interrupt;
use crate::units::{GuestIndex, GuestRange};
use crate::vmm::Net;

/// Longest grace that makes sense, so that no sum of times overflows.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Wishes that are not fulfilled yet.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    acts: Vec<Pending>,
    /// Fewer guests: those from this number on go.
    fewer: Option<(usize, oneshot::Sender<Result<ActAnswer, String>>)>,
    /// What `stop --all` gave guests to power off, and who waits for the end.
    end: Option<(Duration, ActAnswer, oneshot::Sender<ActAnswer>)>,
}

#[derive(Debug)]
struct Pending {
    act: Act,
    /// Guests, and the process that each was when it was told.
    waiting: Vec<(usize, Option<u32>)>,
    answer: ActAnswer,
    reply: oneshot::Sender<ActAnswer>,
}

impl Wishes {
    /// Tells guests what is wanted; `true` if that is the end of the fleet.
    pub(super) fn act(
        &mut self,
        supervisor: &mut Supervisor,
        journal: &mut Journal,
        act: Act,
        request: &ActRequest,
        reply: oneshot::Sender<ActAnswer>,
    ) -> bool {
        let grace = request
            .grace_seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map_or(STOP_GRACE, |grace| grace.min(GRACE_MAX));
        let (guests, mut refused) = selected(supervisor, &request.guests);
        if act == Act::Stop && request.guests == Selection::All {
            let done = guests.iter().map(|which| id(supervisor, *which)).collect();
            self.end = Some((grace, ActAnswer { done, refused }, reply));
            return true;
        }
        let mut done = Vec::new();
        let mut waiting = Vec::new();
        for which in guests {
            let member = &supervisor.members()[which];
            let (guest, pid) = (member.index(), member.pid());
            if act == Act::Kill && pid.is_none() {
                refused.push(Refusal {
                    id: guest.to_string(),
                    reason: format!("it does not run: it is {}", member.guest().phase().name()),
                });
                continue;
            }
            let (record, event) = match act {
                Act::Stop => (Some(Record::Stopped { guest }), Event::Stop(grace)),
                Act::Restart => (Some(Record::Wanted { guest }), Event::Restart(grace)),
                Act::Kill => (None, Event::Kill),
            };
            if let Some(record) = record
                && let Err(error) = journal.append_durably(&record)
            {
                refused.push(Refusal {
                    id: guest.to_string(),
                    reason: error.to_string(),
                });
                continue;
            }
            done.push(guest.to_string());
            waiting.push((which, pid));
            supervisor.wish(which, &event);
        }
        self.acts.push(Pending {
            act,
            waiting,
            answer: ActAnswer { done, refused },
            reply,
        });
        self.go_on(supervisor);
        false
    }

    /// Changes the number of guests.
    pub(super) fn scale(
        &mut self,
        supervisor: &mut Supervisor,
        journal: &mut Journal,
        count: u32,
        reply: oneshot::Sender<Result<ActAnswer, String>>,
    ) {
        if self.fewer.is_some() {
            let _ = reply.send(Err(
                "another change of the number of guests is under way".into()
            ));
            return;
        }
        let now = supervisor.members().len();
        let wanted = count as usize;
        if wanted > now {
            let _ = reply.send(more(supervisor, count).map_err(|error| error.to_string()));
            return;
        }
        for which in wanted..now {
            let guest = supervisor.members()[which].index();
            if let Err(error) = journal.append_durably(&Record::Stopped { guest }) {
                let _ = reply.send(Err(error.to_string()));
                return;
            }
            supervisor.wish(which, &Event::Stop(STOP_GRACE));
        }
        self.fewer = Some((wanted, reply));
        self.go_on(supervisor);
    }

    /// Answers those whose wishes are fulfilled.
    pub(super) fn go_on(&mut self, supervisor: &mut Supervisor) {
        for pending in std::mem::take(&mut self.acts) {
            let Pending {
                act,
                mut waiting,
                answer,
                reply,
            } = pending;
            waiting.retain(|(which, before)| !is_done(supervisor, act, *which, *before));
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
        let gone = |count: usize| {
            let mut rest = supervisor.members().iter().skip(count);
            rest.all(|member| !member.lives())
        };
        if let Some((count, reply)) = self.fewer.take_if(|(count, _)| gone(*count)) {
            let _ = reply.send(fewer(supervisor, count).map_err(|error| error.to_string()));
        }
    }

    /// What guests get to power off when the fleet ends, if the user said so.
    pub(super) fn grace(&self) -> Option<Duration> {
        self.end.as_ref().map(|(grace, ..)| *grace)
    }

    /// Answers who waits for the end of the fleet, which has come.
    pub(super) fn finish(self) {
        if let Some((_, answer, reply)) = self.end {
            let _ = reply.send(answer);
        }
        for pending in self.acts {
            let _ = pending.reply.send(pending.answer);
        }
    }
}

/// Whether a guest has become what was wanted of it.
fn is_done(supervisor: &Supervisor, act: Act, which: usize, before: Option<u32>) -> bool {
    let Some(member) = supervisor.members().get(which) else {
        return true;
    };
    let pid = member.pid();
    match act {
        Act::Stop => pid.is_none(),
        Act::Kill => pid != before,
        Act::Restart => (pid.is_some() && pid != before) || member.guest().phase() == Phase::Failed,
    }
}

/// Adds guests, up to `count`.
fn more(supervisor: &mut Supervisor, count: u32) -> Result<ActAnswer, LaunchError> {
    let now = u32::try_from(supervisor.members().len()).unwrap_or(u32::MAX);
    let guests = GuestRange::new(now, count)?;
    let site = supervisor.site_mut();
    let before = site.spec().clone();
    if let Err(error) = enlarge(site, guests, count) {
        *site.spec_mut() = before;
        site.forget(&guests.iter().collect::<Vec<_>>());
        return Err(error);
    }
    supervisor.extend(guests.iter());
    supervisor.policy_mut().answer_within = deadline::scaled(count, host::cpus());
    supervisor.start_planned();
    Ok(ActAnswer {
        done: guests.iter().map(|guest| guest.to_string()).collect(),
        refused: Vec::new(),
    })
}

/// Makes room for guests that are new.
fn enlarge(site: &mut Site, guests: GuestRange, count: u32) -> Result<(), LaunchError> {
    if site.spec().net == Net::User {
        let ports = ports::extend(site.folder().path(), &site.spec().ports, count)?;
        site.spec_mut().ports = ports;
    }
    site.spec_mut().count = count;
    site.prepare(guests, &Interrupt::never()?)?;
    site.write_ssh_config()?;
    Ok(site.folder().write_spec(site.spec())?)
}

/// Forgets the guests from `count` on, which have ended.
fn fewer(supervisor: &mut Supervisor, count: usize) -> Result<ActAnswer, LaunchError> {
    let gone: Vec<_> = supervisor.members()[count..]
        .iter()
        .map(super::supervisor::Member::index)
        .collect();
    supervisor.truncate(count);
    let site = supervisor.site_mut();
    site.spec_mut().count = u32::try_from(count).unwrap_or(u32::MAX);
    site.spec_mut().ports.truncate(count);
    site.folder().write_spec(site.spec())?;
    site.write_ssh_config()?;
    site.forget(&gone);
    Ok(ActAnswer {
        done: gone.iter().map(GuestIndex::to_string).collect(),
        refused: Vec::new(),
    })
}

/// The guests of a selection, by their places, and those that there are not.
pub(super) fn selected(supervisor: &Supervisor, guests: &Selection) -> (Vec<usize>, Vec<Refusal>) {
    let count = supervisor.members().len();
    let ids = match guests {
        Selection::All => return ((0..count).collect(), Vec::new()),
        Selection::These(ids) => ids,
    };
    let mut found = Vec::new();
    let mut refused = Vec::new();
    for id in ids {
        match id.parse::<GuestIndex>() {
            Ok(guest) if (guest.get() as usize) < count => found.push(guest.get() as usize),
            Ok(_) => refused.push(Refusal {
                id: id.clone(),
                reason: format!("there is no such guest: the fleet has {count}"),
            }),
            Err(error) => refused.push(Refusal {
                id: id.clone(),
                reason: error.to_string(),
            }),
        }
    }
    found.sort_unstable();
    found.dedup();
    (found, refused)
}

fn id(supervisor: &Supervisor, which: usize) -> String {
    supervisor.members()[which].index().to_string()
}
