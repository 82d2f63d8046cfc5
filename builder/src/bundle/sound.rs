//! What every run keeps to, whatever was measured: a run that does not was put
//! together by hand, or by an imgbuild with a bug.

use std::collections::BTreeSet;
use std::ops::Range;

use super::types::{Run, Stage};
use crate::units::GuestIndex;

/// What is wrong with a run, a sentence for each.
pub(super) fn faults(run: &Run) -> Vec<String> {
    let mut faults = Vec::new();
    let mut before: Option<&Stage> = None;
    for stage in &run.stages {
        let place = format!("stage {}", stage.guests);
        if stage.ready > stage.guests {
            faults.push(format!("{place}: more guests were ready than there were"));
        }
        let times = [stage.began, stage.grown, stage.settled, stage.ended];
        if !times.is_sorted() {
            faults.push(format!("{place}: its times are not in order"));
        }
        if before.is_some_and(|before| before.guests > stage.guests || before.ended > stage.began) {
            faults.push(format!("{place}: it does not come after the one before it"));
        }
        before = Some(stage);
        let numbers = numbers(run, stage.guests);
        for (what, guests) in guests_of(stage) {
            faults.extend(of_guests(&format!("{place}, {what}"), &guests, &numbers));
        }
    }
    faults
}

/// The numbers of a run's guests at its last stage.
pub(super) fn all_numbers(run: &Run) -> Range<u32> {
    numbers(run, run.stages.last().map_or(0, |stage| stage.guests))
}

fn numbers(run: &Run, guests: u32) -> Range<u32> {
    let first = run.plan.first.get();
    first..first.saturating_add(guests)
}

fn guests_of(stage: &Stage) -> [(&'static str, Vec<GuestIndex>); 4] {
    [
        ("starts", stage.starts.iter().map(|a| a.guest).collect()),
        ("answers", stage.answers.iter().map(|a| a.guest).collect()),
        ("logins", stage.logins.iter().map(|a| a.guest).collect()),
        ("burns", stage.burns.iter().map(|a| a.guest).collect()),
    ]
}

/// One of the guests that is not of the run, and one that counts twice.
fn of_guests(place: &str, guests: &[GuestIndex], numbers: &Range<u32>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let strange = guests.iter().find(|guest| !numbers.contains(&guest.get()));
    let again = guests.iter().find(|guest| !seen.insert(**guest));
    let strange = strange.map(|guest| format!("{place}: {guest} is not a guest of this stage"));
    let again = again.map(|guest| format!("{place}: {guest} is there twice"));
    strange.into_iter().chain(again).collect()
}
