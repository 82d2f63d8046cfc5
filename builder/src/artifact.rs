//! The output folder: its files, and how they are written and verified.

pub(crate) mod build;
mod error;
mod files;
mod image;
mod input;
pub(crate) mod manifest;
pub mod opened;
mod output;
mod trees;
pub(crate) mod verify;

use crate::staging::Kind;
pub use crate::staging::{Staging, StagingError};
pub use build::{BuildOptions, Built, Staged, build};
pub use error::BuildError;
pub use manifest::{Manifest, ManifestError, Part};
pub use verify::{Difference, VerifyError, verify};

/// An output folder, for those who put one in the place of another.
const OUTPUT: Kind = Kind {
    name: "output folder",
    index: MANIFEST,
    option: "--out",
    listed: manifest::listed,
};

/// Name of the initramfs in an output folder.
pub const INITRAMFS: &str = "initramfs.cpio.gz";
/// Name of the base image in an output folder.
pub const BASE: &str = "base.qcow2";
/// Name of the folder of overlays.
pub const OVERLAYS: &str = "overlays";
/// Name of the kernel's final configuration.
pub const KERNEL_CONFIG: &str = "kernel.config";
/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// Name of the list of digests, as `sha256sum -c` reads it.
pub const SHA256SUMS: &str = "SHA256SUMS";
