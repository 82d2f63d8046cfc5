//! `imgbuild stop`, `kill`, `restart` and `scale`.

use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::target::{Target, chosen};
use super::{Context, Exit, Failure, print};
use crate::fleet::api::bridge::Act;
use crate::fleet::api::client::Client;
use crate::fleet::api::types::{ActAnswer, ActRequest, Selection};
use crate::fleet::guest::printable;
use crate::fleet::select::Selector;
use crate::interrupt::Interrupt;
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

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    guests: Guests,

    /// How long guests may take to power off before they are killed
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration,
        default_value = "10s")]
    grace: Duration,
}

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub struct Kill {
    #[command(flatten)]
    guests: Guests,
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    guests: Guests,

    /// How long guests may take to power off before they are killed
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration,
        default_value = "10s")]
    grace: Duration,
}

/// Arguments of `scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// Number of guests wanted; those with the highest numbers come or go
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    count: u32,

    #[command(flatten)]
    target: Target,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Stop {
    pub fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = self.guests.target.client(context)?;
        if !self.guests.all {
            return self.guests.act(&client, Act::Stop, Some(self.grace));
        }
        // Before it ends, lest its number is another's.
        let supervisor = client.fleet(false)?.supervisor.and_then(|supervisor| {
            let pid = Pid::from_raw(supervisor.pid.cast_signed())?;
            pidfd_open(pid, PidfdFlags::empty()).ok()
        });
        let exit = self.guests.act(&client, Act::Stop, Some(self.grace))?;
        if let Some(supervisor) = supervisor {
            let end = PollFd::new(&supervisor, PollFlags::IN);
            wait(end, &context.interrupt)?;
        }
        Ok(exit)
    }
}

/// Waits for an event, or the user's interrupt.
fn wait(event: PollFd<'_>, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut fds = [event, PollFd::new(interrupt, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) if !interrupt.requested() => {}
            other => {
                other?;
                return Ok(());
            }
        }
    }
}

impl Kill {
    pub fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = self.guests.target.client(context)?;
        self.guests.act(&client, Act::Kill, None)
    }
}

impl Restart {
    pub fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = self.guests.target.client(context)?;
        self.guests.act(&client, Act::Restart, Some(self.grace))
    }
}

impl Scale {
    pub fn run(self, context: &Context) -> Result<Exit, Failure> {
        let answer = self.target.client(context)?.scale(self.count)?;
        told(&answer, self.json)
    }
}

impl Guests {
    fn act(&self, client: &Client, act: Act, grace: Option<Duration>) -> Result<Exit, Failure> {
        let guests = if self.all {
            Selection::All
        } else {
            let fleet = client.fleet(true)?;
            let ids = chosen(&self.these, &fleet)?;
            Selection::These(ids.iter().map(ToString::to_string).collect())
        };
        let request = ActRequest {
            guests,
            grace_seconds: grace.map(|grace| grace.as_secs_f64()),
        };
        told(&client.act(act, &request)?, self.json)
    }
}

/// Says what was done, and which exit code that is.
fn told(answer: &ActAnswer, json: bool) -> Result<Exit, Failure> {
    if json {
        print(&serde_json::to_string(answer)?)?;
    }
    for refusal in &answer.refused {
        tracing::warn!("{}: {}", printable(&refusal.id), printable(&refusal.reason));
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
