//! imgbuild.
pub mod digest;
pub mod download;
pub mod disk;
pub mod initramfs;
pub mod interrupt;
pub mod kernel;
pub mod lock;
pub mod process;
pub mod progress;
pub mod units;
