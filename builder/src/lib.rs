//! imgbuild.
pub mod digest;
pub mod download;
pub mod interrupt;
pub mod kernel;
pub mod lock;
pub mod process;
pub mod progress;
