//! User ids for guests: which ids exist here, and which of them somebody has.
//!
//! A guest's user and group have the same number, so an id is usable only if it is
//! mapped as both: a user namespace maps users and groups separately
//! (user_namespaces(7)).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::MAX_GUESTS;

mod read;

pub(crate) use read::{denies_groups, given, missing_capabilities, running};

/// The first id that is given out where there are so many: above those of people
/// and of the containers that they have by default (subuid(5)).
const FIRST: u32 = 2_000_000;
const AMONG_MANY: IdRange = IdRange {
    first: FIRST,
    // The last id is none (setresuid(2)).
    count: u32::MAX - FIRST,
};
/// Ids that a fleet has there, one for each guest that it may be scaled to.
const WHOLE: u32 = MAX_GUESTS;
/// Ids that a fleet has at least in a namespace of few, if they are to be had:
/// so many fleets fit, and each can be scaled.
const PART: u32 = 4_096;
/// Where those of a namespace of few are looked for: first apart from people,
/// whom useradd(8) numbers from 1,000 up, and from what systemd numbers from
/// 60,001 up; then anywhere but among the system's own.
const AMONG_FEW: [IdRange; 2] = [
    IdRange {
        first: 10_000,
        count: 50_001,
    },
    IdRange {
        first: 1_000,
        count: u32::MAX - 1_000,
    },
];
/// Those that stand for ids without a number here (proc(5), `overflowuid`), and
/// for none at all in 16 bits.
const NOBODY: IdRange = IdRange {
    first: 65_534,
    count: 2,
};

/// User ids in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdRange {
    /// The first.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

impl IdRange {
    /// Ids of which `first` is the first.
    pub fn new(first: u32, count: u32) -> Self {
        Self { first, count }
    }

    /// As many as a fleet has where there are enough.
    pub fn whole(first: u32) -> Self {
        Self::new(first, WHOLE)
    }

    /// The one after the last.
    fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }

    /// Whether some ids are in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.within(other).is_some()
    }

    /// The first of its ids that a fleet can begin with which has all that it may
    /// ever need: fleets begin at multiples of that apart, so that none is wasted.
    fn first_whole(self) -> Option<Self> {
        let before = self.first.checked_sub(FIRST)?.div_ceil(WHOLE);
        let whole = Self::whole(before.checked_mul(WHOLE)?.checked_add(FIRST)?);
        self.contains(whole).then_some(whole)
    }

    fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.end() <= self.end()
    }

    /// The ids that are in both.
    fn within(self, other: Self) -> Option<Self> {
        between(
            self.first.max(other.first).into(),
            self.end().min(other.end()),
        )
    }

    /// Those of its ids that are in none of `taken`, which are in order.
    fn without(self, taken: &[Self]) -> Vec<Self> {
        let mut free = Vec::new();
        let mut from = u64::from(self.first);
        for taken in taken.iter().filter(|taken| taken.overlaps(self)) {
            free.extend(between(from, taken.first.into()));
            from = from.max(taken.end());
        }
        free.extend(between(from, self.end()));
        free
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.first, self.end().saturating_sub(1))
    }
}

fn between(first: u64, end: u64) -> Option<IdRange> {
    let count = u32::try_from(end.checked_sub(first)?).ok()?;
    let first = u32::try_from(first).ok()?;
    (count > 0).then_some(IdRange { first, count })
}

/// The ids that processes here can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapped(Vec<IdRange>);

impl Mapped {
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|range| u64::from(range.count)).sum()
    }

    /// Whether all of `range` are among them.
    pub(crate) fn contains(&self, range: IdRange) -> bool {
        self.0.iter().any(|mapped| mapped.contains(range))
    }

    /// The ids for a fleet of so many guests that are none of `taken`: for as many
    /// guests as a fleet can have where there are so many, and else with some room.
    pub(crate) fn free(&self, taken: &[IdRange], guests: u32) -> Option<IdRange> {
        let mut gaps = self.gaps(AMONG_MANY, taken).into_iter();
        if let Some(whole) = gaps.find_map(IdRange::first_whole) {
            return Some(whole);
        }
        let roomy = guests.checked_next_multiple_of(PART).unwrap_or(guests);
        [roomy, guests].into_iter().find_map(|count| {
            let mut gaps = AMONG_FEW.iter().flat_map(|area| self.gaps(*area, taken));
            let gap = gaps.find(|gap| gap.count >= count)?;
            Some(IdRange { count, ..gap })
        })
    }

    /// The most guests that [`Self::free`] has ids for.
    pub(crate) fn most(&self, taken: &[IdRange]) -> u32 {
        let gaps = AMONG_FEW.iter().flat_map(|area| self.gaps(*area, taken));
        gaps.map(|gap| gap.count.min(WHOLE)).max().unwrap_or(0)
    }

    /// The ids within `area` that are none of `taken`.
    fn gaps(&self, area: IdRange, taken: &[IdRange]) -> Vec<IdRange> {
        let taken = joined(taken.iter().copied().chain([NOBODY]).collect());
        let mapped = self.0.iter().filter_map(|mapped| mapped.within(area));
        mapped.flat_map(|mapped| mapped.without(&taken)).collect()
    }
}

impl From<Vec<IdRange>> for Mapped {
    fn from(ranges: Vec<IdRange>) -> Self {
        Self(joined(ranges))
    }
}

impl fmt::Display for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ranges.join(", "))
    }
}

/// The same ids in order, and in as few ranges as can be.
fn joined(mut ranges: Vec<IdRange>) -> Vec<IdRange> {
    ranges.sort_unstable();
    let mut joined: Vec<IdRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if u64::from(range.first) <= last.end() => {
                let end = last.end().max(range.end());
                last.count = u32::try_from(end - u64::from(last.first)).unwrap_or(u32::MAX);
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests;
