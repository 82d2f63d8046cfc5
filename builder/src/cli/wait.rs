//! `imgbuild wait`.

use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;

use super::target::{Target, chosen};
use super::{Context, Exit, Failure};
use crate::control::client::{Client, Next, Stream};
use crate::control::select::Selector;
use crate::control::types::Event;
use crate::control::waiting::{Outcome, Waiting};
use crate::guest::Phase;
use crate::guest::counts::listed;
use crate::progress;

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Wait until all chosen guests are ready at the same time; fail once one
    /// cannot become ready
    #[arg(long, required = true)]
    ready: bool,

    /// Guests, such as g00007, 7, 100-199 or 'g000*' [default: all]
    guests: Vec<Selector>,

    #[command(flatten)]
    target: Target,

    /// Give up after this long [default: never]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

impl Wait {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let until = self
            .timeout
            .and_then(|time| Instant::now().checked_add(time));
        let client = self.target.client(context)?;
        let (mut events, mut waiting) = self.look(&client)?;
        let bar = progress::bar(0, "guests ready");
        let exit = loop {
            show(&bar, &waiting);
            if let Some(outcome) = waiting.outcome() {
                break say(outcome, &waiting);
            }
            match events.next(until)? {
                Next::Item(Event::Lost { .. }) => (events, waiting) = self.look(&client)?,
                Next::Item(event) => waiting.apply(event),
                Next::End => break say(Outcome::Ended, &waiting),
                Next::Late => {
                    tracing::error!("timed out: {}", listed(&waiting.counts()));
                    break Exit::Failed;
                }
            }
        };
        bar.finish_and_clear();
        Ok(exit)
    }

    fn look(&self, client: &Client) -> Result<(Stream<Event>, Waiting), Failure> {
        let (fleet, events) = client.watch()?;
        let ids = if self.guests.is_empty() {
            None
        } else {
            Some(chosen(&self.guests, &fleet)?.into_iter().collect())
        };
        Ok((events, Waiting::new(ids, fleet)))
    }
}

fn show(bar: &ProgressBar, waiting: &Waiting) {
    let counts = waiting.counts();
    bar.set_length(counts.values().copied().map(u64::from).sum());
    bar.set_position(counts.get(&Phase::Ready).copied().unwrap_or(0).into());
    bar.set_message(listed(&counts));
}

fn say(outcome: Outcome, waiting: &Waiting) -> Exit {
    let counts = listed(&waiting.counts());
    match outcome {
        Outcome::Ready => {
            tracing::info!("{counts}");
            Exit::Done
        }
        Outcome::Part => {
            tracing::error!("not all guests can become ready: {counts}; `imgbuild ps` says why");
            Exit::PartOfFleet
        }
        Outcome::Ended => {
            tracing::error!("the fleet is ending: {counts}");
            Exit::Failed
        }
    }
}
