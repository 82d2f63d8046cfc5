//! A run of the experiment for people: one screen, from the figures that are quoted
//! first to the conditions without which they say nothing.

use std::fmt::Write as _;

use super::wrapped;
use crate::bundle::Merged;
use crate::bundle::figures::{Distribution, bytes, replies};
use crate::bundle::types::{Baseline, GuestReply, Hold, MemoryFigures, Outcome, Run, Stage, Storm};
use crate::control::types::KsmState;
use crate::page::values::{MISSING, NO_BREAK, date, figure, known, percent, seconds, size, whole};
use crate::text::printable;

/// The report of a run, or of shards as one; the text is free of what a terminal
/// obeys.
pub(crate) fn report(merged: &Merged) -> String {
    let run = &merged.run;
    let mut blocks = vec![headline(run)];
    if !run.stages.is_empty() {
        blocks.push(memory(&run.stages));
        blocks.push(times(&run.stages));
    }
    let rest = [
        run.baseline.as_ref().map(baseline),
        run.hold.as_ref().map(hold),
        run.storm.as_ref().map(storm),
    ];
    let rest: Vec<_> = rest.into_iter().flatten().collect();
    if !rest.is_empty() {
        blocks.push(rest.join("\n"));
    }
    blocks.push(disclosure(run));
    if !merged.differing.is_empty() {
        let lines = merged
            .differing
            .iter()
            .map(|line| indented(&printable(line)));
        let lines: Vec<_> = lines.collect();
        blocks.push(format!("Its hosts differ:\n{}", lines.join("\n")));
    }
    blocks.join("\n\n").replace(NO_BREAK, " ")
}

fn indented(text: &str) -> String {
    let mut lines = wrapped(text, 2);
    lines.truncate(lines.trim_end().len());
    lines
}

/// A paragraph that begins with a word.
fn paragraph(text: &str) -> String {
    wrapped(text, 0)
}

fn headline(run: &Run) -> String {
    let figures = &run.headline;
    let mut lines = vec![format!(
        "{}: {} guests, {} ready; {}",
        printable(&run.fleet),
        whole(figures.guests),
        whole(figures.ready),
        outcome(&run.outcome)
    )];
    if let Some(a_guest) = figures.bytes_a_guest {
        let peak = figures
            .peak
            .map(|peak| format!("; {} × as much at the peak", figure(peak)));
        lines.push(format!(
            "{} of host memory a guest, {} guests a GiB{}",
            size(bytes(a_guest)),
            known(figures.guests_a_gib, figure),
            peak.unwrap_or_default()
        ));
    }
    let within = figures
        .answered_within
        .map(|time| format!(" within {}", seconds(time)));
    lines.push(format!(
        "{} of {} answered{}; {} of {} reached by SSH",
        whole(figures.answered),
        whole(figures.asked),
        within.unwrap_or_default(),
        whole(figures.reached),
        whole(figures.tried)
    ));
    let rate = f64::from(figures.ready) / figures.growing;
    lines.push(format!(
        "the fleet grew for {}: {} guests a second",
        seconds(figures.growing),
        figure(rate)
    ));
    if let Some(fairness) = figures.fairness {
        lines.push(format!(
            "fairness of the burn {} (Jain's index); the slowest guest had {} of the median, the \
             least CPU was {}",
            figure(fairness),
            known(figures.least_burn, percent),
            known(figures.least_cpu, percent)
        ));
    }
    if let Some((ratio, baseline)) = figures.baseline_ratio.zip(run.baseline.as_ref()) {
        lines.push(format!(
            "at {} guests the reference's way takes {} × as much memory",
            whole(baseline.guests),
            figure(ratio)
        ));
    }
    let lines: Vec<_> = lines.iter().map(|line| paragraph(line)).collect();
    lines.join("\n")
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Running => "the run went on when this was written".to_owned(),
        Outcome::Complete => "complete".to_owned(),
        Outcome::Full(why) => format!("full: {}", printable(why)),
        Outcome::Interrupted => "interrupted by the user".to_owned(),
        Outcome::Failed(why) => format!("failed: {}", printable(why)),
    }
}

/// What a stage took.
fn memory(stages: &[Stage]) -> String {
    let mut lines = vec![format!(
        "{:>6} {:>6} {:>10} {:>9} {:>8} {:>8} {:>8} {:>9}  KSM",
        "GUESTS", "READY", "A GUEST", "UNMERGED", "SHARED", "KERNEL", "KSM'S", "PREDICTED"
    )];
    lines.extend(stages.iter().map(|stage| {
        let parts = &stage.memory.parts;
        let each = |bytes: u64| mebibytes(bytes.checked_div(stage.memory.count.into()));
        format!(
            "{:>6} {:>6} {:>10} {:>9} {:>8} {:>8} {:>8} {:>9}  {}",
            stage.guests,
            stage.ready,
            mebibytes(stage.memory.a_guest()),
            each(parts.cannot_merge),
            each(parts.shared_by_all),
            each(parts.kernel),
            each(parts.ksm),
            mebibytes(stage.predicted),
            ksm(stage.ksm_state)
        )
    }));
    lines
        .push("MiB a guest: in all, its parts (ps --memory), and as check predicted it".to_owned());
    lines.join("\n")
}

/// In one unit throughout, so that figures compare.
fn mebibytes(amount: Option<u64>) -> String {
    known(amount.map(bytes), |amount| {
        format!("{:.2}", amount / f64::from(1 << 20))
    })
}

