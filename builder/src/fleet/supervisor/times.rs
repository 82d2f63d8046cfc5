//! The times at which guests need a turn of the loop although no event came.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

use crate::units::{GuestIndex, GuestRange};

/// Times at which guests want a turn.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// The next first. A guest may have several here; too early a turn does no
    /// harm.
    heap: BinaryHeap<Reverse<(Instant, GuestIndex)>>,
    /// The earliest turn of each guest that has one.
    armed: HashMap<GuestIndex, Instant>,
}

impl Times {
    /// Has a guest get a turn at this moment, or before.
    pub(super) fn arm(&mut self, guest: GuestIndex, due: Instant) {
        if self.armed.get(&guest).is_none_or(|armed| due < *armed) {
            self.armed.insert(guest, due);
            self.heap.push(Reverse((due, guest)));
        }
    }

    /// When the next turn is.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The guest whose turn it is; each turn once.
    pub(super) fn take(&mut self, now: Instant) -> Option<GuestIndex> {
        let Reverse((at, guest)) = *self.heap.peek().filter(|Reverse((at, _))| *at <= now)?;
        self.heap.pop();
        if self.armed.get(&guest) == Some(&at) {
            self.armed.remove(&guest);
        }
        Some(guest)
    }

    /// Forgets all guests but these.
    pub(super) fn keep(&mut self, guests: GuestRange) {
        self.heap
            .retain(|Reverse((_, guest))| guests.contains(*guest));
        self.armed.retain(|guest, _| guests.contains(*guest));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn guest(index: u32) -> GuestIndex {
        GuestIndex::new(index).unwrap()
    }

    #[test]
    fn turns_come_in_order_and_a_later_one_is_asked_for_again() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut times = Times::default();
        times.arm(guest(0), at(3));
        times.arm(guest(1), at(2));
        times.arm(guest(0), at(4));
        assert_eq!(times.next(), Some(at(2)));
        assert_eq!(times.take(at(1)), None);
        assert_eq!(times.take(at(3)), Some(guest(1)));
        assert_eq!(times.take(at(3)), Some(guest(0)));
        assert_eq!(times.take(at(9)), None);
        times.arm(guest(0), at(4));
        times.arm(guest(1), at(5));
        times.keep(GuestRange::first(1).unwrap());
        assert_eq!(times.take(at(9)), Some(guest(0)));
        assert_eq!(times.next(), None);
        // Another guest may have the number again.
        times.arm(guest(1), at(5));
        assert_eq!(times.next(), Some(at(5)));
    }
}
