//! The guests that wait for their start, in order, and what they wait for.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use crate::guest::admission::{Admission, Delay, Seen, Verdict};
use crate::guest::{TRY_ON, Trouble};
use crate::units::{GuestIndex, GuestRange};

/// When to look again whether there is room, where nothing tells that there is.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long the host may keep guests from starting until that is taken for good,
/// as far as can be seen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Guests that wait to be started.
#[derive(Debug)]
pub(crate) struct Starts {
    admission: Admission,
    queue: VecDeque<GuestIndex>,
    /// The same, so that none is there twice.
    queued: HashSet<GuestIndex>,
    /// Why the first of them is not started.
    held: Option<(Delay, Outlook)>,
    /// When to look again whether it may be; at once without.
    look_again: Option<Instant>,
    /// The last starts came to nothing for the host's reasons.
    trouble: Option<Tries>,
}

/// Starts that the host kept from coming to anything.
#[derive(Debug)]
struct Tries {
    why: Trouble,
    since: Instant,
    /// Since then, those that others went on beside not counted.
    count: u32,
    /// When the next is due.
    next: Instant,
    outlook: Outlook,
}

/// For how long no more guests are started, as far as can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// Until what is under way has come about.
    MayChange,
    /// For good.
    ForGood,
}

/// Why no more guests are started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why<'a> {
    /// There is no room for them now.
    NoRoom(&'a Delay),
    /// The host keeps them from starting.
    Trouble(&'a Trouble),
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom(delay) => delay.fmt(f),
            Self::Trouble(trouble) => trouble.fmt(f),
        }
    }
}

impl Starts {
    pub(super) fn new(admission: Admission) -> Self {
        Self {
            admission,
            queue: VecDeque::new(),
            queued: HashSet::new(),
            held: None,
            look_again: None,
            trouble: None,
        }
    }

    /// How many may boot at a time.
    pub(super) fn parallel(&self) -> usize {
        self.admission.parallel()
    }

    /// Has a guest wait for its turn, if it does not yet.
    pub(super) fn enqueue(&mut self, guest: GuestIndex) {
        if self.queued.insert(guest) {
            self.queue.push_back(guest);
        }
    }

    /// The guest whose turn it is while so many are `booting`; none for as long as
    /// it is known that there is no room, or the host is not to be tried again.
    pub(super) fn first(&mut self, now: Instant, booting: usize) -> Option<GuestIndex> {
        if self.look_again().is_some_and(|again| again > now) {
            return None;
        }
        self.look_again = None;
        let first = self.queue.front().copied();
        if first.is_none() {
            self.held = None;
            // What is tried now may meet with it again.
            self.trouble.take_if(|_| booting == 0);
        }
        first
    }

    /// Whether the first guest may start, by what is `seen` of the host.
    pub(super) fn admits(&mut self, now: Instant, seen: &Seen) -> bool {
        let (why, again) = match self.admission.may_start(now, seen) {
            Verdict::Start => {
                self.held = None;
                self.admission.started(now);
                return true;
            }
            Verdict::Wait { until, why } => ((why, Outlook::MayChange), until),
            Verdict::Full(why) => ((why, Outlook::ForGood), now + LOOK_AGAIN),
        };
        self.held = Some(why);
        self.look_again = Some(again);
        false
    }

    /// Takes the first guest out of the queue.
    pub(super) fn pop(&mut self) {
        if let Some(guest) = self.queue.pop_front() {
            self.queued.remove(&guest);
        }
    }

    /// There may be room for another.
    pub(super) fn look_now(&mut self) {
        self.look_again = None;
    }

    /// A start came to nothing for the host's reasons: all wait, longer each time.
    pub(super) fn meet_trouble(&mut self, now: Instant, jitter: f64, why: &Trouble) {
        let tries = self.trouble.get_or_insert_with(|| Tries {
            why: why.clone(),
            since: now,
            count: 0,
            next: now,
            outlook: Outlook::MayChange,
        });
        tries.why.clone_from(why);
        // Those that were started together fail together.
        if tries.next <= now {
            tries.count = tries.count.saturating_add(1);
            tries.next = now + TRY_ON.delay(tries.count, jitter);
        }
        tries.outlook = if now.saturating_duration_since(tries.since) >= PATIENCE {
            Outlook::ForGood
        } else {
            Outlook::MayChange
        };
    }

    /// A guest came up: the host has what starts take. Or somebody wants one
    /// started, and may have mended the host.
    pub(super) fn end_trouble(&mut self) {
        self.trouble = None;
    }

    /// When to look again whether there is room, where there was none, or to try
    /// the host again.
    pub(super) fn look_again(&self) -> Option<Instant> {
        let next = self.trouble.as_ref().map(|tries| tries.next);
        // With nobody who waits, there is nothing to try.
        self.look_again.max(next.filter(|_| !self.queue.is_empty()))
    }

