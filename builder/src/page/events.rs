//! What happened, in order.

use maud::html;

use super::document::Section;
use super::table::Table;
use crate::bundle::types::{Happening, Run};
use crate::text::printable;

/// As many as are listed at the begin and at the end; `run.json` has all.
const LISTED: usize = 150;
/// More than these are folded.
const OPEN: usize = 25;

pub(super) fn section(run: &Run) -> Section {
    let all = &run.events;
    let head = all.iter().take(LISTED);
    let tail = all
        .iter()
        .skip(LISTED.max(all.len().saturating_sub(LISTED)));
    let left_out = all.len().saturating_sub(2 * LISTED);
    let mut table = Table::new(["after", "what"]);
    head.for_each(|event| table.row(row(event)));
    if left_out > 0 {
        table.row([String::new(), format!("{left_out} more are in run.json")]);
    }
    tail.for_each(|event| table.row(row(event)));
    let words = html! {
        @if all.is_empty() { p { "Nothing was noted." } }
        @else if all.len() <= OPEN { (table.events("Events")) }
        @else {
            details {
                summary { (all.len()) " events" }
                (table.events("Events"))
            }
        }
    };
    Section::new("events", "Events", &words, &[])
}

/// When, to the millisecond: events are looked up in logs.
fn row(event: &Happening) -> [String; 2] {
    let (seconds, rest) = (event.at_ms / 1000, event.at_ms % 1000);
    [format!("{seconds}.{rest:03} s"), printable(&event.what)]
}
