//! What processes cost now, read from /proc.

pub mod footprint;
pub(crate) mod ksm;
pub(crate) mod meminfo;
pub(crate) mod processes;
pub(crate) mod schedule;
