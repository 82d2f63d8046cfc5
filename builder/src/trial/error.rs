//! Why guests could not be run on trial.

use crate::artifact::opened::ArtifactsError;
use crate::fleet::site::SiteError;
use crate::host::finding::Finding;
use crate::process::ProcessError;
use crate::store::folder::FolderError;
use crate::system::SystemError;
use crate::units::GuestIndexError;
use crate::vmm::qemu::EmulatorError;

/// Guests could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// Guests cannot run from the artifacts.
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
    /// They have no place.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// Their folder could not be made.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// More guests than can be numbered.
    #[error(transparent)]
    Count(#[from] GuestIndexError),
    /// QEMU cannot be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The QEMU that was chosen cannot be used.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// The QEMU that was chosen does not run guests.
    #[error("this host is not ready: {}", .0.in_full())]
    Unfit(Box<Finding>),
    /// The system refused.
    #[error(transparent)]
    System(#[from] SystemError),
}
