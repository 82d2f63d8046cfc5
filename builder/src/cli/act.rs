//! `imgbuild stop`, `kill`, `restart` and `scale`.

use std::time::Duration;

use clap::Args;

use super::output::{Form, print_json};
use super::target::{Target, chosen};
use super::{Context, Exit, Failure};
use crate::control::bridge::{Act, Detail};
use crate::control::client::{Client, ClientError};
use crate::control::ending;
use crate::control::select::Selector;
use crate::control::types::{ActAnswer, ActRequest, Selection};
use crate::text::printable;
use crate::units::counted;

/// The guests that something is done to.
#[derive(Debug, Args)]
struct Guests {
    /// Guests, such as g00007, 7, 100-199 or 'g000*'
    #[arg(
        value_name = "GUESTS",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    these: Vec<Selector>,

    /// Every guest
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    target: Target,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The same, of guests that are asked to power off.
#[derive(Debug, Args)]
struct Graceful {
    #[command(flatten)]
    guests: Guests,

    /// How long guests may take to power off before they are killed
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration,
        default_value = "10s")]
    grace: Duration,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(mut_arg("all", |all| {
    all.help("End the fleet: power off every guest, then remove the fleet")
}))]
pub(super) struct Stop {
    #[command(flatten)]
    graceful: Graceful,
}

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub(super) struct Kill {
    #[command(flatten)]
    guests: Guests,
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub(super) struct Restart {
    #[command(flatten)]
    graceful: Graceful,
}

/// Arguments of `scale`.
#[derive(Debug, Args)]
pub(super) struct Scale {
    /// New number of guests; those with the highest numbers are added or removed
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    count: u32,

    #[command(flatten)]
    target: Target,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Stop {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let Graceful { guests, grace } = self.graceful;
        let client = guests.target.client(context)?;
        if !guests.all {
            return guests.act(&client, Act::Stop, Some(grace));
        }
        let (answer, supervisor) = match ending::end(&client, grace) {
            // By itself, or by another's `stop`: as was wanted.
            Err(ClientError::Ended { .. }) => (ActAnswer::default(), None),
            other => other?,
        };
        let exit = report(&answer, guests.form())?;
        if let Some(supervisor) = supervisor {
            ending::wait(&supervisor, &context.interrupt)?;
        }
        Ok(exit)
    }
}

impl Kill {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = self.guests.target.client(context)?;
        self.guests.act(&client, Act::Kill, None)
    }
}

impl Restart {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let Graceful { guests, grace } = self.graceful;
        let client = guests.target.client(context)?;
        guests.act(&client, Act::Restart, Some(grace))
    }
}

impl Scale {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let answer = self.target.client(context)?.scale(self.count)?;
        let form = if self.json { Form::Json } else { Form::Text };
        report(&answer, form)
    }
}

impl Guests {
    fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }

    fn act(&self, client: &Client, act: Act, grace: Option<Duration>) -> Result<Exit, Failure> {
        let guests = if self.all {
            Selection::All
        } else {
            let fleet = client.fleet(Detail::Whole)?;
            Selection::These(chosen(&self.these, &fleet)?)
        };
        let request = ActRequest {
            guests,
            grace_seconds: grace.map(|grace| grace.as_secs_f64()),
        };
        report(&client.act(act, &request)?, self.form())
    }
}

/// Says what was done, and which exit code that is.
fn report(answer: &ActAnswer, form: Form) -> Result<Exit, Failure> {
    if form == Form::Json {
        print_json(answer)?;
    }
    for refusal in &answer.refused {
        tracing::warn!("{}: {}", refusal.id, printable(&refusal.reason));
    }
    tracing::info!("{} done", counted(answer.done.len() as u64, "guest"));
    Ok(exit(answer))
}

fn exit(answer: &ActAnswer) -> Exit {
    match (answer.done.len(), answer.refused.len()) {
        (_, 0) => Exit::Done,
        (0, _) => Exit::Failed,
        _ => Exit::PartOfFleet,
    }
}
