//! Several runs side by side.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::axis::Axis;
use super::document::{self, Section};
use super::figure::Figure;
use super::headline;
use super::histogram::{Waits, end};
use super::lines::{Lines, Over, Series};
use super::plot::Ink;
use super::run_queue;
use super::starts::rate_of;
use super::table::Table;
use super::values::{self, MISSING, known, seconds, size, tick, whole};
use crate::bundle::conditions::{Condition, guest, host};
use crate::bundle::figures::{bytes, replies};
use crate::bundle::types::{Run, Stage};
use crate::bundle::{self, Comparison, Differing, Unit};
use crate::text::printable;

/// As many runs as have an ink of their own.
const INKS: usize = Ink::COUNT - 1;

/// The page of several runs, each with the name of its bundle.
pub fn compare(runs: &[(String, Run)]) -> String {
    let names: Vec<_> = runs.iter().map(|(name, _)| printable(name)).collect();
    let header = html! {
        p.kind { "Density runs side by side" }
        h1 { (names.join(" · ")) }
    };
    let only: Vec<_> = runs.iter().map(|(_, run)| run.clone()).collect();
    let comparison = bundle::compare(&only);
    let sections = [
        Section::new(
            "figures",
            "Figures",
            &figures(runs, &comparison).numbers("Figures of each run"),
            &[],
        ),
        Section::new("curves", "Curves", &words(runs), &curves(runs)),
        Section::new(
            "conditions",
            "Conditions",
            &conditions(runs, &comparison),
            &[],
        ),
    ];
    let title = format!("{}: density runs", names.join(", "));
    let source = html! { "Its figures are those of " code { "run.json" } " in each bundle, which has every sample." };
    document::page(&title, &header, &sections, &source)
}

/// A table with a column for each run.
fn columns(first: &str, runs: &[(String, Run)]) -> Table {
    let names = runs.iter().map(|(name, _)| printable(name));
    Table {
        head: std::iter::once(first.to_owned()).chain(names).collect(),
        rows: Vec::new(),
    }
}

/// The figures that are quoted first, each with what it is of the first run's.
fn figures(runs: &[(String, Run)], comparison: &Comparison) -> Table {
    let mut table = columns("figure", runs);
    let mut row = |name: &str, cells: Vec<String>| {
        table
            .rows
            .push(std::iter::once(name.to_owned()).chain(cells).collect());
    };
    let of = |value: &dyn Fn(&Run) -> String| runs.iter().map(|(_, run)| value(run)).collect();
    row("regime", of(&|run| headline::regime(&run.conditions)));
    row(
        "outcome",
        of(&|run| headline::outcome(&run.outcome).0.to_owned()),
    );
    for figure in comparison
        .figures
        .iter()
        .filter(|figure| figure.stage.is_none())
    {
        let cells = figure.values.iter().zip(&figure.ratios).enumerate();
        let cells = cells.map(|(at, (value, ratio))| {
            let value = known(*value, |value| written(figure.unit, value));
            match ratio.filter(|_| at > 0) {
                Some(ratio) => format!("{value} (×\u{a0}{})", values::figure(ratio)),
                None => value,
            }
        });
        row(figure.name, cells.collect());
    }
    table
}

fn written(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Number => tick(value),
        Unit::Bytes => size(value),
        Unit::Seconds => seconds(value),
        Unit::Ratio => values::figure(value),
        Unit::Share => format!("{} %", values::figure(value * 100.0)),
    }
}

fn words(runs: &[(String, Run)]) -> Markup {
    html! {
        @if runs.iter().all(|(_, run)| run.stages.is_empty()) { p { "No run reached a stage." } }
    }
}

fn curves(runs: &[(String, Run)]) -> Vec<Figure> {
    let memory = |stage: &Stage| stage.memory.a_guest().map(bytes);
    let answers = |stage: &Stage| replies(&stage.answers);
    let figures = [
        by_stage(runs, "Host memory a guest", memory, size, |values| {
            Axis::log_memory(" a guest", values)
        }),
        by_stage(runs, "Start rate", rate_of, values::figure, |values| {
            Axis::linear("guests a second", values)
        }),
        by_stage(
            runs,
            "Answers, median",
            |stage| answers(stage).median(),
            seconds,
            |values| Axis::log_seconds("time", values),
        ),
        by_stage(
            runs,
            "Answers, 99th percentile",
            |stage| answers(stage).quantile(0.99),
            seconds,
            |values| Axis::log_seconds("time", values),
        ),
        by_stage(
            runs,
            "Commands over SSH, median",
            |stage| replies(&stage.logins).median(),
            seconds,
            |values| Axis::log_seconds("time", values),
        ),
        by_stage(
            runs,
            "Run-queue latency, median at most",
            waits,
            seconds,
            |values| Axis::log_seconds("time in the run queue", values),
        ),
        by_stage(
            runs,
            "Fairness of the burn, Jain’s index",
            |stage| stage.rounds().fairness(),
            values::figure,
            |_| Axis::linear("1 is fair", [1.0]),
        ),
    ];
    figures
        .into_iter()
        .flatten()
        .chain(over_time(runs))
        .collect()
}

