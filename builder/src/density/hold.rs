//! Keeps the full fleet for a while, and replaces what is stopped or killed meanwhile.

use std::collections::BTreeSet;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::ask;
use super::error::DensityError;
use super::stage::Stages;
use super::subject::Subject;
use crate::bundle::types::{Hold, MemoryFigures};
use crate::control::bridge::{Act, Detail};
use crate::control::client::Client;
use crate::control::types::{ActRequest, Fleet, Selection};
use crate::guest::Desired;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::units::GuestIndex;

/// How often it is looked whether guests were stopped.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn hold(stages: &Stages<'_>, time: Duration) -> Result<Hold, DensityError> {
    let subject = stages.subject;
    subject.diary.note(format!(
        "{} is kept for {}",
        subject.name,
        humantime::format_duration(time)
    ));
    let began = stages.clock.now();
    let before = subject.call(|client| client.fleet(Detail::Summary))?;
    let memory = subject.call(Client::memory)?;
    let until = Instant::now() + time;
    let bar = progress::bar(time.as_secs(), "seconds kept");
    let mut replaced = BTreeSet::new();
    let mut replacing = Replacing::new(subject)?;
    while Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        bar.set_position(time.saturating_sub(left).as_secs());
        subject.pause(PAUSE.min(left))?;
        subject.resume_if_dead()?;
        let fleet = subject.call(|client| client.fleet(Detail::Whole))?;
        replaced.extend(replacing.start(&fleet));
    }
    drop(replacing);
    bar.finish_and_clear();
    let fleet = subject.call(|client| client.fleet(Detail::Whole))?;
    let answers = ask::status(subject, &stages.chosen(&fleet.guests))?;
    let after = subject.call(Client::memory)?;
    Ok(Hold {
        began,
        ended: stages.clock.now(),
        memory: [MemoryFigures::of(&memory), MemoryFigures::of(&after)],
        answers: answers.replies,
        replaced: u32::try_from(replaced.len()).unwrap_or(u32::MAX),
        restarts: fleet.totals.restarts.saturating_sub(before.totals.restarts),
    })
}

/// Starts guests again that somebody stopped. The supervisor answers when they are
/// there, which on a full host may be never: whoever holds the fleet does not wait for it.
struct Replacing {
    client: Client,
    end: Interrupt,
    asked: Option<JoinHandle<()>>,
}

impl Replacing {
    fn new(subject: &Subject<'_>) -> Result<Self, DensityError> {
        let end = Interrupt::never().map_err(DensityError::Watch)?;
        Ok(Self {
            client: Client::new(&subject.name, &subject.paths, &end),
            end,
            asked: None,
        })
    }

    /// Has the guests of the fleet started again that are stopped, once those of the
    /// last time are there; gives them.
    fn start(&mut self, fleet: &Fleet) -> Vec<GuestIndex> {
        if self
            .asked
            .as_ref()
            .is_some_and(|asked| !asked.is_finished())
        {
            return Vec::new();
        }
        let stopped: Vec<GuestIndex> = (fleet.guests.iter())
            .filter(|guest| guest.desired == Desired::Down && guest.pid.is_none())
            .map(|guest| guest.id)
            .collect();
        if !stopped.is_empty() {
            let client = self.client.clone();
            let request = ActRequest {
                guests: Selection::These(stopped.clone()),
                grace_seconds: None,
            };
            self.asked = Some(thread::spawn(move || {
                // One that was not started is stopped at the next look.
                if let Err(error) = client.act(Act::Restart, &request) {
                    tracing::debug!("starting stopped guests: {error}");
                }
            }));
        }
        stopped
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        self.end.raise();
        if let Some(asked) = self.asked.take() {
            // What it panicked of has been printed.
            let _ = asked.join();
        }
    }
}
