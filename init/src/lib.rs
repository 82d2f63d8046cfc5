//! What a guest's PID 1 and its host share: the console protocol, the commands, the
//! identity blob and the parameters on the kernel command line.
//!
//! Everything here is pure and `no_std`, so the host can test it, and the builder
//! uses the same types as the guest.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod command;
pub mod duty;
pub mod fields;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod host_key;
pub mod identity;
pub mod json;
pub mod lines;
pub mod parameters;
pub mod protocol;
pub mod report;
#[cfg(feature = "ssh")]
pub mod ssh;
pub mod ssh_programs;
pub mod ssh_upkeep;
pub mod wall_time;
