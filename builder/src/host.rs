//! What this host offers to guests: a [`Host`](snapshot::Host) snapshot in,
//! [`Finding`](finding::Finding)s out.

use std::num::NonZero;

pub mod canary;
pub mod ceiling;
pub mod concern;
pub mod finding;
pub mod ksm;
pub mod kvm;
pub mod memory;
pub mod ports;
pub mod settings;
pub mod snapshot;
pub mod tsc;
pub mod user_ids;
pub mod want;

/// CPUs that this process may use.
#[must_use]
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
