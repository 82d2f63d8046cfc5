//! What this host offers to guests: a [`Host`](snapshot::Host) snapshot in,
//! [`Finding`](finding::Finding)s out.

use std::num::NonZero;

pub(crate) mod canary;
pub(crate) mod ceiling;
pub(crate) mod concern;
pub(crate) mod finding;
pub(crate) mod kvm;
pub(crate) mod memory;
pub(crate) mod ports;
pub(crate) mod settings;
mod severity;
pub mod snapshot;
pub(crate) mod tsc;
pub(crate) mod user_ids;
pub(crate) mod want;

/// CPUs that this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
