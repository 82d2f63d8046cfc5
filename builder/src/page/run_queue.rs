//! How long guests that could run waited for a CPU, with the three questions that the
//! reference experiment asked its histogram.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::document::Section;
use super::figure::Figure;
use super::heat::{Heat, strength};
use super::histogram::{Waits, end, written};
use super::table::Table;
use super::values::{figure, percent, seconds, whole};
use crate::bundle::types::{Run, Stage};
use crate::text::printable;

/// As many classes of threads as are drawn.
const CLASSES: usize = 4;
/// The classes that are looked at first.
const ORDER: [&str; 4] = ["vcpu", "all", "vmm", "io"];
/// What a legend names of the shares.
const LEGEND: [f64; 5] = [0.01, 0.05, 0.1, 0.25, 0.5];

pub(super) fn section(run: &Run) -> Section {
    let classes = classes(&run.stages);
    let heats = classes.iter().filter_map(|class| heat(&run.stages, class));
    let figures: Vec<_> = heats.collect();
    let words = html! {
        @if figures.is_empty() { p { "The run-queue latency was not measured." } }
        @else { @if let Some(class) = classes.first() { (questions(&run.stages, class)) } }
    };
    Section::new("run-queue", "Run-queue latency", &words, &figures)
}

/// The classes of threads that were measured, the most telling one first.
pub(super) fn classes(stages: &[Stage]) -> Vec<&str> {
    let queues = stages.iter().flat_map(|stage| &stage.run_queue);
    let names: BTreeSet<_> = queues.map(|queue| queue.class.as_str()).collect();
    let rank = |name: &&str| {
        ORDER
            .iter()
            .position(|known| known == name)
            .unwrap_or(ORDER.len())
    };
    let mut names: Vec<_> = names
        .into_iter()
        .filter(|class| {
            stages
                .iter()
                .any(|stage| Waits::of(&stage.run_queue, class).total() > 0.0)
        })
        .collect();
    names.sort_by_key(rank);
    names.truncate(CLASSES);
    names
}

fn threads(class: &str) -> String {
    match class {
        "vcpu" => "vCPUs".to_owned(),
        "vmm" => "QEMU’s main threads".to_owned(),
        "io" => "threads for input and output".to_owned(),
        "all" => "all threads".to_owned(),
        other => printable(other),
    }
}

fn source(source: &str) -> String {
    match source {
        "bpf" => "BPF in the kernel’s scheduler".to_owned(),
        "schedstat" => "/proc/PID/schedstat, which has means and no longest waits".to_owned(),
        other => printable(other),
    }
}

/// The reference's questions: how closely grouped, how low, how scattered.
fn questions(stages: &[Stage], class: &str) -> Markup {
    let measured = stages.iter().rev().find_map(|stage| {
        let waits = Waits::of(&stage.run_queue, class);
        (waits.total() > 0.0).then_some((stage, waits))
    });
    let Some((stage, waits)) = measured else {
        return html! {};
    };
    let row = |share: f64| waits.row(share).unwrap_or_default();
    let between = |from: usize, to: usize| format!("{} to {}", written(from), written(to));
    let (quarter, middle, three, late) = (row(0.25), row(0.5), row(0.75), row(0.99));
    let longest = waits.span().map_or(0, |(_, end)| end);
    let factor = end(three + 1) / end(quarter).max(1e-6);
    html! {
        p {
            "Of " (threads(class)) " at " (whole(stage.guests)) " guests, " (figure(waits.total()))
            " waits. The reference experiment asked its histogram three things:"
        }
        dl.questions {
            dt { "How closely grouped?" }
            dd {
                "The middle half of the waits took " (between(quarter, three + 1)) ", a span of "
                (figure(factor)) " ×."
            }
            dt { "How low?" }
            dd {
                "Half of them took less than " (written(middle + 1)) "; "
                (percent(waits.share(0, 4))) " took less than 16 µs. In the reference, half took 4 to 15 µs."
            }
            dt { "How scattered?" }
            dd {
                (percent(waits.share(10, 15))) " took 1 to 32 ms, and " (percent(waits.share(15, usize::MAX)))
                " longer. One in a hundred took more than " (written(late)) ", and the longest less than "
                (seconds(end(longest))) ". In the reference, about 7 % took 1 to 32 ms."
            }
        }
    }
}

fn heat(stages: &[Stage], class: &str) -> Option<Figure> {
    let measured = stages.iter().filter_map(|stage| {
        let waits = Waits::of(&stage.run_queue, class);
        (waits.total() > 0.0).then_some((stage, waits))
    });
    let measured: Vec<_> = measured.collect();
    let spans = measured.iter().filter_map(|(_, waits)| waits.span());
    let (first, last) = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
    let columns = measured.iter().map(|(stage, waits)| {
        let rows = (first..last).map(|row| waits.counts().get(row).copied().unwrap_or_default());
        (whole(stage.guests), rows.collect())
    });
    let heat = Heat {
        across: "guests".to_owned(),
        label: "time in the run queue".to_owned(),
        columns: columns.collect(),
        ends: (first..=last).map(written).collect(),
    };
    let queues = measured.iter().flat_map(|(stage, _)| &stage.run_queue);
    let sources: BTreeSet<_> = queues
        .filter(|queue| queue.class == class)
        .map(|queue| source(&queue.source))
        .collect();
    let sources: Vec<_> = sources.into_iter().collect();
    Some(Figure {
        title: format!("Waits of {}", threads(class)),
        drawing: heat.draw(),
        legend: Vec::new(),
        caption: html! {
            "Each column is a stage, each row twice as long a wait as the one below. The stronger its "
            "colour, the more of the stage’s waits. Measured with " (sources.join(" and ")) "." (scale())
        },
        table: table(&heat, &measured),
    })
}

/// How strong the colour of which share is.
fn scale() -> Markup {
    html! {
        span.scale {
            @for share in LEGEND {
                span {
                    svg viewBox="0 0 12 12" aria-hidden="true" focusable="false" {
                        rect.cell width="12" height="12" fill-opacity=(format!("{:.3}", strength(share))) {}
                    }
                    (format!("{:.0} %", share * 100.0))
                }
            }
        }
    }
}

/// The shares, and below them how many waits there were.
fn table(heat: &Heat, measured: &[(&Stage, Waits)]) -> Table {
    let mut table = heat.table();
    let totals = measured.iter().map(|(_, waits)| figure(waits.total()));
    table.rows.push(
        std::iter::once("all waits".to_owned())
            .chain(totals)
            .collect(),
    );
    table
}
