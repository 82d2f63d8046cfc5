//! A fleet and a ksmd that merges it, in numbers that were measured: what a guest
//! touches, how fast ksmd goes, and that a pass takes longer the more guests there are.

use std::time::{Duration, Instant};

use super::ksmd::{Pace, Rate};
use super::merging::{KsmSeen, Population};
use crate::sample::ksm::{KSMD_MAX, PAGES_A_GUEST};

/// How finely time passes.
pub(crate) const TICK: Duration = Duration::from_millis(10);
const TICKS: u64 = 100;
/// How long a clone takes to come up.
const BOOT: Duration = Duration::from_millis(150);
/// Pages that KSM merges of those that it looks at; the others differ.
const ALIKE: u64 = PAGES_A_GUEST - 300;

/// What a guest takes before it is merged, beside what it takes then.
pub(crate) const UNMERGED: u64 = 8 << 20;

#[derive(Debug, Clone, Copy)]
struct Guest {
    started: Instant,
    /// Passes that have seen it unchanged.
    passes: u32,
}

/// Guests, and ksmd at work.
pub(crate) struct Host {
    pub(crate) now: Instant,
    guests: Vec<Guest>,
    /// What ksmd may do.
    pub(crate) rate: Rate,
    /// Pages a second that are left to it at most.
    pub(crate) speed: u64,
    full_scans: u64,
    /// Pages of this pass that are done, and pages that it has.
    done: u64,
    pass: u64,
    /// Pages that ksmd looked at.
    scanned: u64,
}

impl Host {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            now: Instant::now(),
            guests: Vec::new(),
            rate,
            speed: KSMD_MAX,
            full_scans: 0,
            done: 0,
            pass: 0,
            scanned: 0,
        }
    }

    pub(crate) fn start(&mut self) {
        self.guests.push(Guest {
            started: self.now,
            passes: 0,
        });
    }

    /// The time that ksmd has run.
    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_millis(self.scanned * 1000 / KSMD_MAX)
    }

    /// Has the first so many write to all pages that were merged.
    pub(crate) fn write(&mut self, guests: usize) {
        for guest in self.guests.iter_mut().take(guests) {
            guest.passes = 0;
        }
    }

    /// Has the first so many be started again.
    pub(crate) fn restart(&mut self, guests: usize) {
        let now = self.now;
        for guest in self.guests.iter_mut().take(guests) {
            *guest = Guest {
                started: now,
                passes: 0,
            };
        }
    }

    pub(crate) fn tick(&mut self) {
        self.now += TICK;
        let most = self.rate.pages_a_second().min(self.speed) / TICKS;
        self.scanned += most;
        self.done += most;
        while self.pass == 0 || self.done >= self.pass {
            self.done -= self.pass;
            if self.pass > 0 {
                self.full_scans += 1;
            }
            let now = self.now;
            let up = self.guests.iter_mut().filter(|guest| guest.is_up(now));
            for guest in up {
                guest.passes = guest.passes.saturating_add(1);
            }
            self.pass = self.guests.len() as u64 * PAGES_A_GUEST;
            if self.pass == 0 {
                self.done = 0;
                return;
            }
        }
    }

    /// Runs for so long, and has `pace` set the rate.
    pub(crate) fn run(&mut self, over: Duration, pace: &mut Pace) {
        let until = self.now + over;
        let mut next = self.now;
        while self.now < until {
            self.tick();
            if self.now >= next {
                next = self.now + self.look(pace);
            }
        }
    }

    /// Has `pace` look and set the rate; how soon it looks again.
    pub(crate) fn look(&mut self, pace: &mut Pace) -> Duration {
        let (ksm, guests) = (self.ksm(), self.guests());
        pace.see(self.now, &ksm, guests);
        if let Some(rate) = pace.rate(&ksm, guests, self.rate) {
            self.rate = rate;
        }
        pace.look_after()
    }

    pub(crate) fn guests(&self) -> Population {
        let up = self.guests.iter().filter(|guest| guest.is_up(self.now));
        Population {
            up: up.count(),
            living: self.guests.len(),
        }
    }

    /// Guests with which ksmd is done.
    fn merged(&self) -> u64 {
        self.guests.iter().filter(|guest| guest.passes > 2).count() as u64
    }

    pub(crate) fn ksm(&self) -> KsmSeen {
        let merged = self.merged() * ALIKE;
        KsmSeen {
            full_scans: self.full_scans,
            shared: ALIKE.min(merged),
            merged: merged.saturating_sub(ALIKE),
            unmerged: self.guests.len() as u64 * PAGES_A_GUEST - merged,
            left_out: 0,
        }
    }

    /// Memory that the guests take, each of which takes `merged` once it is merged.
    pub(crate) fn memory(&self, merged: u64) -> u64 {
        let pending = self.guests.len() as u64 - self.merged();
        self.guests.len() as u64 * merged + pending * UNMERGED
    }
}

impl Guest {
    fn is_up(&self, now: Instant) -> bool {
        now.duration_since(self.started) >= BOOT
    }
}

/// What `--fix` sets before anything is known of the fleet.
pub(crate) const FIXED: Rate = Rate {
    pages_to_scan: 20_000,
    sleep_millisecs: 10,
};

/// What the kernel has by default.
pub(crate) const STOCK: Rate = Rate {
    pages_to_scan: 100,
    sleep_millisecs: 20,
};
