//! Several runs side by side.

use maud::{Markup, html};

use super::axis::Axis;
use super::document::{self, Section};
use super::figure::Figure;
use super::headline;
use super::histogram::{Waits, end};
use super::lines::{Lines, Over, Series};
use super::plot::Ink;
use super::run_queue;
use super::table::Table;
use super::values::{figure, known, percent, seconds, size, whole};
use crate::bundle::figures::{bytes, replies};
use crate::bundle::types::{Run, Stage};
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
    let sections = [
        Section::new(
            "figures",
            "Figures",
            &figures(runs).numbers("Figures of each run"),
            &[],
        ),
        Section::new("curves", "Curves", &words(runs), &curves(runs)),
        Section::new("conditions", "Conditions", &conditions(runs), &[]),
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

fn figures(runs: &[(String, Run)]) -> Table {
    let mut table = columns("figure", runs);
    let mut row = |name: &str, value: &dyn Fn(&Run) -> String| {
        let cells = runs.iter().map(|(_, run)| value(run));
        table
            .rows
            .push(std::iter::once(name.to_owned()).chain(cells).collect());
    };
    let of = |part: u32, all: u32| format!("{} of {}", whole(part), whole(all));
    row("regime", &|run| headline::regime(&run.conditions));
    row("outcome", &|run| {
        headline::outcome(&run.outcome).0.to_owned()
    });
    row("guests", &|run| whole(run.headline.guests));
    row("ready", &|run| whole(run.headline.ready));
    row("host memory a guest", &|run| {
        known(run.headline.bytes_a_guest.map(bytes), size)
    });
    row("guests a GiB", &|run| {
        known(run.headline.guests_a_gib, figure)
    });
    row("answered", &|run| {
        of(run.headline.answered, run.headline.asked)
    });
    row("latest answer after", &|run| {
        known(run.headline.answered_within, seconds)
    });
    row("logged in by SSH", &|run| {
        of(run.headline.reached, run.headline.tried)
    });
    row("grew in", &|run| seconds(run.headline.growing));
    row("most memory on the way ÷ at the end", &|run| {
        known(run.headline.peak, figure)
    });
    row("least CPU of a guest, a second", &|run| {
        known(run.headline.least_cpu, seconds)
    });
    row("fairness (Jain’s index)", &|run| {
        known(run.headline.fairness, figure)
    });
    row("least burn ÷ median", &|run| {
        known(run.headline.least_burn, percent)
    });
    row("baseline’s memory ÷ the fleet’s", &|run| {
        known(run.headline.baseline_ratio, figure)
    });
    table
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
        by_stage(runs, "Start rate", rate, figure, |values| {
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
            figure,
            |_| Axis::linear("1 is fair", [1.0]),
        ),
    ];
    figures
        .into_iter()
        .flatten()
        .chain(over_time(runs))
        .collect()
}

fn rate(stage: &Stage) -> Option<f64> {
    let took = stage.grown - stage.began;
    let started = crate::bundle::figures::count(stage.starts.len());
    (took > 0.0 && started > 0.0).then(|| started / took)
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
        format: figure,
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

/// What the runs ran on, and first what differs.
fn conditions(runs: &[(String, Run)]) -> Markup {
    let mut differing = columns("what differs", runs);
    let mut alike = Table::new(["the same in all", "value"]);
    let mut names: Vec<_> = runs
        .iter()
        .flat_map(|(_, run)| {
            run.conditions
                .host
                .keys()
                .chain(run.conditions.guest.keys())
        })
        .collect();
    names.sort();
    names.dedup();
    let fact = |run: &Run, name: &String| {
        let facts = [&run.conditions.host, &run.conditions.guest];
        facts
            .into_iter()
            .find_map(|facts| facts.get(name))
            .map(|value| printable(value))
    };
    let mut rows: Vec<(String, Vec<String>)> = names
        .into_iter()
        .map(|name| {
            let cells = runs
                .iter()
                .map(|(_, run)| fact(run, name).unwrap_or_default());
            (printable(name), cells.collect())
        })
        .collect();
    let mut add = |name: &str, value: &dyn Fn(&Run) -> String| {
        rows.push((
            name.to_owned(),
            runs.iter().map(|(_, run)| value(run)).collect(),
        ));
    };
    add("imgbuild", &|run| printable(&run.imgbuild));
    add("host memory", &|run| size(bytes(run.conditions.memory)));
    add("CPUs", &|run| whole(run.conditions.cpus));
    add("load from elsewhere, CPU seconds a second", &|run| {
        figure(run.conditions.load)
    });
    add("RAM of a guest", &|run| {
        size(bytes(run.conditions.guest_memory))
    });
    add("disk of a guest", &|run| {
        size(bytes(run.conditions.guest_disk))
    });
    add("seed", &|run| run.plan.seed.to_string());
    for (name, cells) in rows {
        match cells.first() {
            Some(first) if cells.iter().all(|cell| cell == first) => {
                alike.row([name, first.clone()]);
            }
            _ => differing
                .rows
                .push(std::iter::once(name).chain(cells).collect()),
        }
    }
    html! {
        @if !differing.rows.is_empty() { (differing.numbers("Conditions that differ")) }
        @else { p { "The runs were made under the same conditions." } }
        h3 { "The same in all" }
        (alike.texts("Conditions that are the same"))
    }
}
