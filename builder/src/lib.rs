//! imgbuild builds tiny guests for VM density experiments and launches fleets
//! of them.
//!
//! A value flows one way: [`recipe`] → [`artifact`] → [`fleet`]; `cli` only
//! turns arguments into calls and results into output. `docs/architecture.md`
//! is the map.

// Some of what unit tests have, integration tests have as well, which name this crate.
#[cfg(test)]
extern crate self as imgbuild;

mod any_path;
pub mod artifact;
pub mod assets;
pub mod bundle;
pub mod cli;
pub mod control;
mod density;
pub mod digest;
pub mod directories;
pub mod disk;
mod download;
mod durable;
pub mod fleet;
pub mod guest;
pub mod host;
pub mod host_id;
pub mod initramfs;
pub mod interrupt;
mod kernel;
mod launch;
mod lines;
mod lock;
pub mod net;
mod notes;
mod outlet;
pub mod page;
pub mod placement;
mod plain;
mod private;
mod process;
mod progress;
mod random;
pub mod recipe;
pub mod reference;
mod report;
#[cfg(test)]
#[expect(unreachable_pub, reason = "integration tests have it from a library")]
#[path = "../../tests/src/rights.rs"]
mod rights;
mod runqlat;
pub mod sample;
mod sealed;
mod staging;
pub mod store;
mod system;
mod template;
mod text;
mod top;
pub mod tree;
pub mod trial;
pub mod units;
pub mod vmm;
#[cfg(test)]
mod words;