    /// Why no more guests are started, and for how long.
    pub(super) fn held_back(&self) -> Option<(Why<'_>, Outlook)> {
        let trouble = self.trouble.as_ref();
        let trouble = trouble.map(|tries| (Why::Trouble(&tries.why), tries.outlook));
        let held = self.held.as_ref();
        trouble.or(held.map(|(why, outlook)| (Why::NoRoom(why), *outlook)))
    }

    pub(super) fn clear(&mut self) {
        self.keep(GuestRange::default());
        self.held = None;
        self.look_again = None;
        self.trouble = None;
    }

    /// Forgets all guests but these.
    pub(super) fn keep(&mut self, guests: GuestRange) {
        self.queue.retain(|guest| guests.contains(*guest));
        self.queued.retain(|guest| guests.contains(*guest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::admission::AdmissionSpec;

    const SEEN: Seen = Seen {
        booting: 0,
        living: 0,
        available: 1 << 40,
        room: u64::MAX,
        memory_pressure: 0.0,
        ksm: None,
    };

    fn guest(index: u32) -> GuestIndex {
        GuestIndex::new(index).unwrap()
    }

    fn starts() -> Starts {
        let spec = AdmissionSpec {
            keep_free: 0,
            rate: None,
            parallel: Some(1),
            guest_memory: 1 << 20,
            merged_memory: None,
        };
        Starts::new(Admission::new(&spec, 1))
    }

    #[test]
    fn a_guest_waits_once_until_its_turn_or_the_end() {
        let (mut starts, now) = (starts(), Instant::now());
        for which in [1, 0, 1, 2] {
            starts.enqueue(guest(which));
        }
        assert_eq!(starts.first(now, 0), Some(guest(1)));
        starts.pop();
        starts.enqueue(guest(1));
        starts.keep(GuestRange::first(1).unwrap());
        assert_eq!(starts.first(now, 0), Some(guest(0)));
        starts.clear();
        assert_eq!(starts.first(now, 0), None);
        starts.enqueue(guest(0));
        assert_eq!(starts.first(now, 0), Some(guest(0)));
    }

    #[test]
    fn nobody_starts_until_there_may_be_room() {
        let (mut starts, now) = (starts(), Instant::now());
        starts.enqueue(guest(0));
        assert!(!starts.admits(now, &Seen { booting: 1, ..SEEN }));
        assert!(matches!(
            starts.held_back(),
            Some((Why::NoRoom(Delay::Parallel { .. }), Outlook::MayChange))
        ));
        assert!(starts.look_again().is_some_and(|again| again > now));
        assert_eq!(starts.first(now, 0), None);
        starts.look_now();
        assert_eq!(starts.first(now, 0), Some(guest(0)));
        assert!(starts.admits(now, &SEEN));
        assert_eq!(starts.held_back(), None);
    }

    #[test]
    fn all_wait_for_a_host_in_trouble_and_try_it_on_up_to_a_minute_apart() {
        let (mut starts, began) = (starts(), Instant::now());
        let mut now = began;
        let full = Trouble::Short("No space left on device".to_owned());
        let mut waits = Vec::new();
        for which in 0..10 {
            starts.enqueue(guest(which));
        }
        for _ in 0..12 {
            let which = starts.first(now, 0).unwrap();
            starts.pop();
            starts.enqueue(which);
            // Two at a time meet with it, and that counts once.
            for _ in 0..2 {
                starts.meet_trouble(now, 1.0, &full);
                // An end of another guest makes no difference.
                starts.look_now();
            }
            assert_eq!(starts.first(now, 0), None);
            let again = starts.look_again().unwrap();
            waits.push(again.duration_since(now));
            let (why, outlook) = starts.held_back().unwrap();
            assert_eq!(why, Why::Trouble(&full));
            let is_long = now.duration_since(began) >= PATIENCE;
            assert_eq!(outlook == Outlook::ForGood, is_long);
            now = again;
        }
        assert_eq!(
            waits[..4],
            [375, 750, 1500, 3000].map(Duration::from_millis)
        );
        assert_eq!(waits[8..], [Duration::from_secs(60); 4]);
        // The guest that comes up, or the user, ends it.
        starts.end_trouble();
        assert!(starts.first(now, 0).is_some());
        starts.meet_trouble(now, 1.0, &full);
        let again = starts.look_again().unwrap();
        assert_eq!(again.duration_since(now), Duration::from_millis(375));
    }

    #[test]
    fn trouble_is_remembered_while_a_guest_is_tried_and_forgotten_with_the_last_who_waits() {
        let (mut starts, now) = (starts(), Instant::now());
        let full = Trouble::Short("No space left on device".to_owned());
        starts.enqueue(guest(0));
        starts.meet_trouble(now, 0.0, &full);
        let now = starts.look_again().unwrap();
        assert_eq!(starts.first(now, 0), Some(guest(0)));
        starts.pop();
        assert_eq!(starts.first(now, 1), None);
        assert!(starts.held_back().is_some());
        assert_eq!(starts.look_again(), None);
        assert_eq!(starts.first(now, 0), None);
        assert_eq!(starts.held_back(), None);
    }
}
