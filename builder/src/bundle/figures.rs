//! What is computed from a run's samples. The run writes these figures, and whoever
//! checks a bundle computes them again.

use super::types::{Baseline, GuestReply, Headline, MemoryFigures, Moment, Run, Stage};
use crate::control::types::Memory;

/// A GiB.
const GIB: f64 = 1_073_741_824.0;

/// Values in order, each a number.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Distribution(Vec<f64>);

impl Distribution {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn least(&self) -> Option<f64> {
        self.0.first().copied()
    }

    pub(crate) fn most(&self) -> Option<f64> {
        self.0.last().copied()
    }

    /// The least value that at least `share` of all do not exceed: the nearest rank.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let rank = (share * count(self.0.len())).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank is from 0 to the number of values"
        )]
        let rank = rank.max(1.0) as usize;
        self.0.get(rank.min(self.0.len()).checked_sub(1)?).copied()
    }

    pub(crate) fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// Jain's index, (Σx)² ÷ (n Σx²): 1 where all are equal, 1/n where one has all
    /// (Jain, Chiu and Hawe, DEC-TR-301, 1984).
    pub(crate) fn fairness(&self) -> Option<f64> {
        let sum: f64 = self.0.iter().sum();
        let squares: f64 = self.0.iter().map(|value| value * value).sum();
        (squares > 0.0).then(|| sum * sum / (count(self.0.len()) * squares))
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of guests are small")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn bytes(number: u64) -> f64 {
    number as f64
}

impl MemoryFigures {
    /// What was read of a fleet.
    pub(crate) fn of(memory: &Memory) -> Self {
        Self {
            bytes: memory.bytes,
            count: memory.count,
            parts: memory.parts,
            available: memory.host_available,
            charged: memory.cgroup.map(|cgroup| cgroup.charged),
        }
    }

    /// Host memory a guest; `None` without guests.
    pub(crate) fn a_guest(&self) -> Option<u64> {
        self.bytes.checked_div(self.count.into())
    }
}

impl Baseline {
    /// Its memory a guest, divided by that of the stage with as many guests.
    pub(crate) fn ratio(&self, stages: &[Stage]) -> Option<f64> {
        let same = stages.iter().find(|stage| stage.guests == self.guests)?;
        let ours = same.memory.a_guest().filter(|bytes| *bytes > 0)?;
        Some(bytes(self.memory.a_guest()?) / bytes(ours))
    }
}

impl Stage {
    /// Seconds from a guest's process to its first word, and to ready.
    pub(crate) fn spoke(&self) -> Distribution {
        Distribution::of(self.starts.iter().filter_map(|start| start.spoke))
    }

    pub(crate) fn ready_after(&self) -> Distribution {
        Distribution::of(self.starts.iter().filter_map(|start| start.ready))
    }

    /// Rounds of work a second, of each guest.
    pub(crate) fn rounds(&self) -> Distribution {
        Distribution::of(self.burns.iter().filter_map(|burn| burn.rounds))
    }

    /// CPU seconds a second, of each guest.
    pub(crate) fn cpus(&self) -> Distribution {
        Distribution::of(self.burns.iter().filter_map(|burn| burn.cpu))
    }
}

/// How long the replies that count took.
pub(crate) fn replies(replies: &[GuestReply]) -> Distribution {
    let good = replies.iter().filter(|reply| reply.failed.is_none());
    Distribution::of(good.map(|reply| reply.seconds))
}

/// The figures that are quoted first.
pub fn headline(run: &Run) -> Headline {
    let growing = run.stages.iter().map(|stage| stage.grown - stage.began);
    let Some(last) = run.stages.last() else {
        return Headline::default();
    };
    let (answers, logins) = (replies(&last.answers), replies(&last.logins));
    let a_guest = last.memory.a_guest();
    let rounds = last.rounds();
    let least_burn = rounds.least().zip(rounds.median());
    Headline {
        guests: last.guests,
        ready: last.ready,
        asked: number(last.answers.len()),
        answered: number(answers.count()),
        answered_within: answers.most(),
        tried: number(last.logins.len()),
        reached: number(logins.count()),
        bytes_a_guest: a_guest,
        guests_a_gib: a_guest.filter(|a| *a > 0).map(|a| GIB / bytes(a)),
        peak: peak(&run.series, last, run.conditions.available),
        growing: growing.sum(),
        fairness: rounds.fairness(),
        least_burn: (least_burn.filter(|(_, median)| *median > 0.0))
            .map(|(least, median)| least / median),
        least_cpu: last.cpus().least(),
        baseline_ratio: (run.baseline.as_ref()).and_then(|baseline| baseline.ratio(&run.stages)),
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The most memory that was taken from the host until the last stage was settled,
/// divided by what was taken then.
fn peak(series: &[Moment], last: &Stage, before: u64) -> Option<f64> {
    let taken = |available: u64| before.checked_sub(available).filter(|taken| *taken > 0);
    let until = series.iter().filter(|moment| moment.at <= last.settled);
    let settled = taken(last.memory.available?)?;
    let most = until.filter_map(|moment| taken(moment.available?)).max()?;
    Some(bytes(most.max(settled)) / bytes(settled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = Distribution::of((1..=10).map(f64::from));
        assert_eq!(values.quantile(0.5), Some(5.0));
        assert_eq!(values.quantile(0.9), Some(9.0));
        assert_eq!(values.quantile(0.99), Some(10.0));
        assert_eq!(values.quantile(0.0), Some(1.0));
        let none = Distribution::of([f64::NAN, f64::INFINITY]);
        assert_eq!((none.count(), none.median()), (0, None));
    }

    #[test]
    fn fairness_is_one_for_equals_and_a_share_where_one_has_all() {
        let index = |values: &[f64]| Distribution::of(values.iter().copied()).fairness();
        assert_eq!(index(&[3.0, 3.0, 3.0]), Some(1.0));
        assert_eq!(index(&[4.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(index(&[0.0, 0.0]), None);
        assert_eq!(index(&[]), None);
    }
}
