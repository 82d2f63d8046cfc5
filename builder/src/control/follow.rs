//! Follows a fleet from a thread of its own, over all its supervisors.

use std::time::{Duration, Instant};

use super::bridge::Detail;
use super::client::{Client, ClientError, Next};
use super::types::{Event, Fleet};
use crate::interrupt::{Background, Interrupt};

/// How long it takes to ask again a supervisor that does not listen.
const AGAIN: Duration = Duration::from_millis(200);

/// What is heard of a fleet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heard<'a> {
    /// How all of it stands.
    Fleet(&'a Fleet),
    /// What changed.
    Event(&'a Event),
    /// Nothing.
    Nothing,
}

/// Follows a fleet until what this gives is dropped. Calls `hear` with what is heard, and
/// at the time that it gives, if not before: also while there is no supervisor.
pub(crate) fn follow(
    client: Client,
    end: Interrupt,
    mut hear: impl FnMut(Heard<'_>) -> Instant + Send + 'static,
) -> Background {
    Background::start(end, move |end| {
        while !end.requested() {
            if let Err(error) = listen(&client, end, &mut hear) {
                tracing::debug!("following the fleet: {error}");
            }
            hear(Heard::Nothing);
            end.wait(AGAIN);
        }
    })
}

/// Listens to one supervisor for as long as it speaks.
fn listen(
    client: &Client,
    end: &Interrupt,
    hear: &mut impl FnMut(Heard<'_>) -> Instant,
) -> Result<(), ClientError> {
    // Before the fleet is looked at, so that nothing is missed between.
    let mut events = client.events()?;
    let mut due = hear(Heard::Fleet(&client.fleet(Detail::Whole)?));
    while !end.requested() {
        due = match events.next(Some(due))? {
            Next::Item(Event::Lost { .. }) => hear(Heard::Fleet(&client.fleet(Detail::Whole)?)),
            Next::Item(event) => hear(Heard::Event(&event)),
            Next::Late => hear(Heard::Nothing),
            Next::End => return Ok(()),
        };
    }
    Ok(())
}
