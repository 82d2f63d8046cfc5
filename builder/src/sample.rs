//! What processes, their control groups and KSM use now, read from the kernel's files.

pub(crate) mod account;
pub(crate) mod cgroup;
pub mod footprint;
pub(crate) mod host_cpu;
pub(crate) mod ksm;
pub(crate) mod meminfo;
pub(crate) mod processes;
pub(crate) mod schedule;
pub(crate) mod source;
pub(crate) mod switches;
pub(crate) mod unseen;
pub(crate) mod usage;
