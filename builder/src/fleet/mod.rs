//! Fleets: guests that are started, listened to and ended together.

pub mod admission;
pub mod api;
pub mod boot;
pub mod canary;
pub mod cpu;
pub mod deadline;
pub mod folder;
pub mod guest;
pub mod identity;
pub mod key;
pub mod launch;
pub mod mend;
pub mod orphans;
pub mod plan;
pub mod ports;
pub mod readiness;
mod running;
pub mod spec;
pub mod ssh;
pub mod ssh_config;
pub mod supervisor;
mod trial;
