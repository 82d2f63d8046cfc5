//! What a launch prints as it goes.

use std::collections::BTreeMap;

use indicatif::ProgressBar;

use crate::cli::output::Form;
use crate::control::types::{Event, Guest, Stage};
use crate::guest::Phase;
use crate::guest::counts::{Counts, listed, recount};
use crate::launch::{LaunchEvent, Milestone};
use crate::outlet::{self, Stream};
use crate::progress;
use crate::text::{self, printable};
use crate::units::{GuestIndex, counted};

/// Prints events as they come, and a bar while guests start.
pub(super) struct Printer {
    form: Form,
    bar: ProgressBar,
    /// The state that each guest was last in.
    states: BTreeMap<GuestIndex, Phase>,
    /// Guests in each state.
    counts: Counts,
}

impl Printer {
    pub(super) fn new(form: Form, count: Option<u32>) -> Self {
        let loss = match form {
            Form::Json => json_of_loss,
            Form::Text => sentence_of_loss,
        };
        outlet::on_loss(Stream::Stdout, move |events| loss(events).into());
        Self {
            form,
            bar: progress::bar(count.unwrap_or(0).into(), "guests ready"),
            states: BTreeMap::new(),
            counts: Counts::new(),
        }
    }

    /// Prints an event, and waits for nobody to read it: guests are to be heard
    /// meanwhile.
    pub(super) fn event(&mut self, event: &LaunchEvent) {
        let mut line = match self.form {
            Form::Json => text::json(event).expect("events have nothing but strings as keys"),
            Form::Text => printable(&sentence(event)),
        };
        self.talk(event);
        if line.is_empty() {
            return;
        }
        line.push('\n');
        progress::above(|| match event {
            LaunchEvent::Launch(_) => outlet::insist(Stream::Stdout, line.into()),
            LaunchEvent::Fleet(_) => outlet::offer(Stream::Stdout, line.into()),
        });
    }

    pub(super) fn talk(&mut self, event: &LaunchEvent) {
        match event {
            LaunchEvent::Launch(Milestone::Check(report)) if report.ready => {
                tracing::info!("{}", report.verdict);
            }
            LaunchEvent::Launch(Milestone::Fleet {
                ssh_config: Some(config),
                ..
            }) => tracing::info!(
                "log in with `imgbuild ssh`, or ssh -F '{}'",
                config.display()
            ),
            LaunchEvent::Launch(Milestone::Detached { fleet, pid, log }) => tracing::info!(
                "process {pid} supervises {fleet}, and writes to {}; `imgbuild wait --ready` waits \
                 for its guests, `imgbuild stop --all` ends it",
                log.display()
            ),
            LaunchEvent::Fleet(Event::Guest(guest)) => self.count(guest),
            LaunchEvent::Fleet(Event::Stage { stage, held_back }) => match (stage, held_back) {
                (Stage::Stopping, _) => {}
                (_, Some(why)) => tracing::warn!("no more guests are started for now: {why}"),
                (Stage::Up, None) => self.bar.finish_and_clear(),
                (_, None) => {}
            },
            LaunchEvent::Launch(_) | LaunchEvent::Fleet(_) => {}
        }
    }

    /// Shows how many guests are in which state.
    pub(super) fn count(&mut self, guest: &Guest) {
        let before = self.states.insert(guest.id, guest.state);
        recount(&mut self.counts, before, Some(guest.state));
        if self.bar.is_finished() {
            return;
        }
        let mut others = self.counts.clone();
        let ready = others.remove(&Phase::Ready).unwrap_or(0);
        self.bar.set_position(ready.into());
        let separator = if others.is_empty() { "" } else { ", " };
        self.bar
            .set_message(format!("guests ready{separator}{}", listed(&others)));
    }
}

/// An event for people; empty for what the progress bar shows already.
pub(super) fn sentence(event: &LaunchEvent) -> String {
    match event {
        LaunchEvent::Fleet(Event::Guest(guest)) => guest_sentence(guest),
        LaunchEvent::Launch(Milestone::Summary(summary)) => {
            let tally = &summary.tally;
            format!(
                "{}: {} of {} ready in {:.1} s, {} burning, {} failed, {} exited, {} not started, \
                 {} without an answer, {}; all stopped",
                summary.fleet,
                tally.ready,
                tally.count,
                tally.start_seconds,
                tally.burning,
                tally.failed,
                tally.exited,
                tally.planned,
                tally.silent,
                counted(tally.restarts, "restart")
            )
        }
        _ => String::new(),
    }
}

pub(super) fn sentence_of_loss(events: u64) -> String {
    let lost = counted(events, "event");
    format!("({lost} dropped here, because stdout was read too slowly)\n")
}

/// What stands in the place of events that stdout did not take.
pub(super) fn json_of_loss(events: u64) -> String {
    let lost = serde_json::to_string(&Event::Lost { events });
    lost.expect("events have nothing but strings as keys") + "\n"
}

pub(super) fn guest_sentence(guest: &Guest) -> String {
    let id = guest.id;
    let because = guest
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"));
    match guest.state {
        Phase::Ready => match guest.ready_after {
            Some(seconds) => format!("{id} ready after {seconds:.2} s"),
            None => format!("{id} ready"),
        },
        Phase::Unresponsive | Phase::Exited | Phase::Restarting | Phase::Failed => {
            format!("{id} {}{because}", guest.state.name())
        }
        Phase::Planned
        | Phase::Starting
        | Phase::Restoring
        | Phase::Booting
        | Phase::Unsupervised => String::new(),
    }
}
