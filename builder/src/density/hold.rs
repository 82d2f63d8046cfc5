//! Keeps the full fleet for a while, and replaces what is stopped or killed meanwhile.

use std::time::{Duration, Instant};

use super::ask;
use super::error::DensityError;
use super::stage::Stages;
use crate::bundle::types::{Hold, MemoryFigures};
use crate::control::bridge::{Act, Detail};
use crate::control::client::Client;
use crate::control::types::{ActRequest, Fleet, Selection};
use crate::guest::Desired;
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
    let mut replaced = 0;
    while Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        bar.set_position(time.saturating_sub(left).as_secs());
        subject.pause(PAUSE.min(left))?;
        subject.resume_if_dead()?;
        let fleet = subject.call(|client| client.fleet(Detail::Whole))?;
        replaced += replace(stages, &fleet)?;
    }
    bar.finish_and_clear();
    let fleet = subject.call(|client| client.fleet(Detail::Whole))?;
    let answers = ask::status(subject, &stages.chosen(&fleet.guests))?;
    let after = subject.call(Client::memory)?;
    Ok(Hold {
        began,
        ended: stages.clock.now(),
        memory: [MemoryFigures::of(&memory), MemoryFigures::of(&after)],
        answers: answers.replies,
        replaced,
        restarts: fleet.totals.restarts.saturating_sub(before.totals.restarts),
    })
}

/// Starts the guests again that somebody stopped; gives how many.
fn replace(stages: &Stages<'_>, fleet: &Fleet) -> Result<u32, DensityError> {
    let stopped: Vec<GuestIndex> = (fleet.guests.iter())
        .filter(|guest| guest.desired == Desired::Down && guest.pid.is_none())
        .map(|guest| guest.id)
        .collect();
    if stopped.is_empty() {
        return Ok(0);
    }
    let request = ActRequest {
        guests: Selection::These(stopped),
        grace_seconds: None,
    };
    let answer = (stages.subject).call(|client| client.act(Act::Restart, &request))?;
    Ok(u32::try_from(answer.done.len()).unwrap_or(u32::MAX))
}
