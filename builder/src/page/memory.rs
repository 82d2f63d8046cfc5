//! What a guest costs its host in memory, and what that consists of.

use maud::html;

use super::axis::Axis;
use super::bars::{Bar, Bars, Tall};
use super::document::Section;
use super::figure::Figure;
use super::lines::Series;
use super::plot::Ink;
use super::stages;
use super::values::{self, figure, whole};
use crate::bundle::figures::bytes;
use crate::bundle::types::{Baseline, MemoryFigures, Run, Stage};
use crate::control::types::KsmState;

/// The parts, the lowest in the drawing first.
const PARTS: [(Ink, &str); 4] = [
    (Ink(0), "cannot merge"),
    (Ink(4), "shared by all"),
    (Ink(1), "kernel"),
    (Ink(6), "KSM’s own"),
];

pub(super) fn section(run: &Run) -> Section {
    let mut figures = Vec::new();
    if !run.stages.is_empty() {
        figures.push(by_stage(&run.stages));
        figures.extend(
            run.baseline
                .as_ref()
                .map(|baseline| beside(baseline, &run.stages)),
        );
        figures.push(in_all(&run.stages));
    }
    let unsettled: Vec<_> = (run.stages.iter())
        .filter(|stage| stage.ksm_state == Some(KsmState::Merging))
        .map(|stage| whole(stage.guests))
        .collect();
    let words = html! {
        @if run.stages.is_empty() { p { "No stage was reached." } }
        @else {
            p {
                "All that would be free again without the fleet, each page counted once, divided by the "
                "guests. It is read when KSM has settled, after each guest was asked for its status once."
            }
        }
        @if !unsettled.is_empty() {
            p {
                "KSM had not settled at " (unsettled.join(", ")) " guests when its time was over: "
                "memory would have fallen further there."
            }
        }
    };
    Section::new("memory", "Memory a guest", &words, &figures)
}

/// A guest's share of each part.
fn parts(memory: &MemoryFigures) -> Option<Vec<f64>> {
    let number = f64::from(memory.count);
    let parts = memory.parts;
    let parts = [
        parts.cannot_merge,
        parts.shared_by_all,
        parts.kernel,
        parts.ksm,
    ];
    let a_guest = parts
        .into_iter()
        .map(|part| bytes(part) / number / values::MIB);
    (memory.count > 0).then(|| a_guest.collect())
}

fn bars(across: &str, tall: Tall, all: Vec<Bar>) -> Bars {
    Bars {
        label: "MiB a guest".to_owned(),
        across: across.to_owned(),
        format: figure,
        parts: PARTS.map(|(ink, name)| (ink, name.to_owned())).to_vec(),
        all,
        tall,
        limit: None,
    }
}

fn by_stage(stages: &[Stage]) -> Figure {
    let stage = |stage: &Stage| Bar {
        name: whole(stage.guests),
        parts: parts(&stage.memory),
    };
    let bars = bars("guests", Tall::Broken, stages.iter().map(stage).collect());
    Figure {
        title: "Host memory a guest, by its parts".to_owned(),
        drawing: bars.draw(),
        legend: bars.legend(),
        caption: html! {
            "What cannot merge is each guest’s own; what all share is divided by their number and "
            "falls as it grows."
            @if bars.has_broken() { " A bar with a notch is higher than drawn." }
        },
        table: bars.table(),
    }
}

fn beside(baseline: &Baseline, stages: &[Stage]) -> Figure {
    let same = stages.iter().find(|stage| stage.guests == baseline.guests);
    let ours = same.map(|stage| Bar {
        name: "this fleet".to_owned(),
        parts: parts(&stage.memory),
    });
    let theirs = Bar {
        name: "baseline".to_owned(),
        parts: parts(&baseline.memory),
    };
    let bars = bars(
        "fleet",
        Tall::Whole,
        ours.into_iter().chain([theirs]).collect(),
    );
    let guests = whole(baseline.guests);
    Figure {
        title: format!("Beside the baseline, at {guests} guests"),
        drawing: bars.draw(),
        legend: bars.legend(),
        caption: html! {
            @match baseline.ratio(stages) {
                Some(ratio) => {
                    "The baseline takes " b { (figure(ratio)) " ×" } " as much a guest. "
                }
                None => { "No stage has as many guests, so there is no ratio. " }
            }
            (whole(baseline.ready)) " of its " (guests) " guests were ready. It is the reference "
            "experiment’s way, measured in the same run; the disclosure says what it is made of."
        },
        table: bars.table(),
    }
}

fn in_all(stages: &[Stage]) -> Figure {
    let series = vec![
        stages::series(stages, "the fleet’s", 0, |stage| {
            Some(bytes(stage.memory.bytes))
        }),
        stages::series(stages, "charged to its control group", 1, |stage| {
            stage.memory.charged.map(bytes)
        }),
        stages::series(stages, "still available", 2, |stage| {
            stage.memory.available.map(bytes)
        }),
    ];
    let up = Axis::memory("", series.iter().flat_map(Series::known));
    let lines = stages::lines(stages, up, values::size, series);
    Figure {
        title: "Host memory in all".to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {
            "The fleet’s memory and the host’s " code { "MemAvailable" } " at each stage. A control "
            "group is charged with page cache too, and not with what others were charged first."
        },
        table: lines.table(),
    }
}
