//! Follows a fleet from a thread of its own, over all its supervisors.

use std::time::{Duration, Instant};

use super::client::{Client, ClientError, Next};
use super::types::Event;
use crate::interrupt::{Background, Interrupt};

/// How long it takes to ask again a supervisor that does not listen.
const AGAIN: Duration = Duration::from_millis(200);

/// What is heard of a fleet.
#[derive(Debug)]
pub(crate) enum Heard {
    /// How all of it stands, or what changed.
    Event(Event),
    /// Nothing.
    Nothing,
    /// Nothing, and nobody speaks: it has no supervisor, or that one is not reached.
    Silence(ClientError),
}

/// Follows a fleet until what this gives is dropped. Calls `hear` with what is heard, and
/// at the time that it gives, if not before: also while there is no supervisor.
pub(crate) fn follow(
    client: Client,
    end: Interrupt,
    mut hear: impl FnMut(Heard) -> Instant + Send + 'static,
) -> Background {
    Background::start(end, move |end| {
        while !end.requested() {
            let heard = match listen(&client, end, &mut hear) {
                Ok(()) => Heard::Nothing,
                Err(error) => Heard::Silence(error),
            };
            hear(heard);
            end.wait(AGAIN);
        }
    })
}

/// Listens to one supervisor for as long as it speaks, and nothing was lost.
fn listen(
    client: &Client,
    end: &Interrupt,
    hear: &mut impl FnMut(Heard) -> Instant,
) -> Result<(), ClientError> {
    let (fleet, mut events) = client.watch()?;
    let mut due = hear(Heard::Event(Event::Snapshot(Box::new(fleet))));
    while !end.requested() {
        due = match events.next(Some(due))? {
            Next::Item(Event::Lost { .. }) | Next::End => return Ok(()),
            Next::Item(event) => hear(Heard::Event(event)),
            Next::Late => hear(Heard::Nothing),
        };
    }
    Ok(())
}
