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
pub mod digest;
pub mod directories;
pub mod disk;
pub mod download;
mod durable;
pub mod fleet;
pub mod host;
pub mod initramfs;
pub mod interrupt;
pub mod kernel;
mod lines;
pub mod lock;
pub mod notes;
pub mod outlet;
mod plain;
pub mod private;
pub mod process;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod text;
pub mod units;
pub mod vmm;
