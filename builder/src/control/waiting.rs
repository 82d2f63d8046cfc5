//! Waiting for guests to be ready: pure, fed by the events of a fleet.

use std::collections::HashSet;
use std::time::Instant;

use super::picture::Picture;
use super::types::{Event, Fleet, Stage};
use crate::guest::counts::{Counts, count};
use crate::guest::{Desired, Phase};
use crate::units::GuestIndex;

/// Guests that are waited for.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Those chosen; all of the fleet, and those that come, without.
    chosen: Option<HashSet<GuestIndex>>,
    picture: Picture,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every guest that is to be up is ready.
    Ready,
    /// Some are not, and will not be.
    Part,
    Ended,
}

impl Waiting {
    /// Waits for these guests of `fleet`.
    pub(crate) fn new(chosen: Option<HashSet<GuestIndex>>, fleet: Fleet) -> Self {
        let mut picture = Picture::default();
        picture.take(fleet, Instant::now());
        Self { chosen, picture }
    }

    /// Takes an event; [`Event::Lost`] calls for a new value.
    pub(crate) fn apply(&mut self, event: Event) {
        self.picture.apply(event, Instant::now());
    }

    fn states(&self) -> impl Iterator<Item = Phase> {
        let is_chosen = |id| (self.chosen.as_ref()).is_none_or(|ids| ids.contains(id));
        let up = self
            .picture
            .guests()
            .filter(move |guest| guest.desired == Desired::Up && is_chosen(&guest.id));
        up.map(|guest| guest.state)
    }

    /// Guests in each state, of those that are to be up.
    pub(crate) fn counts(&self) -> Counts {
        count(self.states())
    }

    /// How the wait ended, if it did.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        if matches!(
            self.picture.stage,
            Some(Stage::Stopping | Stage::Orphaned | Stage::Lost)
        ) {
            return Some(Outcome::Ended);
        }
        let given_up = |state| matches!(state, Phase::Failed | Phase::Exited);
        // Held back are those that would come next, and nothing else is under way.
        let held_back = |state| matches!(state, Phase::Planned | Phase::Restarting | Phase::Ready);
        if self.states().all(|state| state == Phase::Ready) {
            Some(Outcome::Ready)
        } else if self.states().any(given_up)
            || (self.picture.stage == Some(Stage::Settled) && self.states().all(held_back))
        {
            Some(Outcome::Part)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::control::picture::tests::{fleet, guest};
    use crate::control::types::Guest;

    fn waiting(stage: Stage, states: &[Phase], chosen: Option<&[u32]>) -> Waiting {
        let chosen = chosen.map(|these| {
            let these = these.iter().map(|index| GuestIndex::new(*index).unwrap());
            these.collect()
        });
        Waiting::new(chosen, fleet(stage, states))
    }

    #[test]
    fn a_wait_ends_when_nothing_more_can_come() {
        use Phase::{Booting, Exited, Failed, Planned, Ready, Restarting, Unresponsive};
        for (stage, states, outcome) in [
            (Stage::Up, &[Ready, Ready][..], Some(Outcome::Ready)),
            (Stage::Starting, &[Ready, Planned], None),
            (Stage::Up, &[Ready, Booting], None),
            (Stage::Up, &[Ready, Unresponsive], None),
            (Stage::Up, &[Ready, Restarting], None),
            (Stage::Starting, &[Failed, Planned], Some(Outcome::Part)),
            (Stage::Up, &[Ready, Exited], Some(Outcome::Part)),
            (Stage::Settled, &[Ready, Planned], Some(Outcome::Part)),
            (Stage::Settled, &[Ready, Restarting], Some(Outcome::Part)),
            (Stage::Settled, &[Ready, Planned, Booting], None),
            (Stage::Stopping, &[Ready], Some(Outcome::Ended)),
            (Stage::Up, &[], Some(Outcome::Ready)),
        ] {
            let found = waiting(stage, states, None).outcome();
            assert_eq!(found, outcome, "{stage:?} {states:?}");
        }
    }

    #[test]
    fn only_the_chosen_are_waited_for_and_events_count() {
        let mut waiting = waiting(
            Stage::Up,
            &[Phase::Failed, Phase::Booting, Phase::Booting],
            Some(&[1, 2]),
        );
        assert_eq!(waiting.outcome(), None);
        waiting.apply(Event::Guest(guest(1, Phase::Ready)));
        waiting.apply(Event::Guest(guest(3, Phase::Failed)));
        assert_eq!(
            waiting.counts(),
            BTreeMap::from([(Phase::Booting, 1), (Phase::Ready, 1)])
        );
        assert_eq!(waiting.outcome(), None);
        // One that was stopped is not waited for.
        let stopped = Guest {
            desired: Desired::Down,
            ..guest(2, Phase::Exited)
        };
        waiting.apply(Event::Guest(stopped));
        assert_eq!(waiting.outcome(), Some(Outcome::Ready));
        waiting.apply(Event::Stage {
            stage: Stage::Stopping,
            held_back: None,
        });
        assert_eq!(waiting.outcome(), Some(Outcome::Ended));
    }
}
