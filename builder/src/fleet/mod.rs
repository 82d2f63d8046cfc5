//! Fleets: guests that are started, listened to and ended together.

pub mod boot;
pub mod folder;
pub mod guest;
pub mod identity;
pub mod launch;
pub mod plan;
mod running;
pub mod supervisor;
