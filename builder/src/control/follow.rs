//! Follows a fleet from a thread of its own, over all its supervisors.

use std::thread;
use std::time::{Duration, Instant};

use super::bridge::Detail;
use super::client::{Client, ClientError, Next};
use super::types::{Event, Fleet};
use crate::interrupt::Interrupt;

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

/// A fleet that is followed until this is dropped.
#[derive(Debug)]
pub(crate) struct Following {
    end: Interrupt,
    thread: Option<thread::JoinHandle<()>>,
}

impl Following {
    /// Calls `hear` with what is heard, and at the time that it gives, if not before:
    /// also while there is no supervisor.
    pub(crate) fn start(
        client: Client,
        end: Interrupt,
        mut hear: impl FnMut(Heard<'_>) -> Instant + Send + 'static,
    ) -> Self {
        let over = end.clone();
        let follow = move || {
            while !over.requested() {
                if let Err(error) = listen(&client, &over, &mut hear) {
                    tracing::debug!("following the fleet: {error}");
                }
                hear(Heard::Nothing);
                over.wait(AGAIN);
            }
        };
        Self {
            end,
            thread: Some(thread::spawn(follow)),
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.end.raise();
        if let Some(thread) = self.thread.take() {
            // What it panicked of has been printed.
            let _ = thread.join();
        }
    }
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
