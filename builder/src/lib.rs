//! imgbuild.
pub mod digest;
pub mod progress;
