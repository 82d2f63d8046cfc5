//! Curves over a run's stages, and over its time.

use super::axis::Axis;
use super::lines::{Lines, Over, Series};
use super::plot::Ink;
use super::values::{seconds, whole};
use crate::bundle::types::{Moment, Run, Stage};

/// As many moments as a drawing can show beside each other.
const MOMENTS: usize = 240;

pub(super) fn names(stages: &[Stage]) -> Vec<String> {
    stages.iter().map(|stage| whole(stage.guests)).collect()
}

/// A curve of what a stage has.
pub(super) fn series(
    stages: &[Stage],
    name: &str,
    ink: usize,
    value: impl Fn(&Stage) -> Option<f64>,
) -> Series {
    Series {
        name: name.to_owned(),
        ink: Ink(ink),
        values: stages.iter().map(value).collect(),
    }
}

pub(super) fn lines(
    stages: &[Stage],
    up: Axis,
    format: fn(f64) -> String,
    series: Vec<Series>,
) -> Lines {
    let counts: Vec<_> = stages.iter().map(|stage| stage.guests).collect();
    let place = |stage: &Stage| (f64::from(stage.guests), whole(stage.guests));
    Lines {
        over: Over::Stages(Axis::stages(&counts)),
        up,
        format,
        places: stages.iter().map(place).collect(),
        series,
    }
}

/// A curve of what is so at a moment.
pub(super) fn over_time(
    moments: &[&Moment],
    name: &str,
    ink: usize,
    value: impl Fn(&Moment) -> Option<f64>,
) -> Series {
    Series {
        name: name.to_owned(),
        ink: Ink(ink),
        values: moments.iter().map(|moment| value(moment)).collect(),
    }
}

pub(super) fn lines_over_time(
    run: &Run,
    moments: &[&Moment],
    up: Axis,
    format: fn(f64) -> String,
    series: Vec<Series>,
) -> Lines {
    let times = moments.iter().map(|moment| moment.at);
    let grown = run
        .stages
        .iter()
        .map(|stage| (stage.grown, whole(stage.guests)));
    Lines {
        over: Over::Time(Axis::time(times), grown.collect()),
        up,
        format,
        places: moments
            .iter()
            .map(|moment| (moment.at, seconds(moment.at)))
            .collect(),
        series,
    }
}

/// Moments that a drawing has room for: of those close together, the one when the
/// least memory was available, so that no peak is left out.
pub(super) fn moments(series: &[Moment]) -> Vec<&Moment> {
    let together = series.len().div_ceil(MOMENTS).max(1);
    let least = |some: &'_ [Moment]| {
        some.iter()
            .enumerate()
            .min_by_key(|(_, moment)| moment.available)
            .map(|(at, _)| at)
    };
    series
        .chunks(together)
        .filter_map(|some| some.get(least(some)?))
        .collect()
}
