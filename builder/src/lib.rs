//! imgbuild.
pub mod digest;
pub mod disk;
pub mod initramfs;
pub mod interrupt;
pub mod process;
pub mod progress;
pub mod units;
