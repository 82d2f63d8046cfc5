//! Under which conditions it was measured, and how to do it again.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::document::Section;
use super::table::Table;
use super::values::{MISSING, figure, seconds, size, whole};
use crate::bundle::conditions::{Condition, guest, host};
use crate::bundle::figures::bytes;
use crate::bundle::types::{Conditions, Goal, Plan, Run};
use crate::text::printable;

pub(super) fn section(run: &Run) -> Section {
    let conditions = &run.conditions;
    let words = html! {
        h3 { "The command" }
        pre { code { (command(&run.plan.command)) } }
        (plan(&run.plan).texts("What was asked for"))
        div.pair {
            div { h3 { "Host" } (of_host(conditions).texts("Host")) }
            div { h3 { "Guest and VMM" } (of_guest(conditions).texts("Guest and VMM")) }
        }
        h3 { "A guest’s command line" }
        (arguments(&conditions.argv))
        h3 { "Artifacts" }
        (artifacts(conditions))
        h3 { "Host settings" }
        (settings(conditions))
        h3 { "Findings" }
        (findings(&conditions.findings))
        @if let Some(baseline) = &run.baseline {
            h3 { "The baseline" }
            (facts(&baseline.made_of, &[]).texts("What a guest of the baseline is made of"))
            (arguments(&baseline.argv))
        }
    };
    Section::new("disclosure", "Disclosure", &words, &[])
}

/// Words as a shell takes them.
fn command(words: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,%+@".contains(c);
    let quoted = words.iter().map(|word| {
        let word = printable(word);
        if !word.is_empty() && word.chars().all(is_plain) {
            return word;
        }
        format!("'{}'", word.replace('\'', "'\\''"))
    });
    let line = quoted.collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        MISSING.to_owned()
    } else {
        line
    }
}

/// A command line, with an option on each line.
fn arguments(argv: &[String]) -> Markup {
    let mut lines: Vec<Vec<String>> = Vec::new();
    for word in argv {
        match lines.last_mut() {
            Some(line) if !word.starts_with('-') => line.push(word.clone()),
            _ => lines.push(vec![word.clone()]),
        }
    }
    let lines: Vec<_> = lines.iter().map(|line| command(line)).collect();
    html! {
        @if lines.is_empty() { p { "It is not known." } }
        @else { pre { code { (lines.join("\n    ")) } } }
    }
}

fn plan(plan: &Plan) -> Table {
    let mut table = Table::new(["asked for", "value"]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    let goal = match plan.goal {
        Goal::Count => "a number of guests",
        Goal::Fill => "as many guests as fit",
    };
    row("goal", goal.to_owned());
    let stages: Vec<_> = plan.stages.iter().map(|guests| whole(*guests)).collect();
    row("stages", stages.join("; "));
    row("first guest", plan.first.to_string());
    row("seed", plan.seed.to_string());
    let sample = plan.sample.map(|most| format!("at most {}", whole(most)));
    row(
        "guests asked at a stage",
        sample.unwrap_or_else(|| "all".to_owned()),
    );
    row("time for KSM to settle, at most", seconds(plan.settle));
    row("memory that is to stay free", size(bytes(plan.keep_free)));
    let none = || "no".to_owned();
    row(
        "kept at full size for",
        plan.hold.map_or_else(none, seconds),
    );
    row(
        "share killed in a storm",
        plan.storm.map_or_else(none, |share| format!("{share} %")),
    );
    table
}

/// Facts by name, those that imgbuild knows by their titles and first.
fn facts(facts: &BTreeMap<String, String>, known: &[Condition]) -> Table {
    let mut table = Table::new(["fact", "value"]);
    let known_of = |name: &str| known.iter().find(|condition| condition.name == name);
    let named = known
        .iter()
        .filter_map(|condition| facts.get_key_value(condition.name));
    let others = facts.iter().filter(|(name, _)| known_of(name).is_none());
    for (name, value) in named.chain(others) {
        let title = known_of(name).map_or_else(|| printable(name), |known| known.title.to_owned());
        table.row([title, printable(value)]);
    }
    table
}

fn of_host(conditions: &Conditions) -> Table {
    let mut table = facts(&conditions.host, &host::ALL);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("memory (MemTotal)", size(bytes(conditions.memory)));
    row(
        "available before the first guest",
        size(bytes(conditions.available)),
    );
    row("CPUs for guests", whole(conditions.cpus));
    row(
        "load from elsewhere",
        format!("{} CPU seconds a second", figure(conditions.load)),
    );
    table
}

fn of_guest(conditions: &Conditions) -> Table {
    let mut table = facts(&conditions.guest, &guest::ALL);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("RAM", size(bytes(conditions.guest_memory)));
    row("disk", size(bytes(conditions.guest_disk)));
    table
}

fn artifacts(conditions: &Conditions) -> Markup {
    let mut table = Table::new(["file", "SHA-256"]);
    for (name, digest) in &conditions.artifacts {
        table.row([printable(name), digest.to_string()]);
    }
    html! {
        @if table.rows.is_empty() { p { "No artifact was noted." } }
        @else { (table.codes("Artifacts by their digests")) }
    }
}

fn settings(conditions: &Conditions) -> Markup {
    let mut table = Table::new(["setting", "before", "during", "after"]);
    for setting in &conditions.settings {
        let cell = |value: &Option<String>| match value {
            Some(value) => printable(value),
            None => MISSING.to_owned(),
        };
        let cells = [&setting.before, &setting.during, &setting.after].map(cell);
        let [before, during, after] = cells;
        table.row([printable(&setting.name), before, during, after]);
    }
    html! {
        @if table.rows.is_empty() { p { "No host setting was noted." } }
        @else {
            (table.codes("Host settings before, during and after the run"))
            p { (restored(conditions)) }
         }
    }
}

/// Whether the run left the host as it was.
fn restored(conditions: &Conditions) -> String {
    let both = conditions.settings.iter();
    let both = both
        .filter_map(|setting| Some((setting, setting.before.as_ref()?, setting.after.as_ref()?)));
    let changed = both.filter(|(_, before, after)| before != after);
    let names: Vec<_> = changed
        .map(|(setting, ..)| printable(&setting.name))
        .collect();
    match names.as_slice() {
        [] => "After the run, each setting that could be read was as before.".to_owned(),
        names => format!(
            "After the run, these were not as before: {}.",
            names.join(", ")
        ),
    }
}

fn findings(findings: &[String]) -> Markup {
    html! {
        @if findings.is_empty() { p { code { "imgbuild check" } " found nothing to be set right." } }
        @else {
            p { code { "imgbuild check" } " found these not as they should be:" }
            ul { @for finding in findings { li { code { (printable(finding)) } } } }
        }
    }
}
