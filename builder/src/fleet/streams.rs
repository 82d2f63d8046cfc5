//! The clients that listen to a fleet's events and to its guests' consoles.

use std::collections::HashMap;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::control::types::Event;
use crate::units::GuestIndex;

/// Those who listen. One who reads too slowly loses events, and reads how
/// many.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    events: Vec<(Sender<Event>, u64)>,
    consoles: HashMap<GuestIndex, Vec<Sender<Vec<u8>>>>,
}

impl Streams {
    /// Adds one who listens, and is told `first` how the fleet stands.
    pub(crate) fn add_events(&mut self, events: Sender<Event>, first: Event) {
        // A fleet at rest tells them nothing, by which they would be found gone.
        self.events.retain(|(listener, _)| !listener.is_closed());
        if events.try_send(first).is_ok() {
            self.events.push((events, 0));
        }
    }

    pub(crate) fn add_console(&mut self, guest: GuestIndex, lines: Sender<Vec<u8>>) {
        self.consoles.retain(|_, listeners| {
            listeners.retain(|listener| !listener.is_closed());
            !listeners.is_empty()
        });
        self.consoles.entry(guest).or_default().push(lines);
    }

    /// Tells everybody of an event.
    pub(crate) fn send(&mut self, event: &Event) {
        self.events.retain_mut(|(listener, lost)| {
            if *lost > 0 && listener.try_send(Event::Lost { events: *lost }).is_ok() {
                *lost = 0;
            }
            match listener.try_send(event.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    *lost += 1;
                    true
                }
                Err(TrySendError::Closed(_)) => false,
            }
        });
    }

    /// Tells who listens to a guest's console of a line.
    pub(crate) fn send_console(&mut self, guest: GuestIndex, line: &[u8]) {
        let Some(listeners) = self.consoles.get_mut(&guest) else {
            return;
        };
        listeners.retain(|listener| {
            !matches!(
                listener.try_send(line.to_vec()),
                Err(TrySendError::Closed(_))
            )
        });
        if listeners.is_empty() {
            self.consoles.remove(&guest);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;

    use super::*;
    use crate::control::types::Stage;

    fn guest(index: u32) -> GuestIndex {
        GuestIndex::new(index).unwrap()
    }

    fn event() -> Event {
        Event::Stage {
            stage: Stage::Up,
            held_back: None,
        }
    }

    #[test]
    fn a_slow_listener_reads_what_it_lost() {
        let mut streams = Streams::default();
        let (slow, mut slowly) = channel(3);
        let (gone, listener) = channel(3);
        drop(listener);
        let first = Event::Lost { events: 99 };
        streams.add_events(slow, first.clone());
        streams.add_events(gone, first.clone());
        for _ in 0..5 {
            streams.send(&event());
        }
        assert_eq!(streams.events.len(), 1);
        assert_eq!(slowly.try_recv().unwrap(), first);
        assert_eq!(slowly.try_recv().unwrap(), event());
        assert_eq!(slowly.try_recv().unwrap(), event());
        streams.send(&event());
        assert_eq!(slowly.try_recv().unwrap(), Event::Lost { events: 3 });
        assert_eq!(slowly.try_recv().unwrap(), event());
    }

    #[test]
    fn who_has_gone_is_forgotten_when_another_comes() {
        let mut streams = Streams::default();
        for which in 0..3 {
            let (events, listener) = channel(1);
            streams.add_events(events, event());
            drop(listener);
            let (lines, _) = channel(1);
            streams.add_console(guest(which), lines);
        }
        assert_eq!(streams.events.len(), 1);
        assert_eq!(streams.consoles.keys().collect::<Vec<_>>(), [&guest(2)]);
    }

    #[test]
    fn a_console_reaches_those_who_listen_to_it() {
        let mut streams = Streams::default();
        let (lines, mut listener) = channel(1);
        streams.add_console(guest(7), lines);
        streams.send_console(guest(6), b"other");
        streams.send_console(guest(7), b"one");
        streams.send_console(guest(7), b"lost");
        assert_eq!(listener.try_recv().unwrap(), b"one");
        drop(listener);
        streams.send_console(guest(7), b"two");
        assert!(streams.consoles.is_empty());
    }
}
