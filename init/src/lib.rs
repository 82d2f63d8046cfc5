//! What a guest's PID 1 and its host agree on: the console protocol, the
//! commands, the identity blob and the kernel command line's parameters.
//!
//! Everything here is pure and `no_std`, so the host tests it and the builder
//! uses the very types that the guest speaks.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "host"))]
extern crate std;

pub mod command;
pub mod duty;
#[cfg(any(test, feature = "host"))]
pub mod host;
pub mod host_key;
pub mod identity;
pub mod lines;
pub mod parameters;
pub mod protocol;
pub mod report;
#[cfg(feature = "ssh")]
pub mod ssh;
