//! How fast ksmd is to go: as fast as the backlog needs, and not faster. Pure.
//!
//! What counts is the time of a pass over all memory. While guests start, it is so
//! short that those with which KSM is not done are few beside the others, or else
//! they would take more memory than all others; then each pass takes twice as long as
//! the one before, up to a bound that is higher once KSM has settled.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::merging::{KsmSeen, Merging, PASSES, Population};
use crate::host::settings::{Knob, Setting};
use crate::sample::ksm::{KSMD_MAX, PAGES_A_GUEST};

/// Part of the guests with which KSM may not be done while guests start: with 8 MiB
/// before and 3 MiB after, they then take a quarter as much as the rest, and others of
/// the host may take CPU time of ksmd's.
const PENDING_PART: u64 = 10;
/// The shortest pass that is asked for: below that, guests change under it.
const SHORTEST: Duration = Duration::from_millis(250);
/// A pass while KSM is not done with guests.
const GROWING: Duration = Duration::from_secs(2);
/// The longest pass while what there is to merge changes, such as in guests that write.
const CHANGING: Duration = Duration::from_secs(10);
/// The longest pass once KSM has settled: so soon is seen that a guest writes.
const SETTLED: Duration = Duration::from_secs(60);
/// The time over which starts are counted.
const MEMORY: Duration = Duration::from_secs(5);
/// Most pages a second, so that ksmd leaves a fifth of its CPU to others.
const MOST: u64 = KSMD_MAX / 5 * 4;
/// Fewest pages a second, and fewest while KSM has not settled: for these ksmd takes a
/// hundredth of a CPU, and a small fleet settles within seconds.
const LEAST: u64 = 1_000;
const LEAST_UNSETTLED: u64 = 20_000;
/// Milliseconds between turns of ksmd, and those when it goes slowly, so that it
/// wakes less often.
const SLEEP: u64 = 10;
const LONG_SLEEP: u64 = 100;
/// Pages a second below which it goes slowly.
const SLOW: u64 = 20_000;
/// The part of the wanted rate by which it may be another before it is set anew.
const SLACK: u64 = 4;

/// How fast ksmd goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Pages a turn.
    pub pages_to_scan: u64,
    /// Milliseconds between turns.
    pub sleep_millisecs: u64,
}

impl Rate {
    /// As fast as it ever goes.
    pub(crate) fn fastest() -> Self {
        Self::of(MOST)
    }

    /// So many pages a second; a turn takes ksmd time too.
    fn of(pages_a_second: u64) -> Self {
        let rate = pages_a_second.clamp(LEAST, MOST);
        let sleep_millisecs = if rate < SLOW { LONG_SLEEP } else { SLEEP };
        let while_asleep = rate * sleep_millisecs / 1000;
        Self {
            pages_to_scan: while_asleep * KSMD_MAX / (KSMD_MAX - rate),
            sleep_millisecs,
        }
    }

    /// The settings of the host that make it so.
    pub(crate) fn settings(self) -> [Setting; 2] {
        [
            Setting::of(Knob::KsmPagesToScan, self.pages_to_scan),
            Setting::of(Knob::KsmSleepMillisecs, self.sleep_millisecs),
        ]
    }

    /// Pages a second that ksmd gets through at most.
    pub(super) fn pages_a_second(self) -> u64 {
        let pages = self.pages_to_scan.saturating_mul(1_000_000);
        let asleep = self.sleep_millisecs.saturating_mul(1000);
        let micros = (pages / KSMD_MAX).saturating_add(asleep);
        pages.checked_div(micros).unwrap_or_default()
    }
}

/// Decides how fast ksmd is to go.
#[derive(Debug)]
pub(crate) struct Pace {
    merging: Merging,
    /// How many guests lived when.
    living: VecDeque<(Instant, usize)>,
    /// How long a pass may take.
    pass: Duration,
    /// Passes when that was last changed.
    changed_at: u64,
    has_settled: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            merging: Merging::default(),
            living: VecDeque::new(),
            pass: GROWING,
            changed_at: 0,
            has_settled: false,
        }
    }
}

impl Pace {
    /// Takes note of what KSM has done, and for whom.
    pub(crate) fn see(&mut self, now: Instant, ksm: &KsmSeen, guests: Population) {
        self.merging.see(ksm, guests);
        self.living.push_back((now, guests.living));
        while self.living.len() > 1 && now.saturating_duration_since(self.living[0].0) > MEMORY {
            self.living.pop_front();
        }
        let had_settled =
            std::mem::replace(&mut self.has_settled, self.merging.has_settled(ksm, guests));
        if self.merging.pending(guests.living) > 0 {
            self.pass = self.growing(guests);
            self.changed_at = ksm.full_scans;
        } else if had_settled && !self.has_settled {
            self.pass = GROWING;
            self.changed_at = ksm.full_scans;
        } else if ksm.full_scans > self.changed_at {
            let longest = if self.has_settled { SETTLED } else { CHANGING };
            self.pass = (self.pass * 2).min(longest);
            self.changed_at = ksm.full_scans;
        }
    }

    /// Whether KSM has merged what it can.
    pub(crate) fn has_settled(&self) -> bool {
        self.has_settled
    }

    /// How soon to look again.
    pub(crate) fn look_after(&self) -> Duration {
        (self.pass / 4).clamp(SHORTEST, CHANGING)
    }

    /// The rate that ksmd is to have from now on, unless `present` is as good.
    pub(crate) fn rate(&self, ksm: &KsmSeen, guests: Population, present: Rate) -> Option<Rate> {
        let new = (self.merging.pending(guests.living) as u64).saturating_mul(PAGES_A_GUEST);
        let pages = ksm.pages().saturating_add(new);
        let wanted = u128::from(pages) * 1000 / self.pass.as_millis();
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let least = if self.has_settled {
            LEAST
        } else {
            LEAST_UNSETTLED
        };
        let wanted = wanted.clamp(least, MOST);
        let is_near = present.pages_a_second().abs_diff(wanted) <= wanted / SLACK;
        (!is_near).then(|| Rate::of(wanted))
    }

    /// How long a pass may take while guests start at the present rate.
    fn growing(&self, guests: Population) -> Duration {
        let (Some(first), Some(last)) = (self.living.front(), self.living.back()) else {
            return GROWING;
        };
        let over = last.0.saturating_duration_since(first.0);
        let started = last.1.saturating_sub(first.1) as u64;
        let most = guests.living as u64 / PENDING_PART;
        let over = over.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX));
        let pass = u32::try_from(started * PASSES)
            .ok()
            .and_then(|passes| over.checked_div(passes));
        // Without any start, no pass is too long.
        pass.unwrap_or(GROWING).clamp(SHORTEST, GROWING)
    }
}

#[cfg(test)]
mod tests;
