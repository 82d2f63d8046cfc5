//! Guests that wait to be started, in order, and what holds them back.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::fleet::admission::{Admission, Hold, Seen, Verdict};

/// When to look again whether there is room, where nothing tells that there is.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Guests that wait to be started.
#[derive(Debug)]
pub(super) struct Starts {
    admission: Admission,
    queue: VecDeque<usize>,
    /// The same, so that none is there twice.
    queued: HashSet<usize>,
    /// Why the first of them is not started, and whether that is for good as far
    /// as can be seen.
    held: Option<(Hold, bool)>,
    /// When to look again whether it may be; at once without.
    look_again: Option<Instant>,
}

impl Starts {
    pub fn new(admission: Admission) -> Self {
        Self {
            admission,
            queue: VecDeque::new(),
            queued: HashSet::new(),
            held: None,
            look_again: None,
        }
    }

    /// How many may boot at a time.
    pub fn parallel(&self) -> usize {
        self.admission.parallel()
    }

    /// Has a guest wait for its turn, if it does not yet.
    pub fn enqueue(&mut self, which: usize) {
        if self.queued.insert(which) {
            self.queue.push_back(which);
        }
    }

    /// The guest whose turn it is; none for as long as it is known that there is
    /// no room.
    pub fn first(&mut self, now: Instant) -> Option<usize> {
        if self.look_again.is_some_and(|again| again > now) {
            return None;
        }
        self.look_again = None;
        let first = self.queue.front().copied();
        if first.is_none() {
            self.held = None;
        }
        first
    }

    /// Whether the first guest may start, by what is `seen` of the host.
    pub fn admits(&mut self, now: Instant, seen: &Seen) -> bool {
        let (why, again) = match self.admission.may_start(now, seen) {
            Verdict::Start => {
                self.held = None;
                self.admission.started(now);
                return true;
            }
            Verdict::Wait { until, why } => ((why, false), until),
            Verdict::Full(why) => ((why, true), now + LOOK_AGAIN),
        };
        self.held = Some(why);
        self.look_again = Some(again);
        false
    }

    /// Takes the first guest out of the queue.
    pub fn pop(&mut self) {
        if let Some(which) = self.queue.pop_front() {
            self.queued.remove(&which);
        }
    }

    /// There may be room for another.
    pub fn look_now(&mut self) {
        self.look_again = None;
    }

    /// When to look again whether there is room, where there was none.
    pub fn look_again(&self) -> Option<Instant> {
        self.look_again
    }

    /// Why no more guests are started, and whether that is for good as far as
    /// can be seen.
    pub fn held_back(&self) -> Option<(&Hold, bool)> {
        self.held.as_ref().map(|(why, settled)| (why, *settled))
    }

    /// Forgets all that wait.
    pub fn clear(&mut self) {
        self.truncate(0);
        self.held = None;
        self.look_again = None;
    }

    /// Forgets the guests from `count` on.
    pub fn truncate(&mut self, count: usize) {
        self.queue.retain(|which| *which < count);
        self.queued.retain(|which| *which < count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::spec::AdmissionSpec;

    const SEEN: Seen = Seen {
        booting: 0,
        living: 0,
        available: 1 << 40,
        room: u64::MAX,
        memory_pressure: 0.0,
        ksm: None,
    };

    fn starts() -> Starts {
        let spec = AdmissionSpec {
            keep_free: 0,
            rate: None,
            parallel: Some(1),
            guest_memory: 1 << 20,
        };
        Starts::new(Admission::new(&spec, 1))
    }

    #[test]
    fn a_guest_waits_once_until_its_turn_or_the_end() {
        let (mut starts, now) = (starts(), Instant::now());
        for which in [1, 0, 1, 2] {
            starts.enqueue(which);
        }
        assert_eq!(starts.first(now), Some(1));
        starts.pop();
        starts.enqueue(1);
        starts.truncate(1);
        assert_eq!(starts.first(now), Some(0));
        starts.clear();
        assert_eq!(starts.first(now), None);
        starts.enqueue(0);
        assert_eq!(starts.first(now), Some(0));
    }

    #[test]
    fn nobody_starts_until_there_may_be_room() {
        let (mut starts, now) = (starts(), Instant::now());
        starts.enqueue(0);
        assert!(!starts.admits(now, &Seen { booting: 1, ..SEEN }));
        assert!(matches!(
            starts.held_back(),
            Some((Hold::Parallel { .. }, false))
        ));
        assert!(starts.look_again().is_some_and(|again| again > now));
        assert_eq!(starts.first(now), None);
        starts.look_now();
        assert_eq!(starts.first(now), Some(0));
        assert!(starts.admits(now, &SEEN));
        assert_eq!(starts.held_back(), None);
    }
}
