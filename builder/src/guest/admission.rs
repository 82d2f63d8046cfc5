//! When another guest may start: as fast as CPUs, memory and KSM allow, and never
//! so that the host runs out of memory. Pure, except for [`look`].
//!
//! Free memory alone is not enough to decide: a guest takes the most memory before
//! KSM has merged its pages, and a guest that boots has not yet taken all that it
//! will need.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::merging::{KsmSeen, Merging, PASSES, Population};
use crate::host::concern::text::{counted, size};
use crate::sample::ksm::{self, PAGE};
use crate::sample::meminfo;
use crate::sample::source::Source;

/// How fast guests are started, and when no more are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionSpec {
    /// Memory of the host that stays free, in bytes of MemAvailable.
    pub keep_free: u64,
    /// Most starts a second.
    pub rate: Option<f64>,
    /// Most guests that boot at a time; by the number of CPUs without.
    pub parallel: Option<usize>,
    /// Host memory that a guest takes before KSM merges it, in bytes.
    pub guest_memory: u64,
    /// The same once KSM has merged what it can; `None` where KSM merges nothing, or
    /// it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_memory: Option<u64>,
}

#[cfg(test)]
mod tests;

/// How soon to look again at what changes by itself.
const LOOK: Duration = Duration::from_millis(500);
/// How far starts may catch up with their rate after a delay.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Share of the time in which some task waited for memory, in percent, above
/// which no guest starts (kernel document accounting/psi, `some avg10`).
const PRESSURE_MOST: f64 = 10.0;
/// How long memory may stay short without getting better until the host is full.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same while KSM has not been over all memory since the last start.
const PATIENCE_MERGING: Duration = Duration::from_secs(60);
/// Most memory that guests may take until KSM has merged it, beside what the fleet
/// takes merged: a half of that, so that growing a fleet takes half as much again at
/// most; and what no host minds.
const BACKLOG_SHARE: u64 = 2;
const BACKLOG_LEAST: u64 = 256 << 20;
/// How long the next start waits for KSM, and how much longer for each living guest:
/// a little more than three passes at ksmd's greatest speed. KSM that takes longer
/// does not keep up, whatever the reason, and is not waited for before it has caught
/// up.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(5);
const BACKLOG_PATIENCE_A_GUEST: Duration = Duration::from_millis(5);
/// Memory that must come back for it to be getting better, in bytes: more than
/// comes and goes by itself.
const STEP: u64 = 1 << 20;

/// Decides whether another guest may start.
#[derive(Debug)]
pub struct Admission {
    spec: AdmissionSpec,
    parallel: usize,
    /// When the rate lets the next one start.
    next: Option<Instant>,
    /// KSM's passes, as last seen.
    full_scans: u64,
    /// The same when the last guest started.
    scans_at_start: u64,
    short: Option<Shortage>,
    merging: Merging,
    /// Since when too much is not merged.
    behind: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Shortage {
    /// When it last got better.
    improved: Instant,
    /// The most memory available since.
    available: u64,
    /// The most pages merged since.
    merged: u64,
    /// Whether it was given up.
    full: bool,
}

/// What is seen of the fleet and of the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Guests that start or boot.
    pub booting: usize,
    /// Guests with a VMM, those that boot among them.
    pub living: usize,
    /// Memory that can be had without swapping (`MemAvailable`), in bytes.
    pub available: u64,
    /// What the control groups of guests still allow, in bytes.
    pub room: u64,
    /// Share of the last 10 s in which some task waited for memory, in percent.
    pub memory_pressure: f64,
    /// KSM, where it runs.
    pub ksm: Option<KsmSeen>,
}

/// Whether another guest may start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    Start,
    Wait {
        /// When to look again; sooner if a guest ended or is ready.
        until: Instant,
        why: Delay,
    },
    /// There is no room, and none is coming by itself. It is worth another look
    /// now and then: memory may come back.
    Full(Delay),
}

