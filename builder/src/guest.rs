//! A guest's state machine: pure, so that every step can be tested as a table.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tty_init::protocol::{Burn, Status};

use crate::units::Duty;
use state::{Start, State};

pub(crate) mod admission;
pub(crate) mod counts;
pub(crate) mod deadline;
mod event;
mod heard;
pub(crate) mod ksmd;
mod lateness;
pub(crate) mod merging;
mod policy;
mod reason;
#[cfg(test)]
mod simulated;
mod state;
mod steps;
#[cfg(test)]
mod tests;
mod trouble;
mod wanted;

pub use event::{Action, Actions, Event};
pub use policy::{Backoff, GIVE_UP, OnTrouble, Policy, SETTLED, TRY_ON};
pub use reason::Reason;
pub use trouble::Trouble;
pub use wanted::{BurnAt, Desired, Restart};

/// Starts in a row for which something of a guest's is another's until it gets a
/// new one: what is taken for a moment is free again by then.
const TRIES: u32 = 4;

/// Where a guest stands.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It has not been started yet
    Planned,
    /// Its VMM runs; its kernel has not printed anything yet
    Starting,
    /// Its VMM runs, and restores the guest from the template
    Restoring,
    /// Its kernel runs; it has not reported ready
    Booting,
    /// It reported ready and answers in time
    Ready,
    /// It has not answered in time; its VMM still runs
    Unresponsive,
    /// Its VMM runs, and nothing supervises its fleet, so nobody asks it how it is
    Unsupervised,
    /// Its VMM ended, and imgbuild does not start it again: it was stopped, or
    /// --restart says so
    Exited,
    /// Its VMM ended, and imgbuild will start it again
    Restarting,
    /// It ended several times in a row, and imgbuild gave up
    Failed,
}

impl Phase {
    /// One word for it, the same in tables and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Starting => "starting",
            Self::Restoring => "restoring",
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Unresponsive => "unresponsive",
            Self::Unsupervised => "unsupervised",
            Self::Exited => "exited",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
        }
    }

    /// Whether the guest has a VMM whose kernel has not printed anything.
    pub(crate) fn is_starting(self) -> bool {
        matches!(self, Self::Starting | Self::Restoring)
    }

    /// Whether the guest has a VMM.
    pub fn lives(self) -> bool {
        match self {
            Self::Starting
            | Self::Restoring
            | Self::Booting
            | Self::Ready
            | Self::Unresponsive
            | Self::Unsupervised => true,
            Self::Planned | Self::Exited | Self::Restarting | Self::Failed => false,
        }
    }
}

/// A guest as its console and its process show it.
///
/// How it comes up and stays up; `adopted` is shown as `starting`:
///
/// ```text
///               Start             output             ready
///  planned, ----------> starting, -------> booting --------> ready ---------+
///  restarting           restoring                            ^ ^ ^          |
///                          +----------- ready ---------------+ | |          | no answer
///                                                              | | answer   | in time
///             Adopted                                          | |          v
///  planned ----------> adopted ------ ready, heartbeat --------+ +--- unresponsive
///                          |                                                ^
///                          +------------- no answer in time ----------------+
/// ```
///
/// How it ends. While it powers off or was killed, it shows the phase in which
/// that began:
///
/// ```text
///  lives --- its VMM ends ------------------------------------+
///    |                                                        |
///    +-- Stop, Restart ----------------> powering off --------+
///    |                                        | grace is over |
///    |                                        v               |
///    +-- Kill, it hangs or cannot start, --> killed ----------+
///        Stop or Restart before it is ready                   |
///                                                             v
///                  the user stopped it --------------> exited
///                  the user restarts it -------------> restarting
///                  the host kept it from starting ---> where it was before
///                  it powered off, not replaced -----> exited
///                  it failed, not replaced ----------> failed
///                  it ended too often in a row ------> failed
///                  otherwise, with a backoff --------> restarting
/// ```
///
/// Without a VMM, it follows the user at once: Stop leads to `exited`, and
/// Restart from there or from `failed` to `restarting`.
#[derive(Debug, Default)]
pub struct Guest {
    state: State,
    /// When it came into its phase.
    since: Option<Instant>,
    ready_after: Option<Duration>,
    reason: Option<Reason>,
    /// Ends in a row without being ready for long.
    ends: u32,
    /// Starts in a row for which something of its own was another's.
    tries: u32,
    restarts: u32,
    unresponsive: u32,
    status: Option<Status>,
    /// When it said so, in milliseconds of its own clock.
    status_ms: u64,
    /// What it burned last, in this life or one before.
    duty: Option<Duty>,
    tail: VecDeque<String>,
}

impl Guest {
    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// Whether it is to be up.
    pub fn desired(&self) -> Desired {
        self.state.desired()
    }

