//! How far the host was loaded: pressure, over-commit, and what was predicted of it.

use std::collections::BTreeSet;

use maud::html;

use super::axis::Axis;
use super::document::Section;
use super::figure::Figure;
use super::lines::Series;
use super::stages;
use super::values::{figure, known, percent, size, tick, whole};
use crate::bundle::figures::bytes;
use crate::bundle::types::{Run, Stage};
use crate::text::printable;

/// As many kinds of pressure as are drawn beside each other.
const KINDS: usize = 6;

pub(super) fn section(run: &Run) -> Section {
    let stages = &run.stages;
    let mut figures = Vec::new();
    if stages.iter().any(|stage| !stage.pressure.is_empty()) {
        figures.push(pressure(stages));
    }
    if !stages.is_empty() {
        figures.push(over_commit(stages));
    }
    if stages.iter().any(|stage| stage.predicted.is_some()) {
        figures.push(predicted(stages));
    }
    let words = html! {
        @if let Some(last) = stages.last() {
            p {
                "At " (whole(last.guests)) " guests, " (figure(last.over_commit.cpu)) " vCPUs are "
                "configured for each CPU, " (figure(last.over_commit.memory)) " times the host’s RAM"
                @if let Some(disk) = last.over_commit.disk {
                    ", and " (figure(disk)) " times the disk that guests take"
                }
                "."
            }
        } @else { p { "No stage was reached." } }
    };
    Section::new(
        "load",
        "Pressure, over-commit and prediction",
        &words,
        &figures,
    )
}

fn pressure(stages: &[Stage]) -> Figure {
    let kinds: BTreeSet<_> = stages
        .iter()
        .flat_map(|stage| stage.pressure.keys())
        .collect();
    let series: Vec<_> = (kinds.into_iter().take(KINDS).enumerate())
        .map(|(ink, kind)| {
            let name = printable(kind).replace('.', ", ");
            stages::series(stages, &name, ink, |stage| {
                stage.pressure.get(kind).copied()
            })
        })
        .collect();
    let up = Axis::linear("% of the time", series.iter().flat_map(Series::known));
    let lines = stages::lines(stages, up, |value| format!("{} %", figure(value)), series);
    Figure {
        title: "Pressure".to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {
            "The kernel’s pressure stall information: the share of the time in which some or all of "
            "the tasks waited for a resource."
        },
        table: lines.table(),
    }
}

fn over_commit(stages: &[Stage]) -> Figure {
    let series = vec![
        stages::series(stages, "vCPUs ÷ CPUs", 0, |stage| {
            Some(stage.over_commit.cpu)
        }),
        stages::series(stages, "RAM ÷ RAM", 1, |stage| {
            Some(stage.over_commit.memory)
        }),
        stages::series(stages, "disk ÷ disk", 2, |stage| stage.over_commit.disk),
    ];
    let up = Axis::log("times", series.iter().flat_map(Series::known), tick);
    let lines = stages::lines(stages, up, figure, series);
    Figure {
        title: "Over-commit".to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {
            "What guests are configured with, divided by what the host has; of the disk, by what the "
            "guests’ overlays take on it."
        },
        table: lines.table(),
    }
}

fn predicted(stages: &[Stage]) -> Figure {
    let cost = |stage: &Stage| stage.memory.a_guest().map(bytes);
    let series = vec![
        stages::series(stages, "predicted", 1, |stage| stage.predicted.map(bytes)),
        stages::series(stages, "measured", 0, cost),
    ];
    let up = Axis::log_memory(" a guest", series.iter().flat_map(Series::known));
    let lines = stages::lines(stages, up, size, series);
    let last = stages.iter().rev().find_map(|stage| {
        let ratio = cost(stage)? / bytes(stage.predicted.filter(|predicted| *predicted > 0)?);
        Some((stage.guests, ratio))
    });
    Figure {
        title: "Predicted against cost".to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {
            "What " code { "imgbuild check" } " predicted that a guest takes of the host’s memory, and "
            "what it took."
            @if let Some((guests, ratio)) = last {
                " At " (whole(guests)) " guests it took " (known(Some(ratio), percent)) " of that."
            }
        },
        table: lines.table(),
    }
}
