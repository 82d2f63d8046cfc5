//! Sums over shards. What somebody made up may not fit: it stays at the largest.

/// The sum.
pub(super) fn of(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().fold(0, u64::saturating_add)
}

/// The sum of what every shard has; `None` where one does not have it.
pub(super) fn all(values: impl IntoIterator<Item = Option<u64>>) -> Option<u64> {
    values.into_iter().collect::<Option<Vec<_>>>().map(of)
}

/// The same of numbers that are not whole.
pub(super) fn all_shares(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    values.into_iter().sum()
}

/// The sum of small numbers.
pub(super) fn count(values: impl IntoIterator<Item = u32>) -> u32 {
    values.into_iter().fold(0, u32::saturating_add)
}

/// The largest; nothing of none.
pub(super) fn most<T: PartialOrd + Default>(values: impl IntoIterator<Item = T>) -> T {
    let values = values.into_iter();
    let most = values.reduce(|a, b| if b > a { b } else { a });
    most.unwrap_or_default()
}

/// The smallest; nothing of none.
pub(super) fn least<T: PartialOrd + Default>(values: impl IntoIterator<Item = T>) -> T {
    let values = values.into_iter();
    let least = values.reduce(|a, b| if b < a { b } else { a });
    least.unwrap_or_default()
}

/// A ratio to what several hosts have, from that of each and how much each has.
pub(super) fn ratio(parts: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    let parts = parts.into_iter();
    let (above, below) = parts.fold((0.0, 0.0), |(above, below), (ratio, has)| {
        (above + ratio * has, below + has)
    });
    if below > 0.0 { above / below } else { 0.0 }
}