/// What holds a guest back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Delay {
    /// As many boot as may at a time.
    Parallel { booting: usize },
    /// As many were started as may in a second.
    Rate(f64),
    /// Tasks wait for memory for this share of the time, in percent.
    Pressure(f64),
    /// Another guest would take memory that is to stay free.
    Memory {
        /// What is available, in bytes.
        available: u64,
        /// What is to stay free, in bytes.
        floor: u64,
        /// What the guest, and those that boot, take besides, in bytes.
        guests: u64,
    },
    /// Another guest would take memory that a control group does not allow.
    Group {
        /// What it still allows, in bytes.
        room: u64,
        /// What the guest, and those that boot, take, in bytes.
        guests: u64,
    },
    /// The same as either, but KSM is still at work.
    Merging {
        /// What is available, in bytes.
        available: u64,
        living: usize,
        /// Pages that KSM has saved.
        merged: u64,
        /// Pages that it looked at and has not merged.
        unmerged: u64,
    },
    /// There is memory, but guests take more of it that KSM is about to merge than they
    /// are to.
    Backlog {
        /// Guests with which KSM is not done.
        pending: usize,
        /// What it is about to merge of theirs, in bytes.
        backlog: u64,
        /// Most of that, in bytes.
        most: u64,
    },
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Parallel { booting } => {
                write!(
                    f,
                    "{} are booting, which is the most at a time (--parallel)",
                    counted(booting as u64, "guest")
                )
            }
            Self::Rate(rate) => write!(f, "--rate allows {rate} starts a second"),
            Self::Pressure(percent) => write!(
                f,
                "tasks wait for memory {percent:.1} % of the time, more than {PRESSURE_MOST} %"
            ),
            Self::Memory {
                available,
                floor,
                guests,
            } => write!(
                f,
                "{} of memory are available; the next guest and those that boot take {}, and {} \
                 are to stay free",
                size(available),
                size(guests),
                size(floor)
            ),
            Self::Group { room, guests } => write!(
                f,
                "the control group's limit leaves {} of memory, and the next guest and those that \
                 boot take {}",
                size(room),
                size(guests)
            ),
            Self::Merging {
                available,
                living,
                merged,
                unmerged,
            } => write!(
                f,
                "{} of memory are available, and KSM is still merging the memory of {}: it has \
                 saved {} and scanned {}",
                size(available),
                counted(living as u64, "guest"),
                size(merged.saturating_mul(PAGE)),
                size(unmerged.saturating_mul(PAGE))
            ),
            Self::Backlog {
                pending,
                backlog,
                most,
            } => write!(
                f,
                "KSM has yet to merge about {} of {}, and no more are started than it can merge \
                 {} of",
                size(backlog),
                counted(pending as u64, "guest"),
                size(most)
            ),
        }
    }
}

impl Admission {
    /// Admission to a fleet on a host with so many `cores` to use.
    pub fn new(spec: &AdmissionSpec, cores: usize) -> Self {
        Self {
            spec: *spec,
            // Booting is work for a CPU, so more guests at a time than CPUs only
            // slow each other down; one more keeps the CPUs busy while another
            // is set up.
            parallel: spec.parallel.unwrap_or(cores + 1),
            next: None,
            full_scans: 0,
            scans_at_start: 0,
            short: None,
            merging: Merging::default(),
            behind: None,
        }
    }

    /// Most guests that boot at a time.
    pub fn parallel(&self) -> usize {
        self.parallel
    }

    /// Whether another guest may start. Ask before each start, those of guests
    /// that are started again too, with the guests started before counted in
    /// `seen`.
    pub fn may_start(&mut self, now: Instant, seen: &Seen) -> Verdict {
        let population = Population {
            up: seen.living.saturating_sub(seen.booting),
            living: seen.living,
        };
        if let Some(ksm) = seen.ksm {
            self.full_scans = ksm.full_scans;
            self.merging.see(&ksm, population);
        }
        let wait = |why| Verdict::Wait {
            until: now + LOOK,
            why,
        };
        if seen.booting >= self.parallel {
            return wait(Delay::Parallel {
                booting: seen.booting,
            });
        }
        let starting = u64::try_from(seen.booting)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let guests = self.spec.guest_memory.saturating_mul(starting);
        let floor = self.spec.keep_free;
        let room = seen.room;
        if seen.available < guests.saturating_add(floor) {
            let delay = Delay::Memory {
                available: seen.available,
                floor,
                guests,
            };
            return self.run_short(now, seen, seen.available, delay);
        }
        if room < guests {
            return self.run_short(now, seen, room, Delay::Group { room, guests });
        }
        self.short = None;
        if seen.memory_pressure > PRESSURE_MOST {
            return wait(Delay::Pressure(seen.memory_pressure));
        }
        if let Some(why) = self.falls_behind(now, seen) {
            return wait(why);
        }
        match (self.spec.rate, self.next) {
            (Some(rate), Some(until)) if now < until => Verdict::Wait {
                until,
                why: Delay::Rate(rate),
            },
            _ => Verdict::Start,
        }
    }

