//! How long threads that could run waited for a CPU, and who had it meanwhile.
//!
//! By BPF in the kernel's scheduler ([`bpf`]), as a distribution with its causes; where
//! that is not allowed, by the kernel's counters ([`schedstat`]), as means.

mod bpf;
mod kernel;
mod measure;
mod members;
mod schedstat;
pub(crate) mod types;
mod waits;

pub(crate) use measure::{By, Measuring, Options, RunqlatError};
pub(crate) use members::Selection;
pub(crate) use waits::{Waits, seconds};
