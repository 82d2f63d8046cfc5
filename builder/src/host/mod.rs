//! What this host offers to guests; one file per concern.

use std::num::NonZero;

pub mod kvm;
pub mod ports;
pub mod tsc;

/// CPUs that this process may use.
#[must_use]
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
