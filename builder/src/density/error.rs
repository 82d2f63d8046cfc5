//! Why a run failed.

use std::io;
use std::path::PathBuf;

use crate::artifact::opened::ArtifactsError;
use crate::bundle::WriteError;
use crate::control::client::ClientError;
use crate::fleet::remove::RemoveError;
use crate::fleet::ssh::SshError;
use crate::host::settings::SettingsError;
use crate::launch::LaunchError;
use crate::reference::ReferenceError;
use crate::store::find::FindError;
use crate::store::folder::FolderError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DensityError {
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Remove(#[from] RemoveError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The supervisor died again and again.
    #[error(
        "the supervisor of the fleet {fleet} died {times} times in a row; its log is {}",
        log.display()
    )]
    Supervisor {
        fleet: String,
        times: u32,
        log: PathBuf,
    },
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The bundle could not be written.
    #[error(transparent)]
    Bundle(#[from] WriteError),
    /// A run cannot be resumed with other options than it began with.
    #[error(
        "the run cannot be resumed: {what} was {was}, and is {is} now; give the options that it \
         began with, or begin another run"
    )]
    Differs {
        what: &'static str,
        was: String,
        is: String,
    },
    #[error("cannot make a descriptor for the watch over the fleet: {0}")]
    Watch(io::Error),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}