    /// Takes note that a guest was started `now`.
    pub fn started(&mut self, now: Instant) {
        self.scans_at_start = self.full_scans;
        if let Some(rate) = self.spec.rate {
            let behind = now.checked_sub(CATCH_UP).unwrap_or(now);
            let from = self.next.map_or(now, |next| next.max(behind));
            // Fails for a rate that is none, which command lines do not take.
            let interval = Duration::try_from_secs_f64(rate.recip()).unwrap_or_default();
            self.next = from.checked_add(interval);
        }
    }

    /// Whether the next start is to wait for KSM, and why.
    fn falls_behind(&mut self, now: Instant, seen: &Seen) -> Option<Delay> {
        let why = self.backlog(seen);
        if why.is_none() {
            self.behind = None;
            return None;
        }
        let since = *self.behind.get_or_insert(now);
        let living = u32::try_from(seen.living).unwrap_or(u32::MAX);
        let patience = BACKLOG_PATIENCE + BACKLOG_PATIENCE_A_GUEST.saturating_mul(living);
        why.filter(|_| now.saturating_duration_since(since) < patience)
    }

    /// Whether another guest would take too much that is to be merged.
    fn backlog(&self, seen: &Seen) -> Option<Delay> {
        let merged = self.spec.merged_memory?;
        seen.ksm?;
        let saving = self.spec.guest_memory.saturating_sub(merged);
        let fleet = merged.saturating_mul(seen.living as u64);
        let most = (fleet / BACKLOG_SHARE).max(BACKLOG_LEAST);
        let pending = self.merging.pending(seen.living);
        let backlog = saving.saturating_mul(pending as u64);
        let is_more = pending > 0 && backlog.saturating_add(saving) > most;
        is_more.then_some(Delay::Backlog {
            pending,
            backlog,
            most,
        })
    }

    /// Tells whether memory that is short may yet come; so much is `available`.
    fn run_short(&mut self, now: Instant, seen: &Seen, available: u64, delay: Delay) -> Verdict {
        let merged = seen.ksm.map_or(0, |ksm| ksm.merged);
        let short = self.short.get_or_insert(Shortage {
            improved: now,
            available,
            merged,
            full: false,
        });
        let more = available >= short.available.saturating_add(STEP)
            || merged >= short.merged.saturating_add(STEP / PAGE);
        if more {
            short.improved = now;
            short.available = short.available.max(available);
            short.merged = short.merged.max(merged);
        }
        let stuck = now.saturating_duration_since(short.improved);
        let merging = seen.ksm.filter(|ksm| {
            let passes = ksm.full_scans.saturating_sub(self.scans_at_start);
            seen.living > 0 && (stuck < PATIENCE || passes < PASSES && stuck < PATIENCE_MERGING)
        });
        short.full |= stuck >= PATIENCE && merging.is_none();
        if short.full {
            return Verdict::Full(delay);
        }
        Verdict::Wait {
            until: now + LOOK,
            why: merging.map_or(delay, |ksm| Delay::Merging {
                available,
                living: seen.living,
                merged: ksm.merged,
                unmerged: ksm.unmerged,
            }),
        }
    }
}

/// Looks at the host under `root`, where so many guests boot and live, and their
/// control groups limit memory to `allowed` bytes more, if they do.
///
/// What cannot be read is not a reason to start no guests: unknown memory is taken
/// for enough of it (`u64::MAX`), unknown pressure for none, and KSM that does
/// not tell for one that does not run.
pub(crate) fn look(root: &Path, allowed: Option<u64>, booting: usize, living: usize) -> Seen {
    let mut unseen = Vec::new();
    let ksm = ksm::read(root, &mut unseen);
    let mut source = Source::new(root, &mut unseen);
    Seen {
        booting,
        living,
        available: meminfo::available(&mut source).unwrap_or(u64::MAX),
        room: allowed.unwrap_or(u64::MAX),
        memory_pressure: meminfo::pressure(&mut source, "memory").unwrap_or(0.0),
        ksm: ksm.as_ref().and_then(KsmSeen::of),
    }
}
