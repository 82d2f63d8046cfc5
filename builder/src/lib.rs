//! imgbuild builds tiny guests for VM density experiments and launches fleets
//! of them.
//!
//! A value flows one way: [`recipe`] → [`artifact`] → [`fleet`]; `cli` only
//! turns arguments into calls and results into output. `docs/architecture.md`
//! is the map.

mod any_path;
pub mod artifact;
pub mod assets;
pub mod cli;
pub mod control;
pub mod digest;
pub mod directories;
pub mod disk;
pub mod download;
mod durable;
pub mod fleet;
pub mod guest;
pub mod host;
pub mod host_id;
pub mod initramfs;
pub mod interrupt;
pub mod kernel;
pub mod launch;
mod lines;
pub mod lock;
pub mod net;
pub mod notes;
pub mod outlet;
pub mod placement;
mod plain;
pub mod private;
pub mod process;
pub mod progress;
mod random;
pub mod recipe;
pub mod report;
pub mod sample;
pub mod store;
pub mod text;
pub mod tree;
pub mod trial;
pub mod units;
pub mod vmm;
