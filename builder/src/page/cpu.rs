//! Who used the CPUs, and how evenly guests got them.

use maud::html;

use super::axis::Axis;
use super::bars::{Bar, Bars, Tall};
use super::document::Section;
use super::figure::Figure;
use super::plot::Ink;
use super::ranges::Ranges;
use super::stages;
use super::values::{figure, known, percent, seconds, whole};
use crate::bundle::figures::Distribution;
use crate::bundle::types::{CpuClass, Run, Stage};

/// The classes, the lowest in the drawing first.
const CLASSES: [(CpuClass, Ink, &str); 5] = [
    (CpuClass::Guests, Ink(0), "guests"),
    (CpuClass::Supervisor, Ink(3), "supervisor"),
    (CpuClass::Ksm, Ink(1), "ksmd"),
    (CpuClass::Others, Ink(6), "others"),
    (CpuClass::Idle, Ink(8), "idle"),
];

pub(super) fn section(run: &Run) -> Section {
    let stages = &run.stages;
    let mut figures = Vec::new();
    if stages.iter().any(|stage| !stage.cpu.is_empty()) {
        figures.push(by_class(stages, run.conditions.cpus));
    }
    if stages.iter().any(|stage| stage.cpus().count() > 0) {
        figures.push(of_a_guest(stages));
    }
    if stages
        .iter()
        .any(|stage| stage.rounds().fairness().is_some())
    {
        figures.push(fairness(stages));
    }
    let last = stages.iter().rev().find_map(|stage| {
        let rounds = stage.rounds();
        Some((stage, rounds.fairness()?, least(&rounds)))
    });
    let words = html! {
        @if figures.is_empty() { p { "The use of CPUs was not measured." } }
        @if let Some((stage, jain, least)) = last {
            p {
                "At " (whole(stage.guests)) " guests, Jain’s index of what they got done is "
                (figure(jain)) " (1: each got as much), and the one that got least got "
                (known(least, percent)) " of the median."
            }
        }
        @if let Some(wakeups) = stages.last().and_then(|stage| stage.wakeups) {
            p { "Guests’ processes were switched to or from " (figure(wakeups)) " times a second." }
        }
    };
    Section::new("cpu", "CPU and fairness", &words, &figures)
}

/// Least ÷ median.
fn least(values: &Distribution) -> Option<f64> {
    let (least, median) = values.least().zip(values.median())?;
    (median > 0.0).then(|| least / median)
}

fn by_class(stages: &[Stage], cpus: u32) -> Figure {
    let bar = |stage: &Stage| {
        let used = |(class, _, _): &(CpuClass, Ink, &str)| stage.cpu.get(class).copied();
        let parts = CLASSES.iter().map(|class| used(class).unwrap_or_default());
        Bar {
            name: whole(stage.guests),
            parts: (!stage.cpu.is_empty()).then(|| parts.collect()),
        }
    };
    let bars = Bars {
        label: "CPU seconds a second".to_owned(),
        across: "guests".to_owned(),
        format: figure,
        parts: CLASSES
            .map(|(_, ink, name)| (ink, name.to_owned()))
            .to_vec(),
        all: stages.iter().map(bar).collect(),
        tall: Tall::Whole,
        limit: (cpus > 0).then(|| f64::from(cpus)),
    };
    Figure {
        title: "CPU by who used it".to_owned(),
        drawing: bars.draw(),
        legend: bars.legend(),
        caption: html! {
            "While guests burned and were asked nothing. The dotted line is all that the host has."
        },
        table: bars.table(),
    }
}

fn of_a_guest(stages: &[Stage]) -> Figure {
    let all: Vec<_> = stages.iter().map(Stage::cpus).collect();
    let ends = all
        .iter()
        .flat_map(|values| [values.least(), values.most()]);
    let ranges = Ranges {
        across: "guests".to_owned(),
        up: Axis::log_seconds("CPU time a second", ends.flatten()),
        format: seconds,
        bands: stages::names(stages),
        series: vec![(Ink(0), "a guest".to_owned(), all)],
    };
    Figure {
        title: "CPU of a guest".to_owned(),
        drawing: ranges.draw(),
        legend: ranges.legend(),
        caption: html! {
            "CPU time that each guest’s process got in a second. Mark: median; thick: p10 to p90; "
            "thin: least to most."
        },
        table: ranges.table(),
    }
}

fn fairness(stages: &[Stage]) -> Figure {
    let series = vec![
        stages::series(stages, "Jain’s index", 0, |stage| {
            stage.rounds().fairness()
        }),
        stages::series(stages, "least ÷ median", 1, |stage| least(&stage.rounds())),
    ];
    let lines = stages::lines(stages, Axis::linear("1 is fair", [1.0]), figure, series);
    Figure {
        title: "Fairness of the burn".to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {
            "Of the rounds of work that each guest did in the same time: (Σx)² ÷ (n Σx²), and the least "
            "guest’s rounds beside the median guest’s."
        },
        table: lines.table(),
    }
}
