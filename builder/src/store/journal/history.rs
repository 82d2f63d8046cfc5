//! What a journal says about each guest; pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::guest::{Desired, Phase};
use crate::units::{Duty, GuestIndex};

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase", deny_unknown_fields)]
pub enum Record {
    /// A guest's VMM was started.
    Start {
        /// The guest.
        guest: GuestIndex,
        /// Process id of the VMM.
        pid: u32,
        /// When that started, in clock ticks since boot (`proc_pid_stat(5)`,
        /// field 22).
        start_time: u64,
        /// How often the guest was started again so far.
        restarts: u32,
    },
    /// A guest's VMM ended.
    End {
        /// The guest.
        guest: GuestIndex,
    },
    /// A guest is to stay down.
    Stopped {
        /// The guest.
        guest: GuestIndex,
    },
    /// A guest is to be up again.
    Wanted {
        /// The guest.
        guest: GuestIndex,
    },
    /// A guest ended, and is not to be started again, though nobody stopped it.
    Over {
        /// The guest.
        guest: GuestIndex,
        /// `exited` or `failed`.
        phase: Phase,
    },
    /// A start of a guest came to nothing, its VMM not started or ended again by
    /// the host's trouble.
    NotStarted {
        /// The guest.
        guest: GuestIndex,
        /// Where it stands since: `planned` and `restarting` wait for the next.
        phase: Phase,
        /// How often it was started again so far.
        restarts: u32,
    },
    /// A guest burns otherwise than the fleet's recipe says, or than was recorded
    /// before.
    Burn {
        /// The guest.
        guest: GuestIndex,
        /// So much of the time, in its next lives too.
        duty: Duty,
    },
    /// The initial start is done; guests burn.
    Up,
}

/// What became of a fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Guests that anything was recorded of.
    pub guests: BTreeMap<GuestIndex, Past>,
    /// Whether the initial start is done.
    pub up: bool,
}

/// What became of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Its last start, if it was ever started.
    pub last: Option<Run>,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether it is to be up.
    pub desired: Desired,
    /// Where it stands, if its end is not the last that is known: it is not to be
    /// started again, or a start of it came to nothing.
    pub over: Option<Phase>,
    /// What it burned last, if that is not what the fleet's recipe says.
    pub duty: Option<Duty>,
}

/// A start of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Process id of its VMM.
    pub pid: u32,
    /// When that started, in clock ticks since boot.
    pub start_time: u64,
    /// Whether its end was recorded. Without, it may have ended all the same.
    pub ended: bool,
}

impl Default for Past {
    fn default() -> Self {
        Self {
            last: None,
            restarts: 0,
            desired: Desired::Up,
            over: None,
            duty: None,
        }
    }
}

impl History {
    pub(crate) fn apply(&mut self, record: &Record) {
        let guests = &mut self.guests;
        match *record {
            Record::Start {
                guest,
                pid,
                start_time,
                restarts,
            } => {
                let past = guests.entry(guest).or_default();
                past.over = None;
                past.restarts = restarts;
                past.last = Some(Run {
                    pid,
                    start_time,
                    ended: false,
                });
            }
            Record::End { guest } => {
                if let Some(run) = &mut guests.entry(guest).or_default().last {
                    run.ended = true;
                }
            }
            Record::Stopped { guest } => guests.entry(guest).or_default().desired = Desired::Down,
            Record::Wanted { guest } => {
                let past = guests.entry(guest).or_default();
                past.desired = Desired::Up;
                past.over = None;
            }
            Record::Over { guest, phase } => guests.entry(guest).or_default().over = Some(phase),
            Record::NotStarted {
                guest,
                phase,
                restarts,
            } => {
                let past = guests.entry(guest).or_default();
                past.over = Some(phase);
                past.restarts = restarts;
                if phase == Phase::Planned {
                    // It has not had its first start.
                    past.last = None;
                }
            }
            Record::Burn { guest, duty } => guests.entry(guest).or_default().duty = Some(duty),
            Record::Up => self.up = true,
        }
    }

    /// The fewest records that tell the same.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (&guest, past) in &self.guests {
            if let Some(run) = past.last {
                records.push(Record::Start {
                    guest,
                    pid: run.pid,
                    start_time: run.start_time,
                    restarts: past.restarts,
                });
                if run.ended {
                    records.push(Record::End { guest });
                }
            }
            match (past.over, past.last) {
                (Some(phase @ (Phase::Exited | Phase::Failed)), Some(_)) => {
                    records.push(Record::Over { guest, phase });
                }
                (Some(phase), _) => records.push(Record::NotStarted {
                    guest,
                    phase,
                    restarts: past.restarts,
                }),
                (None, _) => {}
            }
            if past.desired == Desired::Down {
                records.push(Record::Stopped { guest });
            }
            if let Some(duty) = past.duty {
                records.push(Record::Burn { guest, duty });
            }
        }
        if self.up {
            records.push(Record::Up);
        }
        records
    }
}
