//! imgbuild.
pub mod digest;
pub mod interrupt;
pub mod progress;
