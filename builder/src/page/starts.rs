//! How guests came up: how many a second, and how long each took to its process, to
//! its kernel's first word and to ready.

use maud::html;

use super::axis::Axis;
use super::document::Section;
use super::figure::Figure;
use super::lines::Series;
use super::plot::Ink;
use super::ranges::Ranges;
use super::stages;
use super::values::{figure, seconds, tick};
use crate::bundle::figures::{Distribution, count};
use crate::bundle::types::{Run, Stage};

pub(super) fn section(run: &Run) -> Section {
    let mut figures = Vec::new();
    if run.stages.iter().any(|stage| !stage.starts.is_empty()) {
        figures.push(rate(&run.stages));
        figures.push(three(&run.stages));
    }
    if !run.series.is_empty() {
        figures.push(over_time(run));
    }
    let words = html! {
        @if figures.is_empty() { p { "No guest was started." } }
        @else {
            p {
                "“Started” has three meanings: the guest’s process runs, its kernel has said its first "
                "word, it is ready. They are kept apart here."
            }
        }
    };
    Section::new("starts", "Starts", &words, &figures)
}

/// The guests that a stage added, a second.
pub(super) fn rate_of(stage: &Stage) -> Option<f64> {
    let took = stage.grown - stage.began;
    (took > 0.0 && !stage.starts.is_empty()).then(|| count(stage.starts.len()) / took)
}

fn rate(stages: &[Stage]) -> Figure {
    let series = vec![stages::series(stages, "guests a second", 0, rate_of)];
    let up = Axis::linear("guests a second", series.iter().flat_map(Series::known));
    let lines = stages::lines(stages, up, figure, series);
    Figure {
        title: "Start rate".to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {
            "The guests that a stage added, divided by the time until all of them were ready. "
            "Admission holds starts back while KSM has too much to merge."
        },
        table: lines.table(),
    }
}

fn three(stages: &[Stage]) -> Figure {
    let series = |ink, name: &str, of: fn(&Stage) -> Distribution| {
        (
            Ink(ink),
            name.to_owned(),
            stages.iter().map(of).collect::<Vec<_>>(),
        )
    };
    let process = |stage: &Stage| {
        Distribution::of(stage.starts.iter().map(|start| start.process - stage.began))
    };
    let series = vec![
        series(0, "process", process),
        series(1, "first word", Stage::spoke),
        series(2, "ready", Stage::ready_after),
    ];
    let ends = series
        .iter()
        .flat_map(|(_, _, all)| all)
        .flat_map(|values| {
            // The first guest of a stage is started at once.
            [
                values.quantile(0.1),
                values.least().filter(|least| *least > 0.01),
                values.most(),
            ]
        });
    let ranges = Ranges {
        across: "guests".to_owned(),
        up: Axis::log_seconds("time", ends.flatten()),
        format: seconds,
        bands: stages::names(stages),
        series,
    };
    Figure {
        title: "The three starts".to_owned(),
        drawing: ranges.draw(),
        legend: ranges.legend(),
        caption: html! {
            "Process: after its stage began. First word and ready: after the guest’s process was "
            "started. Mark: median; thick: p10 to p90; thin: least to most; 0 is at the bottom."
        },
        table: ranges.table(),
    }
}

fn over_time(run: &Run) -> Figure {
    let moments = stages::moments(&run.series);
    let series = vec![
        stages::over_time(&moments, "ready", 2, |moment| Some(f64::from(moment.ready))),
        stages::over_time(&moments, "with a process", 0, |moment| {
            Some(f64::from(moment.alive))
        }),
    ];
    let up = Axis::linear("guests", series.iter().flat_map(Series::known));
    let lines = stages::lines_over_time(run, &moments, up, tick, series);
    Figure {
        title: "Guests over time".to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {
            "The flat parts are measurements, when the fleet does not grow."
        },
        table: lines.table(),
    }
}
