//! What processes cost now, read from /proc.

pub mod footprint;
pub(crate) mod ksm;
pub(crate) mod meminfo;
pub mod processes;
pub mod schedule;
