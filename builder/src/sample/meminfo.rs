//! `/proc/meminfo` and what has its form.

use std::collections::HashMap;

/// The fields of `/proc/meminfo` or of what a NUMA node has of it, by name.
pub(crate) fn fields(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect()
}

/// The bytes of a size such as `24684092 kB`.
pub(crate) fn bytes(size: &str) -> Option<u64> {
    let kibibytes: u64 = size.strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}
