//! What became of the full fleet while it was kept, and of one that was shot at.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::axis::Axis;
use super::document::Section;
use super::figure::{Figure, Swatch};
use super::plot::{self, Ink, Mark, Plot, rounded};
use super::table::Table;
use super::values::{known, percent, seconds, size, whole};
use crate::bundle::figures::{Distribution, bytes, count, replies};
use crate::bundle::types::{Hold, MemoryFigures, Run, Stage, Storm};
use crate::text::printable;
use crate::units::GuestIndex;

/// As many guests as are named.
const NAMED: usize = 20;

/// A section for each of the two that was done.
pub(super) fn sections(run: &Run) -> Vec<Section> {
    let hold = run.hold.as_ref().map(|held| hold(held, run.stages.last()));
    let storm = run.storm.as_ref().map(storm);
    hold.into_iter().chain(storm).collect()
}

fn hold(hold: &Hold, last: Option<&Stage>) -> Section {
    let mut table = Table::new(["", "before", "after"]);
    let [before, after] = &hold.memory;
    let mut row = |name: &str, value: &dyn Fn(&MemoryFigures) -> Option<f64>| {
        let cell = |memory| known(value(memory), size);
        table.row([name.to_owned(), cell(before), cell(after)]);
    };
    row("host memory a guest", &|memory| memory.a_guest().map(bytes));
    row("host memory in all", &|memory| Some(bytes(memory.bytes)));
    row("MemAvailable", &|memory| memory.available.map(bytes));
    let first = last.map_or_else(Distribution::default, |stage| replies(&stage.answers));
    let then = replies(&hold.answers);
    for (name, share) in [
        ("answers, median", 0.5),
        ("answers, p90", 0.9),
        ("answers, p99", 0.99),
        ("answers, most", 1.0),
    ] {
        let cell = |values: &Distribution| known(values.quantile(share), seconds);
        table.row([name.to_owned(), cell(&first), cell(&then)]);
    }
    let asked = u64::try_from(hold.answers.len()).unwrap_or(u64::MAX);
    let answered = u64::try_from(then.count()).unwrap_or(u64::MAX);
    let words = html! {
        p {
            "The full fleet was kept for " (seconds(hold.ended - hold.began)) ". "
            (whole(hold.replaced)) " guests that somebody stopped were started again, and there were "
            (whole(hold.restarts)) " restarts. "
            @if asked > 0 { "At the end " (whole(answered)) " of " (whole(asked)) " asked answered." }
            @else { "Nobody was asked at the end." }
        }
        (table.numbers("Before and after the fleet was kept"))
    };
    Section::new("hold", "Kept at full size", &words, &[])
}

fn storm(storm: &Storm) -> Section {
    let back = replies(&storm.back);
    let killed = storm.killed.len();
    let words = html! {
        p {
            (number(killed)) " of " (whole(storm.guests)) " guests ("
            (percent(count(killed) / f64::from(storm.guests.max(1)))) ") and the supervisor were killed at once. "
            @match storm.resumed {
                Some(after) => { "A supervisor was there again after " (seconds(after)) ". " }
                None => { "No supervisor came back. " }
            }
            (number(back.count())) " of the killed were ready again"
            @if let Some(most) = back.most() { ", the last after " (seconds(most)) }
            "."
        }
        p {
            @if storm.lost.is_empty() { "No other guest’s process ended." }
            @else {
                (number(storm.lost.len())) " guests that were not killed ended too: " (named(&storm.lost)) "."
            }
        }
        @for reply in storm.back.iter().filter(|reply| reply.failed.is_some()).take(NAMED) {
            p { (reply.guest) " did not come back: " (printable(reply.failed.as_deref().unwrap_or_default())) }
        }
    };
    let figures: Vec<_> = (back.count() > 0)
        .then(|| recovery(&back, killed))
        .into_iter()
        .collect();
    Section::new("storm", "Storm", &words, &figures)
}

fn number(number: usize) -> String {
    whole(u64::try_from(number).unwrap_or(u64::MAX))
}

fn named(guests: &[GuestIndex]) -> Markup {
    let more = guests.len().saturating_sub(NAMED);
    let names: Vec<_> = guests.iter().take(NAMED).map(ToString::to_string).collect();
    html! { (names.join(", ")) @if more > 0 { " and " (number(more)) " more" } }
}

/// Which share of the killed was ready again by when.
fn recovery(back: &Distribution, killed: usize) -> Figure {
    const STEPS: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
    let reached = count(back.count()) / count(killed.max(1));
    let points: Vec<_> = (STEPS.iter())
        .filter_map(|share| Some((back.quantile(*share)?, share * reached)))
        .collect();
    let across = Axis::linear(
        "seconds after the kill",
        points.iter().map(|(time, _)| *time),
    );
    let up = Axis::linear("share of the killed", [1.0]);
    let mut plot = Plot::new(&up);
    let x = |time| plot::x_of_time(&across, time);
    let marks = across.ticks.iter().map(|(time, text)| Mark {
        at: x(*time),
        text: text.clone(),
    });
    plot.across(&across.label, marks.collect());
    let mut outline = format!("M{} {}", plot::LEFT, plot::BOTTOM);
    let mut table = Table::new(["share of the killed", "ready after"]);
    let mut from = plot::LEFT;
    for (time, share) in &points {
        let _ = write!(
            outline,
            "L{} {}",
            rounded(x(*time)),
            rounded(plot::y(&up, *share))
        );
        table.row([percent(*share), seconds(*time)]);
    }
    plot.add(
        svg::node::element::Path::new()
            .set("class", format!("line {}", Ink(0).class()))
            .set("d", outline),
    );
    for (time, share) in &points {
        let text = format!("{} were ready after {}", percent(*share), seconds(*time));
        plot.explain((from, x(*time)), &text);
        from = x(*time);
    }
    Figure {
        title: "Guests that came back".to_owned(),
        drawing: plot.finish(),
        legend: vec![(
            Swatch::Bare(Ink(0)),
            "killed guests that are ready".to_owned(),
        )],
        caption: html! { "Time from the kill until a killed guest was ready again, restored by the next supervisor." },
        table,
    }
}
