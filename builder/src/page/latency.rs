//! How long guests take to answer, and SSH commands to be done.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::axis::Axis;
use super::document::Section;
use super::figure::Figure;
use super::lines::{Lines, Series};
use super::stages;
use super::values::{seconds, whole};
use crate::bundle::figures::replies;
use crate::bundle::types::{GuestReply, Run, Stage};
use crate::text::printable;

/// What is drawn of a distribution.
const SHARES: [(&str, f64); 4] = [("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("most", 1.0)];
/// As many reasons for failures as are listed.
const REASONS: usize = 5;

/// Replies of one kind.
struct Kind {
    title: &'static str,
    /// Who gave them, and who did not.
    verbs: (&'static str, &'static str),
    of: fn(&Stage) -> &[GuestReply],
}

const KINDS: [Kind; 2] = [
    Kind {
        title: "Answers to status",
        verbs: ("asked for their status", "answered"),
        of: |stage| &stage.answers,
    },
    Kind {
        title: "Commands over SSH",
        verbs: ("logged in to by SSH", "did the command"),
        of: |stage| &stage.logins,
    },
];

pub(super) fn section(run: &Run) -> Section {
    let measured = |kind: &&Kind| run.stages.iter().any(|stage| !(kind.of)(stage).is_empty());
    let figures: Vec<_> = (KINDS.iter().filter(measured))
        .map(|kind| percentiles(kind, &run.stages))
        .collect();
    let words = html! {
        @if let Some(last) = run.stages.last() {
            @for kind in &KINDS { (summary(run, last, kind)) }
        } @else {
            p { "No guest was asked." }
        }
    };
    Section::new("latency", "Latency of answers", &words, &figures)
}

/// Who was asked at the last stage, and who answered.
fn summary(run: &Run, last: &Stage, kind: &Kind) -> Markup {
    let all = (kind.of)(last);
    let good = replies(all);
    let (asked, answered) = kind.verbs;
    let number = |count: usize| whole(u64::try_from(count).unwrap_or(u64::MAX));
    let is_sample = u32::try_from(all.len()).is_ok_and(|asked| asked < last.guests);
    html! {
        @if all.is_empty() {
            p { "At " (whole(last.guests)) " guests none was " (asked) "." }
        } @else {
            p {
                "At " (whole(last.guests)) " guests, " (number(all.len())) " were " (asked)
                @if is_sample { ", a sample chosen by seed " (run.plan.seed) }
                "; " (number(good.count())) " " (answered)
                @if let Some(most) = good.most() { ", the last after " (seconds(most)) }
                @if let Some(deadline) = last.deadline { " (deadline " (seconds(deadline)) ")" }
                "."
            }
            (failures(all))
        }
    }
}

fn failures(all: &[GuestReply]) -> Markup {
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for reason in all.iter().filter_map(|reply| reply.failed.as_deref()) {
        *reasons.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    let more = reasons.len().saturating_sub(REASONS);
    html! {
        @if !reasons.is_empty() {
            ul {
                @for (reason, number) in reasons.iter().take(REASONS) {
                    li { (whole(*number)) " did not: " (printable(reason)) }
                }
                @if more > 0 { li { (more) " more reasons are in " code { "run.json" } } }
            }
        }
    }
}

fn percentiles(kind: &Kind, stages: &[Stage]) -> Figure {
    let lines = quantiles(stages, kind.of);
    Figure {
        title: kind.title.to_owned(),
        drawing: lines.draw(),
        legend: lines.legend(),
        caption: html! {
            "Seconds until the reply came, of those that came in time. At each stage the guests burn "
            "all the while."
        },
        table: lines.table(),
    }
}

fn quantiles(stages: &[Stage], of: fn(&Stage) -> &[GuestReply]) -> Lines {
    let series: Vec<_> = (SHARES.iter().enumerate())
        .map(|(ink, (name, share))| {
            stages::series(stages, name, ink, |stage| {
                replies(of(stage)).quantile(*share)
            })
        })
        .collect();
    let up = Axis::log_seconds("time", series.iter().flat_map(Series::known));
    stages::lines(stages, up, seconds, series)
}
