//! Waits for a CPU, counted by powers of two of a microsecond.

/// Buckets: the last one has waits of 2^26 µs, 67 s, and of more.
pub(crate) const BUCKETS: usize = 27;

/// Waits that were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Waits {
    pub count: u64,
    /// Of all of them.
    pub nanoseconds: u64,
    pub longest: u64,
    /// Those longer than the threshold.
    pub above: u64,
    /// Bucket N has waits of 2^N to 2^(N+1) µs, the first one shorter ones too, and the
    /// last one longer ones.
    pub buckets: [u64; BUCKETS],
}

impl Waits {
    /// Adds others.
    pub(crate) fn add(&mut self, others: &Self) {
        self.count = self.count.saturating_add(others.count);
        self.nanoseconds = self.nanoseconds.saturating_add(others.nanoseconds);
        self.longest = self.longest.max(others.longest);
        self.above = self.above.saturating_add(others.above);
        for (sum, number) in self.buckets.iter_mut().zip(others.buckets) {
            *sum = sum.saturating_add(number);
        }
    }

    /// What was counted since `before`. The longest wait is not known of a part of the
    /// time: it is that of all, or the end of the last bucket with a wait in it if that
    /// is less.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut waits = Self {
            count: self.count.saturating_sub(before.count),
            nanoseconds: self.nanoseconds.saturating_sub(before.nanoseconds),
            longest: self.longest,
            above: self.above.saturating_sub(before.above),
            buckets: self.buckets,
        };
        for (count, then) in waits.buckets.iter_mut().zip(before.buckets) {
            *count = count.saturating_sub(then);
        }
        let last = waits.buckets.iter().rposition(|count| *count > 0);
        waits.longest = match last {
            None => 0,
            Some(last) if last + 1 < BUCKETS => waits.longest.min(2000 << last),
            Some(_) => waits.longest,
        };
        waits
    }

    /// Seconds of a wait on average.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| seconds(self.nanoseconds) / float(self.count))
    }

    /// Seconds that this share of all waits did not exceed: in its bucket waits are
    /// taken to be spread evenly, so it is true to a factor of 2.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.buckets.iter().sum();
        let wanted = share * float(all);
        let mut sum = 0.0;
        for (at, count) in self
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            let count = float(*count);
            if sum + count >= wanted {
                let begin = if at == 0 { 0 } else { 1000_u64 << at };
                let end = 2000_u64 << at;
                let part = ((wanted - sum) / count).clamp(0.0, 1.0);
                let nanoseconds = float(begin) + part * float(end - begin);
                return Some((nanoseconds / 1e9).min(seconds(self.longest)));
            }
            sum += count;
        }
        None
    }

    /// The share of waits above the threshold.
    pub(crate) fn share_above(&self) -> Option<f64> {
        (self.count > 0).then(|| float(self.above) / float(self.count))
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    float(nanoseconds) / 1e9
}

/// The bucket of a wait.
pub(super) fn bucket(nanoseconds: u64) -> usize {
    let bits = (nanoseconds / 1000).checked_ilog2().unwrap_or(0);
    (bits as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(waits: &[u64]) -> Waits {
        let mut counted = Waits::default();
        for wait in waits {
            counted.count += 1;
            counted.nanoseconds += wait;
            counted.longest = counted.longest.max(*wait);
            counted.buckets[bucket(*wait)] += 1;
        }
        counted
    }

    #[test]
    fn a_wait_is_in_the_bucket_of_its_power_of_two() {
        for (nanoseconds, at) in [
            (0, 0),
            (1_999, 0),
            (2_000, 1),
            (3_999, 1),
            (4_000, 2),
            (1_024_000, 10),
            (u64::MAX, BUCKETS - 1),
        ] {
            assert_eq!(bucket(nanoseconds), at, "{nanoseconds}");
        }
    }

    #[test]
    fn parts_of_the_time_add_up() {
        let (first, both) = (of(&[1_000, 70_000]), of(&[1_000, 70_000, 5_000]));
        let second = both.since(&first);
        assert_eq!((second.count, second.nanoseconds), (1, 5_000));
        assert_eq!(second.longest, 8_000);
        assert_eq!(both.since(&both), Waits::default());
        let mut sum = first;
        sum.add(&of(&[5_000]));
        assert_eq!(sum, both);
        assert_eq!(Waits::default().quantile(0.5), None);
        assert_eq!(Waits::default().mean(), None);
    }

    proptest! {
        /// What is said of a distribution is true of the waits, to a factor of 2.
        #[test]
        fn quantiles_are_true_to_a_factor_of_two(
            mut waits in prop::collection::vec(1_000_u64..60_000_000_000, 1..300),
            share in 0.01_f64..1.0,
        ) {
            let counted = of(&waits);
            waits.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rank = (share * float(waits.len() as u64)).ceil() as usize;
            let exact = seconds(waits[rank.max(1) - 1]);
            let said = counted.quantile(share).unwrap();
            prop_assert!(said <= exact * 2.0 + 1e-12 && said >= exact / 2.0 - 1e-12, "{said} {exact}");
        }
    }
}
