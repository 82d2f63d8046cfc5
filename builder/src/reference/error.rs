//! Why the reference's way was not measured.

use std::process::ExitStatus;

use super::packages::PackagesError;
use crate::disk::overlay::OverlayError;
use crate::disk::qcow2::Qcow2Error;
use crate::initramfs::PackError;
use crate::net::ports::TooFewPorts;
use crate::process::ProcessError;
use crate::store::folder::FolderError;
use crate::store::ssh_config::SshConfigError;
use crate::system::SystemError;
use crate::tree::error::TreeError;
use crate::units::{ByteSize, GuestIndex, GuestIndexError};

/// The reference's guests could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// More guests than can be numbered.
    #[error(transparent)]
    Count(#[from] GuestIndexError),
    /// What they are made of is not to be had.
    #[error(transparent)]
    Packages(PackagesError),
    /// Their folder could not be made.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// They have no ports.
    #[error(transparent)]
    Ports(#[from] TooFewPorts),
    /// ssh(1) could not be told where they are.
    #[error(transparent)]
    SshConfig(#[from] SshConfigError),
    /// A file has no place in their initramfs.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Their initramfs could not be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Their disks cannot be laid out.
    #[error(transparent)]
    Layout(#[from] Qcow2Error),
    /// Their disks could not be written.
    #[error(transparent)]
    Overlays(OverlayError),
    /// ssh(1) could not be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The system refused.
    #[error(transparent)]
    System(#[from] SystemError),
    /// Not even one fits.
    #[error(
        "no guest of the baseline fits: one may take {needed} while it boots, and the host has \
         {available} beyond what is to stay free; free memory, or run without --baseline"
    )]
    NoRoom {
        /// What one may take.
        needed: ByteSize,
        /// What there is.
        available: String,
    },
    /// A QEMU ended.
    #[error(
        "QEMU of the baseline's guest {guest} ended ({status}), and guests of this kind are to run \
         until they are killed; it and its console said last:\n{words}"
    )]
    Ended {
        /// The guest.
        guest: GuestIndex,
        /// How.
        status: ExitStatus,
        /// Their last lines.
        words: String,
    },
    /// None came up.
    #[error(
        "no guest of the baseline came up within {seconds} s; the console of the first said \
         last:\n{words}"
    )]
    NotReady {
        /// How long it was waited for.
        seconds: u64,
        /// Its last lines.
        words: String,
    },
    /// The user asked to stop.
    #[error("interrupted while the baseline was measured; its guests were ended")]
    Interrupted,
}

impl From<PackagesError> for ReferenceError {
    fn from(error: PackagesError) -> Self {
        match error {
            PackagesError::Interrupted => Self::Interrupted,
            other => Self::Packages(other),
        }
    }
}

impl From<OverlayError> for ReferenceError {
    fn from(error: OverlayError) -> Self {
        match error {
            OverlayError::Interrupted { .. } => Self::Interrupted,
            other => Self::Overlays(other),
        }
    }
}
