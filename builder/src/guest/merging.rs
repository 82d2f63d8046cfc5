//! How far KSM has come with the memory of a fleet's guests, by its counters: pure.
//!
//! A page is merged in the second pass that finds it unchanged, so KSM is done with a
//! guest three passes after the guest came up: the pass that was under way, and two
//! that see all of it. That needs no look at each guest's memory.

use std::collections::VecDeque;

use crate::sample::ksm::{Ksm, PAGE};

/// Passes of KSM over all memory until what a new guest has in common is merged: the
/// one under way, and two that find it unchanged.
pub(crate) const PASSES: u64 = 3;
/// Passes for which `smart_scan` leaves out a page that did not merge before, at most
/// (`MAX_SKIP_PAGE_CNT` of Linux's mm/ksm.c).
const LEFT_OUT: u64 = 8;
/// Change of its counters that is none: a hundredth of all pages, and not less than
/// 1 MiB of them.
const STEADY_PART: u64 = 100;
const STEADY_PAGES: u64 = (1 << 20) / PAGE;

/// What KSM did (kernel document admin-guide/mm/ksm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KsmSeen {
    /// Passes over all memory.
    pub full_scans: u64,
    /// Pages that stand for others (`pages_shared`).
    pub shared: u64,
    /// Pages that others stand for: memory saved (`pages_sharing`).
    pub merged: u64,
    /// Pages that were looked at and not merged (`pages_unshared` and
    /// `pages_volatile`).
    pub unmerged: u64,
    /// Passes for which pages may be left out.
    pub left_out: u64,
}

impl KsmSeen {
    /// What KSM says of itself, where it runs and says all of it.
    pub(crate) fn of(ksm: &Ksm) -> Option<Self> {
        if !ksm.runs() {
            return None;
        }
        Some(Self {
            full_scans: ksm.full_scans?,
            shared: ksm.pages_shared?,
            merged: ksm.pages_sharing?,
            unmerged: ksm.pages_unshared?.saturating_add(ksm.pages_volatile?),
            left_out: match ksm.smart_scan {
                None | Some(0) => 0,
                Some(_) => LEFT_OUT,
            },
        })
    }

    /// Pages that a pass goes over.
    pub(crate) fn pages(&self) -> u64 {
        let looked_at = self.shared.saturating_add(self.merged);
        looked_at.saturating_add(self.unmerged)
    }
}

/// Guests whose memory KSM merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Population {
    /// Those that are up: from then on most of their memory stays as it is.
    pub up: usize,
    /// Those with a VMM, those that boot among them.
    pub living: usize,
}

/// KSM's passes over a fleet, as far as it matters what was seen in them.
#[derive(Debug, Default)]
pub(crate) struct Merging {
    /// The oldest first, one of each number of passes.
    seen: VecDeque<Seen>,
    /// Passes when it was first looked at.
    since: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    full_scans: u64,
    pages: u64,
    merged: u64,
    /// The fewest guests that were up.
    up: usize,
}

impl Merging {
    /// Takes note of what KSM has done up to now, and for whom.
    pub(crate) fn see(&mut self, ksm: &KsmSeen, guests: Population) {
        let seen = Seen {
            full_scans: ksm.full_scans,
            pages: ksm.pages(),
            merged: ksm.merged,
            up: guests.up,
        };
        match self.seen.back_mut() {
            Some(last) if last.full_scans == seen.full_scans => {
                let up = last.up.min(seen.up);
                *last = Seen { up, ..seen };
            }
            Some(_) => self.seen.push_back(seen),
            None => {
                self.since = seen.full_scans;
                // Guests that another supervisor started are done with, as far as
                // anything tells.
                let full_scans = seen.full_scans.saturating_sub(PASSES);
                self.seen.push_back(Seen { full_scans, ..seen });
                self.seen.push_back(seen);
            }
        }
        let window = PASSES + ksm.left_out;
        while (self.seen.get(1)).is_some_and(|next| next.full_scans + window <= ksm.full_scans) {
            self.seen.pop_front();
        }
    }

    /// Of so many living guests, those with which KSM is not done.
    pub(crate) fn pending(&self, living: usize) -> usize {
        let done = self.window(PASSES).map(|seen| seen.up).min();
        living.saturating_sub(done.unwrap_or_default())
    }

    /// Whether KSM has merged what it can: it is done with every one of `guests`, and
    /// as many passes found nothing more to merge, and no more pages to look at.
    pub(crate) fn has_settled(&self, ksm: &KsmSeen, guests: Population) -> bool {
        let passes = PASSES + ksm.left_out;
        let pages = ksm.pages();
        let steady = (pages / STEADY_PART).max(STEADY_PAGES);
        let is_steady = |seen: &Seen| {
            seen.pages.abs_diff(pages) <= steady && seen.merged.abs_diff(ksm.merged) <= steady
        };
        ksm.full_scans >= self.since.saturating_add(passes)
            && guests.up == guests.living
            && self.pending(guests.living) == 0
            && self.window(passes).all(is_steady)
    }

    /// What was seen in the last `passes` passes, and before the first of them.
    fn window(&self, passes: u64) -> impl Iterator<Item = &Seen> {
        let now = self.seen.back().map_or(0, |last| last.full_scans);
        let is_before = |seen: &&Seen| seen.full_scans + passes <= now;
        let before = self.seen.iter().filter(is_before).count();
        self.seen.iter().skip(before.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests;
