//! How KSM worked off what it could merge.

use std::collections::BTreeSet;

use maud::html;

use super::axis::Axis;
use super::document::Section;
use super::figure::Figure;
use super::lines::Series;
use super::stages;
use super::table::Table;
use super::values::{self, MISSING, known, seconds, whole};
use crate::bundle::figures::bytes;
use crate::bundle::types::{Moment, Run, Stage};
use crate::control::types::KsmState;

pub(super) fn section(run: &Run) -> Section {
    let moments = stages::moments(&run.series);
    let figures = if moments.is_empty() {
        Vec::new()
    } else {
        vec![merging(run, &moments), available(run, &moments)]
    };
    let words = html! {
        @if moments.is_empty() { p { "Nothing was sampled over time." } }
        @else {
            p {
                "Guests come up with pages that KSM has not seen; it finds those alike and merges them. "
                "Dotted lines mark when the fleet had grown to a stage."
            }
        }
        @if !run.stages.is_empty() {
            details {
                summary { "How far KSM had come, and its counters, by stage" }
                (counters(&run.stages).numbers("KSM at each stage"))
            }
        }
    };
    Section::new("ksm", "KSM burn-down", &words, &figures)
}

fn merging(run: &Run, moments: &[&Moment]) -> Figure {
    let series = vec![
        stages::over_time(moments, "not merged", 0, |moment| {
            moment.unmerged.map(bytes)
        }),
        stages::over_time(moments, "saved", 1, |moment| moment.saved.map(bytes)),
    ];
    let up = Axis::memory("", series.iter().flat_map(Series::known));
    let lines = stages::lines_over_time(run, moments, up, values::size, series);
    Figure {
        title: "Memory not merged, and saved".to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {
            "What KSM watches and has not merged, and what it has saved, from the counters in " code { "/sys/kernel/mm/ksm" } ". What stays unmerged when the "
            "curves are flat is what differs from guest to guest."
        },
        table: lines.table(),
    }
}

fn available(run: &Run, moments: &[&Moment]) -> Figure {
    let series = vec![stages::over_time(moments, "MemAvailable", 0, |moment| {
        moment.available.map(bytes)
    })];
    let up = Axis::memory("", series.iter().flat_map(Series::known));
    let lines = stages::lines_over_time(run, moments, up, values::size, series);
    Figure {
        title: "Memory that the host still had".to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {
            code { "MemAvailable" } " of the host. The run was to leave "
            (values::size(bytes(run.plan.keep_free))) " free."
        },
        table: lines.table(),
    }
}

fn counters(stages: &[Stage]) -> Table {
    let names: BTreeSet<_> = stages.iter().flat_map(|stage| stage.ksm.keys()).collect();
    let mut table = Table::new(["", "KSM had", "after"]);
    "guests".clone_into(&mut table.head[0]);
    table
        .head
        .extend(names.iter().map(|name| crate::text::printable(name)));
    for stage in stages {
        let mut row = vec![
            whole(stage.guests),
            progress(stage.ksm_state).to_owned(),
            seconds(stage.settled - stage.grown),
        ];
        row.extend(names.iter().map(|name| {
            known(stage.ksm.get(*name).copied().map(bytes), |_| {
                whole(stage.ksm[*name])
            })
        }));
        table.rows.push(row);
    }
    table
}

fn progress(state: Option<KsmState>) -> &'static str {
    match state {
        None => MISSING,
        Some(KsmState::Stopped) => "not run",
        Some(KsmState::Merging) => "not settled",
        Some(KsmState::Settled) => "settled",
    }
}