fn waits(stage: &Stage) -> Option<f64> {
    let class = *run_queue::classes(std::slice::from_ref(stage)).first()?;
    Some(end(Waits::of(&stage.run_queue, class).row(0.5)? + 1))
}

/// A curve of each run over the numbers of guests of all.
fn by_stage(
    runs: &[(String, Run)],
    title: &str,
    value: impl Fn(&Stage) -> Option<f64>,
    format: fn(f64) -> String,
    up: impl Fn(Vec<f64>) -> Axis,
) -> Option<Figure> {
    let stages = runs.iter().flat_map(|(_, run)| &run.stages);
    let mut counts: Vec<_> = stages.map(|stage| stage.guests).collect();
    counts.sort_unstable();
    counts.dedup();
    let curve = |(at, (name, run)): (usize, &(String, Run))| Series {
        name: printable(name),
        ink: Ink(at % INKS),
        values: counts
            .iter()
            .map(|count| value(run.stages.iter().find(|stage| stage.guests == *count)?))
            .collect(),
    };
    let series: Vec<_> = runs.iter().enumerate().map(curve).collect();
    let known: Vec<_> = series.iter().flat_map(Series::known).collect();
    if known.is_empty() {
        return None;
    }
    let lines = Lines {
        over: Over::Stages(Axis::stages(&counts)),
        up: up(known),
        format,
        places: counts
            .iter()
            .map(|count| (f64::from(*count), whole(*count)))
            .collect(),
        series,
    };
    Some(drawn(title, &lines))
}

/// The guests that were ready, over time.
fn over_time(runs: &[(String, Run)]) -> Option<Figure> {
    const PLACES: u32 = 120;
    let ends = runs.iter().filter_map(|(_, run)| run.series.last());
    let end = ends
        .map(|moment| moment.at)
        .filter(|at| at.is_finite())
        .fold(0.0, f64::max);
    if end <= 0.0 {
        return None;
    }
    let places: Vec<_> = (0..=PLACES)
        .map(|at| end * f64::from(at) / f64::from(PLACES))
        .collect();
    let ready = |run: &Run, time: f64| {
        run.series.last().filter(|last| last.at >= time)?;
        let behind = run.series.partition_point(|moment| moment.at <= time);
        Some(f64::from(run.series.get(behind.checked_sub(1)?)?.ready))
    };
    let curve = |(at, (name, run)): (usize, &(String, Run))| Series {
        name: printable(name),
        ink: Ink(at % INKS),
        values: places.iter().map(|time| ready(run, *time)).collect(),
    };
    let series: Vec<_> = runs.iter().enumerate().map(curve).collect();
    let lines = Lines {
        over: Over::Time(Axis::time([end]), Vec::new()),
        up: Axis::linear(
            "guests that are ready",
            series.iter().flat_map(Series::known),
        ),
        format: tick,
        places: places.iter().map(|time| (*time, seconds(*time))).collect(),
        series,
    };
    Some(drawn("Guests over time", &lines))
}

fn drawn(title: &str, lines: &Lines) -> Figure {
    Figure {
        title: title.to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {},
        table: lines.table(),
    }
}

/// The conditions in which the runs differ, and those that are the same.
fn conditions(runs: &[(String, Run)], comparison: &Comparison) -> Markup {
    let (matter, others): (Vec<_>, Vec<_>) = comparison
        .differing
        .iter()
        .partition(|differing| differing.matters);
    let table = |some: &[&Differing]| {
        let mut table = columns("what differs", runs);
        table.rows.extend(some.iter().map(|differing| {
            let missing = || MISSING.to_owned();
            let values = differing.values.iter();
            let values = values.map(|value| value.as_ref().map_or_else(missing, |v| printable(v)));
            std::iter::once(printable(&differing.title))
                .chain(values)
                .collect()
        }));
        table.texts("Conditions that differ")
    };
    html! {
        @if matter.is_empty() { p { "The runs are alike in all conditions that matter." } }
        @else {
            p { "Each of these alone may explain that figures differ." }
            (table(&matter))
        }
        @if !others.is_empty() {
            h3 { "Differs, too" }
            (table(&others))
        }
        h3 { "The same in all" }
        (alike(runs).texts("Conditions that are the same"))
    }
}

fn alike(runs: &[(String, Run)]) -> Table {
    let mut table = Table::new(["condition", "value"]);
    let mut add = |condition: Condition, facts: fn(&Run) -> &BTreeMap<String, String>| {
        let mut values = runs.iter().map(|(_, run)| facts(run).get(condition.name));
        let first = values.next().flatten();
        if let Some(value) = first.filter(|_| values.all(|value| value == first)) {
            table.row([condition.title.to_owned(), printable(value)]);
        }
    };
    for condition in host::ALL {
        add(condition, |run| &run.conditions.host);
    }
    for condition in guest::ALL {
        add(condition, |run| &run.conditions.guest);
    }
    table
}