fn ksm(state: Option<KsmState>) -> &'static str {
    match state {
        None => "unknown",
        Some(KsmState::Stopped) => "stopped",
        Some(KsmState::Merging) => "merging",
        Some(KsmState::Settled) => "settled",
    }
}

/// How long guests of a stage took.
fn times(stages: &[Stage]) -> String {
    let mut lines = vec![format!(
        "{:>6} {:>8} {:>15} {:>15} {:>15} {:>15}",
        "GUESTS", "GREW", "FIRST WORD", "READY", "ANSWER", "LOG-IN"
    )];
    lines.extend(stages.iter().map(|stage| {
        format!(
            "{:>6} {:>8} {:>15} {:>15} {:>15} {:>15}",
            stage.guests,
            brief(stage.grown - stage.began),
            pair(&stage.spoke()),
            pair(&stage.ready_after()),
            pair(&replies(&stage.answers)),
            pair(&replies(&stage.logins)),
        )
    }));
    lines.push("times: median, and what 99 % of the guests were within".to_owned());
    lines.join("\n")
}

fn pair(times: &Distribution) -> String {
    match (times.median(), times.quantile(0.99)) {
        (Some(median), Some(most)) => format!("{} {}", brief(median), brief(most)),
        _ => MISSING.to_owned(),
    }
}

/// A time without a space before its unit, so that two stand in a column.
fn brief(time: f64) -> String {
    seconds(time).replace([NO_BREAK, ' '], "")
}

fn baseline(baseline: &Baseline) -> String {
    let made_of: Vec<_> = baseline
        .made_of
        .values()
        .map(|part| printable(part))
        .collect();
    paragraph(&format!(
        "Baseline: {} guests, {} ready after {}, {} of host memory a guest ({} at the peak of \
         all); {}; {}",
        whole(baseline.guests),
        whole(baseline.ready),
        seconds(baseline.growing),
        a_guest(&baseline.memory),
        size(bytes(baseline.peak)),
        reached(&baseline.logins, "reached by SSH"),
        made_of.join(", ")
    ))
}

fn hold(hold: &Hold) -> String {
    let [first, last] = &hold.memory;
    paragraph(&format!(
        "Hold: {}; {} of host memory a guest became {}; {}; {} stopped and replaced, {} restarts",
        seconds(hold.ended - hold.began),
        a_guest(first),
        a_guest(last),
        reached(&hold.answers, "answered at its end"),
        whole(hold.replaced),
        whole(hold.restarts)
    ))
}

fn storm(storm: &Storm) -> String {
    let supervisor = match storm.resumed {
        Some(time) => format!("a supervisor was there again after {}", seconds(time)),
        None => "no supervisor came back".to_owned(),
    };
    let slowest = replies(&storm.back).most();
    let within = slowest.map(|time| format!(" within {}", seconds(time)));
    let lost = match storm.lost.len() {
        0 => "nothing else was lost".to_owned(),
        lost => format!("{} others were lost", whole(lost as u64)),
    };
    paragraph(&format!(
        "Storm: {} of {} guests and the supervisor were killed; {supervisor}; {}{}; {lost}",
        whole(storm.killed.len() as u64),
        whole(storm.guests),
        reached(&storm.back, "came back"),
        within.unwrap_or_default()
    ))
}

fn a_guest(memory: &MemoryFigures) -> String {
    known(memory.a_guest().map(bytes), size)
}

/// Such as `99 of 100 answered`.
fn reached(all: &[GuestReply], what: &str) -> String {
    let good = replies(all).count() as u64;
    format!("{} of {} {what}", whole(good), whole(all.len() as u64))
}

/// Without which the figures say nothing.
fn disclosure(run: &Run) -> String {
    let conditions = &run.conditions;
    let mut text = format!(
        "imgbuild {}, began {}, lasted {}; seed {}; {} CPUs, {} of RAM, {} in use by others; \
         guests of {} with {} of disk",
        printable(&run.imgbuild),
        date(run.began).unwrap_or_else(|| MISSING.to_owned()),
        seconds(run.lasted),
        run.plan.seed,
        whole(conditions.cpus),
        size(bytes(conditions.memory)),
        format_args!("{:.2} CPUs", conditions.load),
        size(bytes(conditions.guest_memory)),
        size(bytes(conditions.guest_disk)),
    );
    for (name, value) in conditions.guest.iter().chain(&conditions.host) {
        let _ = write!(text, "; {} {}", printable(name), printable(value));
    }
    for setting in &conditions.settings {
        let of = |value: &Option<String>| {
            value
                .as_deref()
                .map_or_else(|| MISSING.to_owned(), printable)
        };
        let _ = write!(
            text,
            "; {} {} → {} → {}",
            printable(&setting.name),
            of(&setting.before),
            of(&setting.during),
            of(&setting.after)
        );
    }
    let findings: Vec<_> = conditions.findings.iter().map(|id| printable(id)).collect();
    if !findings.is_empty() {
        let _ = write!(text, "; findings of check: {}", findings.join(", "));
    }
    let command: Vec<_> = run
        .plan
        .command
        .iter()
        .map(|word| printable(word))
        .collect();
    format!(
        "{}\n{}",
        paragraph(&text),
        paragraph(&format!("$ {}", command.join(" ")))
    )
}
