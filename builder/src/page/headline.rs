//! The figures that are quoted first, and under which conditions they hold.

use maud::{Markup, html};

use super::values::{self, MISSING, figure, known, percent, seconds, whole};
use crate::bundle::conditions::{Condition, guest};
use crate::bundle::figures::bytes;
use crate::bundle::types::{Conditions, Headline, Outcome, Run};
use crate::text::printable;

pub(super) fn title(run: &Run) -> String {
    format!(
        "{}: {} guests, density run",
        printable(&run.fleet),
        whole(run.headline.guests)
    )
}

pub(super) fn header(run: &Run) -> Markup {
    let lasted = seconds(run.lasted);
    let began = values::date(run.began).unwrap_or_else(|| MISSING.to_owned());
    let (how, why) = outcome(&run.outcome);
    html! {
        p.kind { "VM density run, imgbuild " (printable(&run.imgbuild)) ", " (began) ", took " (lasted) }
        h1 { (printable(&run.fleet)) }
        p.regime { (regime(&run.conditions)) }
        p.outcome data-outcome=(how) { b { (how) } ": " (why) }
        (figures(&run.headline))
    }
}

/// In which regime the figures hold: without it they say nothing.
pub(super) fn regime(conditions: &Conditions) -> String {
    let fact = |condition: Condition| conditions.guest.get(condition.name);
    let accelerator = fact(guest::ACCEL).map_or("accelerator not known", |name| name.as_str());
    let sharing = fact(guest::SHARING).map_or("not known", |name| name.as_str());
    let cpus = match conditions.cpus {
        1 => "1 CPU".to_owned(),
        cpus => format!("{} CPUs", whole(cpus)),
    };
    format!(
        "{}, {cpus}, {} of RAM, sharing: {}",
        printable(&accelerator.to_uppercase()),
        values::size(bytes(conditions.memory)),
        printable(sharing)
    )
}

/// How a run ended, in a word and in a sentence.
pub(super) fn outcome(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Running => ("Under way", "this was written while it went on.".to_owned()),
        Outcome::Complete => ("Complete", "it did all that was asked for.".to_owned()),
        Outcome::Full(why) => ("Full", printable(why)),
        Outcome::Interrupted => (
            "Interrupted",
            "its user ended it; what was reached is below.".to_owned(),
        ),
        Outcome::Failed(why) => ("Failed", printable(why)),
    }
}

/// A figure with its machine-readable value, which is empty where there is none.
fn data(name: &str, value: Option<&dyn ToString>, text: &str) -> Markup {
    let value = value.map(ToString::to_string).unwrap_or_default();
    html! { data data-figure=(name) value=(value) { (text) } }
}

/// The same of a figure that may not have been measured.
fn maybe(name: &str, value: Option<f64>, format: fn(f64) -> String) -> Markup {
    let text = value.map_or_else(|| "not measured".to_owned(), format);
    data(
        name,
        value.as_ref().map(|value| value as &dyn ToString),
        &text,
    )
}

fn number(name: &str, value: u32) -> Markup {
    data(name, Some(&value), &whole(value))
}

fn figures(headline: &Headline) -> Markup {
    let a_guest = headline.bytes_a_guest;
    let all_answered = headline.asked > 0 && headline.answered == headline.asked;
    let cpu = |cpu: f64| format!("{}/s", seconds(cpu));
    html! {
        dl.headline {
            div {
                dt { "Guests" }
                dd { (number("guests", headline.guests)) small { (number("ready", headline.ready)) " ready" } }
            }
            div {
                dt { "Guests a GiB of host memory" }
                dd {
                    (maybe("guests_a_gib", headline.guests_a_gib, figure))
                    small {
                        (data("bytes_a_guest", a_guest.as_ref().map(|bytes| bytes as &dyn ToString),
                            &known(a_guest.map(bytes), values::size)))
                        " a guest"
                    }
                }
            }
            div {
                dt { @if all_answered { "All answering in" } @else { "Latest answer after" } }
                dd {
                    (maybe("answered_within", headline.answered_within, seconds))
                    small {
                        (number("answered", headline.answered)) " of " (number("asked", headline.asked))
                        " asked answered"
                    }
                }
            }
            div {
                dt { "Least CPU of a guest" }
                dd {
                    (maybe("least_cpu", headline.least_cpu, cpu))
                    small { "CPU time a second" }
                }
            }
        }
        dl.further {
            div {
                dt { "Logged in by SSH" }
                dd { (number("reached", headline.reached)) " of " (number("tried", headline.tried)) }
            }
            div {
                dt { "Grew in" }
                dd { (data("growing", Some(&headline.growing), &seconds(headline.growing))) }
            }
            div {
                dt { "Most memory on the way" }
                dd { (maybe("peak", headline.peak, |peak| format!("{} × that at the end", figure(peak)))) }
            }
            div {
                dt { "Fairness (Jain’s index)" }
                dd { (maybe("fairness", headline.fairness, figure)) }
            }
            div {
                dt { "Least burn" }
                dd { (maybe("least_burn", headline.least_burn, |least| format!("{} of the median", percent(least)))) }
            }
            div {
                dt { "Memory against the baseline" }
                dd { (maybe("baseline_ratio", headline.baseline_ratio, |ratio| format!("{} × less", figure(ratio)))) }
            }
        }
    }
}
