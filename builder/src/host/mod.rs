//! What this host offers to guests; one file per concern.

pub mod kvm;
pub mod tsc;
