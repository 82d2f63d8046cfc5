//! Several runs side by side: their figures, and the conditions in which they differ.

use std::collections::BTreeSet;

use serde::Serialize;

use super::figures::{Distribution, bytes, replies};
use super::types::{Headline, Run, Stage};

mod differing;

pub use differing::Differing;

/// Several runs side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The conditions in which they differ, those that matter first.
    pub differing: Vec<Differing>,
    /// Their figures.
    pub figures: Vec<Figure>,
}

/// A figure of every run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it says, such as `memory a guest`.
    pub name: &'static str,
    /// The number of guests where it is a stage's; null at the end of the run.
    pub stage: Option<u32>,
    /// In what its values are.
    pub unit: Unit,
    /// Its value in each run; null where that has none.
    pub values: Vec<Option<f64>>,
    /// Each value divided by the first run's.
    pub ratios: Vec<Option<f64>>,
}

/// In what a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A number of something.
    Number,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// A share of something.
    Share,
    /// A ratio.
    Ratio,
}

impl Comparison {
    /// The conditions that differ and matter.
    pub fn obstacles(&self) -> impl Iterator<Item = &Differing> {
        self.differing.iter().filter(|differing| differing.matters)
    }
}

/// Puts runs side by side.
pub fn compare(runs: &[Run]) -> Comparison {
    let mut figures = of_headlines(runs);
    for guests in common_stages(runs) {
        figures.extend(of_stages(runs, guests));
    }
    Comparison {
        differing: differing::differing(runs),
        figures,
    }
}

fn of_headlines(runs: &[Run]) -> Vec<Figure> {
    type Value = fn(&Headline) -> Option<f64>;
    let figures: [(&str, Unit, Value); 14] = [
        ("guests", Unit::Number, |run| Some(run.guests.into())),
        ("ready", Unit::Number, |run| Some(run.ready.into())),
        ("answered, of those asked", Unit::Share, |run| {
            share(run.answered, run.asked)
        }),
        ("slowest answer", Unit::Seconds, |run| run.answered_within),
        ("reached by SSH, of those tested", Unit::Share, |run| {
            share(run.reached, run.tried)
        }),
        ("memory a guest", Unit::Bytes, |run| {
            run.bytes_a_guest.map(bytes)
        }),
        ("guests a GiB", Unit::Number, |run| run.guests_a_gib),
        ("peak of memory ÷ end", Unit::Ratio, |run| run.peak),
        ("time growing", Unit::Seconds, |run| Some(run.growing)),
        ("guests ready a second", Unit::Number, |run| {
            (run.growing > 0.0).then(|| f64::from(run.ready) / run.growing)
        }),
        ("fairness of the burn", Unit::Ratio, |run| run.fairness),
        ("least burn, of the median", Unit::Share, |run| {
            run.least_burn
        }),
        ("least CPU of a guest", Unit::Share, |run| run.least_cpu),
        ("baseline's memory ÷ fleet's", Unit::Ratio, |run| {
            run.baseline_ratio
        }),
    ];
    let of = |(name, unit, value): (_, _, Value)| {
        let values = runs.iter().map(|run| value(&run.headline));
        figure(name, None, unit, values)
    };
    figures.into_iter().map(of).collect()
}

fn share(part: u32, whole: u32) -> Option<f64> {
    (whole > 0).then(|| f64::from(part) / f64::from(whole))
}

/// The numbers of guests at which every run was measured.
fn common_stages(runs: &[Run]) -> BTreeSet<u32> {
    let numbers = |run: &Run| run.stages.iter().map(|stage| stage.guests).collect();
    let mut all = runs.iter().map(numbers);
    let first: BTreeSet<u32> = all.next().unwrap_or_default();
    all.fold(first, |common, other: BTreeSet<u32>| &common & &other)
}

fn of_stages(runs: &[Run], guests: u32) -> Vec<Figure> {
    type Value = fn(&Stage) -> Option<f64>;
    let figures: [(&str, Unit, Value); 8] = [
        ("memory a guest", Unit::Bytes, |stage| {
            stage.memory.a_guest().map(bytes)
        }),
        ("first word, median", Unit::Seconds, |stage| {
            stage.spoke().median()
        }),
        ("ready, median", Unit::Seconds, |stage| {
            stage.ready_after().median()
        }),
        ("ready, 99 %", Unit::Seconds, |stage| {
            stage.ready_after().quantile(0.99)
        }),
        ("answer, median", Unit::Seconds, |stage| {
            replies(&stage.answers).median()
        }),
        ("answer, 99 %", Unit::Seconds, |stage| {
            replies(&stage.answers).quantile(0.99)
        }),
        ("log-in, median", Unit::Seconds, |stage| {
            replies(&stage.logins).median()
        }),
        ("fairness of the burn", Unit::Ratio, |stage| {
            Distribution::fairness(&stage.rounds())
        }),
    ];
    let stage = |run: &Run| {
        run.stages
            .iter()
            .find(|stage| stage.guests == guests)
            .cloned()
    };
    let stages: Vec<_> = runs.iter().map(stage).collect();
    let of = |(name, unit, value): (_, _, Value)| {
        let values = stages.iter().map(|stage| stage.as_ref().and_then(value));
        figure(name, Some(guests), unit, values)
    };
    figures.into_iter().map(of).collect()
}

fn figure(
    name: &'static str,
    stage: Option<u32>,
    unit: Unit,
    values: impl Iterator<Item = Option<f64>>,
) -> Figure {
    let values: Vec<_> = values.collect();
    let first = values
        .first()
        .copied()
        .flatten()
        .filter(|value| *value > 0.0);
    let ratios = values.iter().map(|value| Some((*value)? / first?));
    Figure {
        name,
        stage,
        unit,
        ratios: ratios.collect(),
        values,
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::example;
    use super::*;

    #[test]
    fn figures_stand_beside_each_other_with_their_ratio_to_the_first() {
        let (a, mut b) = (example(), example());
        b.headline.bytes_a_guest = a.headline.bytes_a_guest.map(|bytes| bytes * 2);
        b.headline.answered_within = None;
        b.stages.remove(1);
        let compared = compare(&[a, b]);
        assert_eq!(compared.differing, []);
        let figure = |name: &str, stage: Option<u32>| {
            let mut all = compared.figures.iter();
            all.find(|figure| figure.name == name && figure.stage == stage)
        };
        let memory = figure("memory a guest", None).unwrap();
        assert_eq!(memory.ratios, [Some(1.0), Some(2.0)]);
        let slowest = figure("slowest answer", None).unwrap();
        assert!(slowest.values[0].is_some());
        assert_eq!((slowest.values[1], slowest.ratios[1]), (None, None));
        assert!(figure("memory a guest", Some(100)).is_some());
        assert!(figure("memory a guest", Some(10)).is_none());
    }
}
