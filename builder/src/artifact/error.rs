//! Why a build failed.

use std::io;
use std::path::PathBuf;

use super::ManifestError;
use crate::disk::base::BaseError;
use crate::disk::overlay::OverlayError;
use crate::disk::qcow2::Qcow2Error;
use crate::initramfs::{PackError, RootfsError};
use crate::kernel::KernelError;
use crate::staging::StagingError;
use crate::tree::error::TreeError;
use crate::units::ByteSize;

/// A build that failed; the previous output is untouched.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The guest cannot hold what the recipe asks for.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The recipe's root file system.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// What the recipe's archive holds cannot run.
    #[error("the root file system {archive} cannot be used: {reason}")]
    Image {
        /// The archive.
        archive: String,
        /// What is missing, and what is there instead.
        reason: String,
    },
    /// The initramfs cannot be written.
    #[error("{}: {source}", path.display())]
    Pack {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PackError,
    },
    /// The guest's memory cannot hold its initramfs.
    #[error(
        "recipe {recipe}: the initramfs unpacks to {unpacked}, and a guest of {memory} cannot hold \
         it: give --memory {needed} or more, or put the root file system on the disk \
         (--rootfs-place disk)"
    )]
    Memory {
        /// The recipe.
        recipe: String,
        /// What the files take in memory.
        unpacked: ByteSize,
        /// The guest's RAM.
        memory: ByteSize,
        /// The least that would do.
        needed: ByteSize,
    },
    /// The guest's memory cannot hold its kernel.
    #[error(
        "this kernel does not start in less than {needed} of memory, and recipe {recipe} gives a \
         guest {memory}: give --memory {needed} or more"
    )]
    KernelMemory {
        /// The recipe.
        recipe: String,
        /// The least that it starts in.
        needed: ByteSize,
        /// The guest's RAM.
        memory: ByteSize,
    },
    /// The base image.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The layout of overlays.
    #[error(transparent)]
    Layout(#[from] Qcow2Error),
    /// The overlays.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// Manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The output folder.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// A file named by the recipe cannot be read.
    #[error("recipe {recipe}: {key} = {}: {source}", path.display())]
    Input {
        /// The recipe.
        recipe: String,
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the output cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The user ended it.
    #[error("interrupted; the previous output is untouched")]
    Interrupted,
}
