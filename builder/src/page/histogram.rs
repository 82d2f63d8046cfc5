//! Waits for a CPU, counted by powers of two of a microsecond.

use crate::bundle::types::RunQueue;

/// The longest wait that a histogram can tell from longer ones is 2^40 µs, 13 days.
const ROWS: usize = 40;

/// A histogram, all causes together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Waits(Vec<u64>);

impl Waits {
    /// Those of threads of `class`, whatever had the CPU meanwhile.
    pub(super) fn of(queues: &[RunQueue], class: &str) -> Self {
        let mut sums = Vec::new();
        for queue in queues.iter().filter(|queue| queue.class == class) {
            let rows = queue.buckets.len().min(ROWS);
            sums.resize(rows.max(sums.len()), 0_u64);
            for (at, number) in queue.buckets.iter().enumerate() {
                // More than can be counted would be longer than the universe is old.
                let at = at.min(ROWS - 1);
                sums[at] = sums[at].saturating_add(*number);
            }
        }
        Self(sums)
    }

    pub(super) fn counts(&self) -> &[u64] {
        &self.0
    }

    /// How many waits there are; a float holds any sum.
    pub(super) fn total(&self) -> f64 {
        super::heat::total(&self.0)
    }

    /// The row in which the wait is that `share` of all do not exceed.
    pub(super) fn row(&self, share: f64) -> Option<usize> {
        let all = self.total();
        let mut sum = 0.0;
        let mut last = None;
        for (at, number) in self.0.iter().enumerate().filter(|(_, number)| **number > 0) {
            sum += crate::bundle::figures::bytes(*number);
            last = Some(at);
            if sum >= share * all {
                break;
            }
        }
        last
    }

    /// The share of waits in rows `from` to before `to`.
    pub(super) fn share(&self, from: usize, to: usize) -> f64 {
        let end = to.min(self.0.len());
        let some = self.0.get(from.min(end)..end).unwrap_or_default();
        let all = self.total();
        if all > 0.0 {
            super::heat::total(some) / all
        } else {
            0.0
        }
    }

    /// The first row with a wait in it, and the one behind the last.
    pub(super) fn span(&self) -> Option<(usize, usize)> {
        let is_used = |number: &u64| *number > 0;
        let first = self.0.iter().position(is_used)?;
        Some((first, self.0.iter().rposition(is_used)? + 1))
    }
}

/// The end of a row below: 2^row µs, or none for the first row, which has shorter
/// ones too.
pub(super) fn end(row: usize) -> f64 {
    match row {
        0 => 0.0,
        _ => 1e-6 * 2.0_f64.powi(i32::try_from(row).unwrap_or(i32::MAX)),
    }
}

/// Such an end in words, as short as an axis needs it.
pub(super) fn written(row: usize) -> String {
    match end(row) {
        0.0 => "0".to_owned(),
        end if end < 1e-3 => format!("{:.0}\u{a0}µs", end * 1e6),
        end if end < 1.0 => format!("{:.0}\u{a0}ms", end * 1e3),
        end => format!("{end:.0}\u{a0}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(class: &str, cause: Option<&str>, buckets: &[u64]) -> RunQueue {
        RunQueue {
            source: "bpf".to_owned(),
            class: class.to_owned(),
            cause: cause.map(str::to_owned),
            buckets: buckets.to_vec(),
        }
    }

    #[test]
    fn causes_of_a_class_are_added_and_quantiles_are_rows() {
        let queues = [
            queue("vcpu", Some("guest"), &[0, 0, 5, 1]),
            queue("vcpu", Some("other"), &[0, 0, 0, 0, 4]),
            queue("io", None, &[9]),
        ];
        let waits = Waits::of(&queues, "vcpu");
        assert_eq!(waits.counts(), [0, 0, 5, 1, 4]);
        assert_eq!(waits.row(0.5), Some(2));
        assert_eq!(waits.row(0.51), Some(3));
        assert_eq!(waits.row(1.0), Some(4));
        assert_eq!(waits.span(), Some((2, 5)));
        assert!((waits.share(2, 4) - 0.6).abs() < 1e-9);
        assert!((waits.share(0, 99) - 1.0).abs() < 1e-9);
        assert_eq!(Waits::of(&queues, "none").row(0.5), None);
    }

    #[test]
    fn a_histogram_may_hold_anything() {
        let queues = [
            queue("all", None, &[u64::MAX; 1000]),
            queue("all", None, &[u64::MAX]),
        ];
        let waits = Waits::of(&queues, "all");
        assert_eq!(waits.counts().len(), ROWS);
        assert!(waits.row(0.5).is_some() && waits.share(3, 1000) <= 1.0);
        let none = Waits::of(&[queue("all", None, &[0, 0])], "all");
        assert_eq!((none.row(0.5), none.span()), (None, None));
        assert_eq!(
            [0, 2, 10, 20].map(written),
            ["0", "4\u{a0}µs", "1\u{a0}ms", "1\u{a0}s"]
        );
    }
}
