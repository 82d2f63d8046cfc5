//! How far a fleet's start has come, and since when it has gone no further: pure.

use std::time::{Duration, Instant};

/// How far a fleet's start has come.
#[derive(Debug)]
pub(crate) struct StartProgress {
    /// The fewest guests that were still to come up.
    to_come: usize,
    /// Since then it has gone no further.
    since: Instant,
}

impl StartProgress {
    /// A start that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            to_come: usize::MAX,
            since: now,
        }
    }

    /// So many guests are to come up still.
    pub(super) fn see(&mut self, now: Instant, to_come: usize) {
        if to_come < self.to_come {
            self.to_come = to_come;
            self.since = now;
        }
    }

    /// When whoever has this patience gives the start up, if it goes no further;
    /// never once all have come up.
    pub(super) fn ends(&self, patience: Duration) -> Option<Instant> {
        let is_whole = self.to_come == 0;
        (self.since.checked_add(patience)).filter(|_| !is_whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_begins_again_with_each_guest_that_comes_up() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let patience = Duration::from_secs(10);
        let mut progress = StartProgress::new(began);
        assert_eq!(progress.ends(patience), Some(at(10)));
        progress.see(at(1), 3);
        progress.see(at(2), 2);
        assert_eq!(progress.ends(patience), Some(at(12)));
        // One that is tried, and tried again, comes no further.
        for (second, to_come) in [(3, 3), (4, 2), (5, 3)] {
            progress.see(at(second), to_come);
        }
        assert_eq!(progress.ends(patience), Some(at(12)));
        assert_eq!(progress.ends(Duration::MAX), None);
        progress.see(at(20), 0);
        assert_eq!(progress.ends(patience), None);
        // A fleet that was whole is not given up when it grows.
        progress.see(at(30), 5);
        assert_eq!(progress.ends(patience), None);
    }
}
