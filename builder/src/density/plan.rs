//! What a run does: pure. Which numbers of guests it stops at, whom it asks there,
//! and whom a storm kills.

use std::time::Duration;

use crate::bundle::types::Goal;
use crate::digest::Sha256;
use crate::units::{GuestIndex, MAX_GUESTS};

/// Numbers of guests at which a fleet is measured, unless the user says.
const STAGES: [u32; 8] = [1, 10, 100, 300, 1_000, 3_000, 10_000, 30_000];
/// All guests are asked up to so many, and a sample of so many of more.
pub(crate) const ASKED: u32 = 1_000;
/// Guests that a fleet grows by at least where its host is filled.
const STRIDE: u32 = 50;
/// Guests of the baseline, unless the fleet has fewer.
const BASELINE: u32 = 100;

/// What a run is to do with a fleet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Experiment {
    pub goal: Goal,
    /// Numbers of guests, in order, the last one included; the last of a run that
    /// fills its host is not reached.
    pub stages: Vec<u32>,
    /// Which guests are asked.
    pub answering: Answering,
    /// Chooses guests.
    pub seed: u64,
    /// For how long the last stage is kept.
    pub hold: Option<Duration>,
    /// The share of the guests to kill at the end, in percent.
    pub storm: Option<u8>,
    /// Whether the reference's way is measured as well.
    pub baseline: BaselineWanted,
    /// How long KSM may take to settle at a stage.
    pub settle: Duration,
    /// The command, for the record.
    pub command: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BaselineWanted {
    Yes,
    No,
}

/// Which guests are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answering {
    /// All.
    All,
    /// So many at most.
    Sample(u32),
}

impl Answering {
    /// How many are asked at most; all without.
    pub(crate) fn most(self) -> Option<u32> {
        match self {
            Self::All => None,
            Self::Sample(most) => Some(most),
        }
    }
}

impl Experiment {
    pub(crate) fn wants_baseline(&self) -> bool {
        self.baseline == BaselineWanted::Yes
    }
}

/// Guests of the baseline of a fleet that reached so many: as many as a stage has, so that
/// both can be compared.
pub(crate) fn baseline_guests(reached: u32) -> u32 {
    BASELINE.min(reached)
}

/// The numbers of guests to stop at on the way to `count`, or to as many as fit.
pub(crate) fn stages(
    given: Option<&[u32]>,
    count: Option<u32>,
    baseline: BaselineWanted,
) -> Vec<u32> {
    let last = count.unwrap_or(MAX_GUESTS);
    let mut stages: Vec<_> = (given.unwrap_or(&STAGES).iter().copied())
        .filter(|guests| (1..last).contains(guests))
        .collect();
    stages.push(last);
    if baseline == BaselineWanted::Yes {
        // The ratio is of as many guests of both kinds.
        stages.push(BASELINE.min(last));
    }
    stages.sort_unstable();
    stages.dedup();
    stages
}

/// The numbers of guests on the way from one stage to the next. Where nobody knows how
/// many fit, the fleet at most doubles: it has files and ports for all that are wanted.
pub(crate) fn strides(goal: Goal, from: u32, to: u32) -> Vec<u32> {
    let mut strides = Vec::new();
    let mut now = from;
    while goal == Goal::Fill && now < to {
        now = now.saturating_mul(2).max(now + STRIDE).min(to);
        strides.push(now);
    }
    if goal == Goal::Count {
        strides.push(to);
    }
    strides
}

/// `most` of these guests, or all if there are no more, in order. Which ones follows
/// from the seed: those with the least digests of the seed and their number.
pub(crate) fn sample(guests: &[GuestIndex], most: usize, seed: u64) -> Vec<GuestIndex> {
    let mut drawn: Vec<_> = (guests.iter())
        .map(|guest| {
            let text = format!("{seed} {}", guest.get());
            (Sha256::of_bytes(text), *guest)
        })
        .collect();
    drawn.sort_unstable();
    drawn.truncate(most);
    let mut drawn: Vec<_> = drawn.into_iter().map(|(_, guest)| guest).collect();
    drawn.sort_unstable();
    drawn
}

/// How many guests that share is, in percent, and one at least.
pub(crate) fn share(guests: usize, percent: u8) -> usize {
    (guests * usize::from(percent) / 100).max(1).min(guests)
}

#[cfg(test)]
mod tests {
    use super::BaselineWanted::{No, Yes};
    use super::*;
    use crate::units::GuestRange;

    #[test]
    fn stages_end_with_what_is_wanted() {
        assert_eq!(stages(None, Some(30), No), [1, 10, 30]);
        assert_eq!(stages(None, Some(1), No), [1]);
        assert_eq!(
            stages(Some(&[100, 5, 5, 0, 400]), Some(300), No),
            [5, 100, 300]
        );
        let fill = stages(None, None, No);
        assert_eq!(fill.last(), Some(&MAX_GUESTS));
        assert_eq!(fill[..3], [1, 10, 100]);
        assert_eq!(stages(Some(&[7]), Some(300), Yes), [7, 100, 300]);
        assert_eq!(stages(None, Some(30), Yes), [1, 10, 30]);
    }

    #[test]
    fn a_host_is_filled_in_strides() {
        assert_eq!(strides(Goal::Count, 10, 1_000), [1_000]);
        assert_eq!(strides(Goal::Fill, 0, 1), [1]);
        assert_eq!(strides(Goal::Fill, 10, 300), [60, 120, 240, 300]);
        assert_eq!(strides(Goal::Fill, 300, 300), [0; 0]);
        let last = strides(Goal::Fill, 0, MAX_GUESTS).last().copied();
        assert_eq!(last, Some(MAX_GUESTS));
    }

    #[test]
    fn a_sample_follows_from_its_seed() {
        let guests: Vec<_> = GuestRange::first(1_000).unwrap().iter().collect();
        let drawn = sample(&guests, 100, 7);
        assert_eq!(drawn.len(), 100);
        assert!(drawn.is_sorted());
        assert_eq!(drawn, sample(&guests, 100, 7));
        assert_ne!(drawn, sample(&guests, 100, 8));
        assert_eq!(sample(&guests, 5_000, 7), guests);
        // Of two shards of a fleet, each draws from its own.
        let upper = drawn.iter().filter(|guest| guest.get() >= 500).count();
        assert!((30..70).contains(&upper), "{upper}");
    }

    #[test]
    fn a_share_is_one_guest_at_least() {
        assert_eq!(share(1_000, 30), 300);
        assert_eq!(share(2, 30), 1);
        assert_eq!(share(0, 30), 0);
        assert_eq!(share(10, 100), 10);
    }
}
