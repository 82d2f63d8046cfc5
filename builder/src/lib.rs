//! imgbuild.
pub mod digest;
