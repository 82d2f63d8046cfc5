//! When guests want a turn that no event brings.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

/// Times at which guests want a turn.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// The next first. A guest may have several here; too early a turn does no
    /// harm.
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The earliest turn of each guest that has one.
    armed: HashMap<usize, Instant>,
}

impl Times {
    /// Has a guest get a turn at this moment, or before.
    pub(super) fn arm(&mut self, which: usize, due: Instant) {
        if self.armed.get(&which).is_none_or(|armed| due < *armed) {
            self.armed.insert(which, due);
            self.heap.push(Reverse((due, which)));
        }
    }

    /// When the next turn is.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The guest whose turn it is; each turn once.
    pub(super) fn take(&mut self, now: Instant) -> Option<usize> {
        let Reverse((at, which)) = *self.heap.peek().filter(|Reverse((at, _))| *at <= now)?;
        self.heap.pop();
        if self.armed.get(&which) == Some(&at) {
            self.armed.remove(&which);
        }
        Some(which)
    }

    /// Forgets the guests from `count` on.
    pub(super) fn truncate(&mut self, count: usize) {
        self.heap.retain(|Reverse((_, which))| *which < count);
        self.armed.retain(|which, _| *which < count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn turns_come_in_order_and_a_later_one_is_asked_for_anew() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut times = Times::default();
        times.arm(0, at(3));
        times.arm(1, at(2));
        times.arm(0, at(4));
        assert_eq!(times.next(), Some(at(2)));
        assert_eq!(times.take(at(1)), None);
        assert_eq!(times.take(at(3)), Some(1));
        assert_eq!(times.take(at(3)), Some(0));
        assert_eq!(times.take(at(9)), None);
        times.arm(0, at(4));
        times.arm(1, at(5));
        times.truncate(1);
        assert_eq!(times.take(at(9)), Some(0));
        assert_eq!(times.next(), None);
        // Another guest may have the number again.
        times.arm(1, at(5));
        assert_eq!(times.next(), Some(at(5)));
    }
}