    /// Why it is not ready, or why it was started again last.
    pub fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }

    /// What it last said of itself, since its last start.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// When it said so, in milliseconds of its own clock.
    pub fn status_ms(&self) -> u64 {
        self.status_ms
    }

    /// The duty that it had last, whoever set it; `None` if it was never seen to
    /// burn. Its next life gets it too.
    pub fn duty(&self) -> Option<Duty> {
        self.duty
    }

    /// Whether it has burned in this life. A guest boots quiet, so one that has
    /// not was not asked to; one that has, and does not any more, was asked to stop.
    pub fn has_burned(&self) -> bool {
        self.status.is_some_and(|status| has_burned(status.burn))
    }

    /// The last lines of text from its console or its VMM, since its last start.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// How often it was late with an answer.
    pub fn unresponsive(&self) -> u32 {
        self.unresponsive
    }

    /// Since when it is in its phase; `None` before anything happened to it.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Time from its last start to its report of being ready; `None` for one
    /// that another supervisor started.
    pub fn ready_after(&self) -> Option<Duration> {
        self.ready_after
    }

    /// Whether it was asked for a sign of life that has not come.
    pub fn owes_an_answer(&self) -> bool {
        matches!(&self.state, State::Alive { stage, .. } if stage.question().is_some())
    }

    /// When it next wants an [`Event::Tick`]. Any event may change it.
    pub fn due(&self) -> Option<Instant> {
        self.state.due()
    }

    /// What of the host's keeps it from being started.
    pub fn trouble(&self) -> Option<&Trouble> {
        match (self.phase(), &self.reason) {
            (Phase::Planned | Phase::Restarting, Some(Reason::Host(trouble))) => Some(trouble),
            _ => None,
        }
    }

    /// Whether something of its own, such as its port, has been another's for so
    /// long that it needs a new one.
    pub fn has_lost_its_own(&self) -> bool {
        let is_taken = matches!(self.reason, Some(Reason::Host(Trouble::Taken(_))));
        is_taken && self.tries >= TRIES
    }

    /// Notes how it fared under another supervisor: how often it was started
    /// again, what it burned, and where it stands, if that was its end and it does
    /// not live.
    pub fn remember(&mut self, restarts: u32, duty: Option<Duty>, over: Option<Phase>) {
        self.restarts = restarts;
        self.duty = self.duty.or(duty);
        if self.phase() != Phase::Planned {
            return;
        }
        self.state = match over {
            Some(Phase::Exited) => State::Exited(Desired::Up),
            Some(Phase::Failed) => State::Failed,
            Some(Phase::Restarting) => State::Waiting {
                start: Start::Again,
                until: None,
            },
            _ => return,
        };
    }

    /// Takes an event that happens `now`. `jitter`, from 0 to 1, is drawn again by
    /// the caller for each, and spreads restarts.
    pub fn apply(
        &mut self,
        now: Instant,
        jitter: f64,
        event: &Event<'_>,
        policy: &Policy,
    ) -> Actions {
        let before = self.phase();
        let action = match event {
            Event::Start(method) => {
                self.start(now, *method, policy);
                None
            }
            Event::Restored => self.restored(),
            Event::NotRestored(why) if self.is_restoring() => {
                Some(self.fail(Reason::NotRestored(why.clone())))
            }
            Event::Heard => {
                self.hear(now, None, policy);
                None
            }
            Event::Message(message) => {
                let action = self.who_is_it(message);
                self.hear(now, Some(message), policy);
                action
            }
            Event::Text(line) => {
                self.read(now, line, policy);
                None
            }
            Event::Adopted => self.adopt(now, policy),
            Event::VmmText(line) => self.complain(line),
            Event::Tick => self.tick(now, policy),
            Event::Chance(chance) => self.judge(now, *chance, policy),
            Event::MachineState(machine) => self.explain(now, *machine, policy),
            Event::OutOfReach => self.lose_sight(now, policy),
            Event::SpawnFailed(reason) if before.is_starting() => {
                self.end(now, jitter, reason.clone(), policy)
            }
            Event::Gone if before == Phase::Planned => self.end(now, jitter, Reason::Lost, policy),
            Event::Ended(end) if before.lives() => {
                let reason = self.reason_of(*end);
                self.end(now, jitter, reason, policy)
            }
            Event::Stop(grace) => self.stop(now, *grace),
            Event::Restart(grace) => self.restart(now, *grace),
            Event::Kill if before.lives() => Some(self.kill(Reason::Killed)),
            Event::NotRestored(_)
            | Event::SpawnFailed(_)
            | Event::Gone
            | Event::Ended(_)
            | Event::Kill => None,
        };
        let changed = self.phase() != before;
        if changed {
            self.since = Some(now);
        }
        Actions { action, changed }
    }
}

fn has_burned(burn: Burn) -> bool {
    burn.duty > 0 || burn.rounds > 0
}
