//! How a fleet stands, as its snapshots and events say: pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::types::{Event, Fleet, Guest, Stage};
use crate::guest::Phase;
use crate::guest::counts::{Counts, count};
use crate::units::GuestIndex;

/// The present state of a fleet; that of none at first.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// The fleet as its last snapshot had it; its guests, counts and stage are below.
    fleet: Option<Fleet>,
    pub stage: Option<Stage>,
    /// Why no more guests are started.
    pub held_back: Option<String>,
    guests: BTreeMap<GuestIndex, Standing>,
}

/// A guest, and when it was heard of.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub guest: Guest,
    pub heard: Instant,
}

impl Standing {
    /// How long it has been in its state.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        let then = Duration::try_from_secs_f64(self.guest.for_seconds).unwrap_or_default();
        then.saturating_add(now.saturating_duration_since(self.heard))
    }
}

impl Picture {
    /// Takes over how the fleet stands.
    pub(crate) fn take(&mut self, fleet: Fleet, now: Instant) {
        self.stage = Some(fleet.stage);
        self.held_back.clone_from(&fleet.held_back);
        let mut fleet = fleet;
        let guests = std::mem::take(&mut fleet.guests).into_iter();
        let standing = |guest: Guest| (guest.id, Standing { guest, heard: now });
        self.guests = guests.map(standing).collect();
        self.fleet = Some(fleet);
    }

    /// Takes an event; after [`Event::Lost`] only a snapshot makes the picture true.
    pub(crate) fn apply(&mut self, event: Event, now: Instant) {
        match event {
            Event::Snapshot(fleet) => self.take(*fleet, now),
            Event::Guest(guest) => {
                self.guests.insert(guest.id, Standing { guest, heard: now });
            }
            Event::Stage { stage, held_back } => {
                self.stage = Some(stage);
                self.held_back = held_back;
            }
            Event::Lost { .. } => {}
        }
    }

    /// The fleet as its last snapshot had it, without its guests.
    pub(crate) fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// The guests, in order.
    pub(crate) fn guests(&self) -> impl Iterator<Item = &Guest> {
        self.guests.values().map(|standing| &standing.guest)
    }

    pub(crate) fn standing(&self, guest: GuestIndex) -> Option<&Standing> {
        self.guests.get(&guest)
    }

    pub(crate) fn counts(&self) -> Counts {
        count(self.guests().map(|guest| guest.state))
    }

    pub(crate) fn in_phase(&self, phase: Phase) -> usize {
        self.guests().filter(|guest| guest.state == phase).count()
    }

    /// Guests that came up, and have not gone.
    pub(crate) fn up(&self) -> usize {
        self.in_phase(Phase::Ready) + self.in_phase(Phase::Unresponsive)
    }

    /// Guests that have a process.
    pub(crate) fn alive(&self) -> usize {
        self.guests().filter(|guest| guest.pid.is_some()).count()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::control::types::{BurnTotals, Totals};
    use crate::guest::Desired;

    pub(crate) fn guest(index: u32, state: Phase) -> Guest {
        Guest {
            id: GuestIndex::new(index).unwrap(),
            state,
            desired: Desired::Up,
            pid: None,
            for_seconds: 0.0,
            ready_after: None,
            restarts: 0,
            unresponsive: 0,
            reason: None,
            ssh: None,
            burn: None,
        }
    }

    pub(crate) fn fleet(stage: Stage, states: &[Phase]) -> Fleet {
        let guests = (0..).zip(states).map(|(index, state)| guest(index, *state));
        Fleet {
            api: 1,
            fleet: "f".to_owned(),
            host: "h".to_owned(),
            stage,
            supervisor: None,
            wanted: 0,
            counts: BTreeMap::new(),
            held_back: None,
            forced: Vec::new(),
            totals: Totals::default(),
            burn: BurnTotals::default(),
            guests: guests.collect(),
        }
    }

    #[test]
    fn events_change_the_picture_and_a_snapshot_replaces_it() {
        let mut picture = Picture::default();
        let now = Instant::now();
        let snapshot = |states| Event::Snapshot(Box::new(fleet(Stage::Starting, states)));
        picture.apply(snapshot(&[Phase::Ready, Phase::Booting]), now);
        assert_eq!((picture.up(), picture.alive()), (1, 0));
        let ready = Guest {
            pid: Some(7),
            for_seconds: 1.5,
            ..guest(1, Phase::Ready)
        };
        picture.apply(Event::Guest(ready), now);
        picture.apply(Event::Lost { events: 1 }, now);
        assert_eq!((picture.up(), picture.alive()), (2, 1));
        let standing = picture.standing(GuestIndex::new(1).unwrap()).unwrap();
        let later = now + Duration::from_secs(2);
        assert_eq!(standing.age(later), Duration::from_millis(3_500));
        let stage = Event::Stage {
            stage: Stage::Up,
            held_back: Some("no memory".to_owned()),
        };
        picture.apply(stage, now);
        assert_eq!(picture.stage, Some(Stage::Up));
        assert_eq!(picture.held_back.as_deref(), Some("no memory"));

        // Of a smaller number.
        picture.apply(snapshot(&[Phase::Unresponsive]), now);
        assert_eq!(picture.counts(), Counts::from([(Phase::Unresponsive, 1)]));
        assert_eq!(
            (picture.stage, &picture.held_back),
            (Some(Stage::Starting), &None)
        );
        assert!(picture.fleet().unwrap().guests.is_empty());
    }

    #[test]
    fn an_age_that_is_none_is_no_time() {
        let now = Instant::now();
        for seconds in [-1.0, f64::NAN, 1e300] {
            let guest = Guest {
                for_seconds: seconds,
                ..guest(0, Phase::Ready)
            };
            assert_eq!(Standing { guest, heard: now }.age(now), Duration::ZERO);
        }
    }
}
