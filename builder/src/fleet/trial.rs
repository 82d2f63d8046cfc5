//! Guests on trial: a fleet in a temporary folder, gone with its value.

use tempfile::TempDir;

use super::deadline;
use super::folder::Folder;
use super::launch::LaunchError;
use super::plan::{Artifacts, Common};
use super::supervisor::{Pace, Supervisor};
use crate::directories::Directories;
use crate::interrupt::Interrupt;
use crate::units::ByteSize;
use crate::vmm::{Accel, Net, Sharing};

/// How guests on trial are run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    /// What runs their code.
    pub accel: Accel,
    /// What KSM may merge.
    pub sharing: Sharing,
    /// How they are connected.
    pub net: Net,
    /// RAM of each.
    pub memory: ByteSize,
    /// Kernel parameters after the artifacts' own.
    pub parameters: &'static str,
}

/// Guests on trial, not yet started.
///
/// Dropped in this order: guests are killed before what they use is removed.
pub(super) struct Trial {
    pub supervisor: Supervisor,
    pub folder: Folder,
    _temporary: TempDir,
}

impl Trial {
    pub(super) fn new(
        artifacts: &Artifacts,
        setup: &Setup,
        count: u32,
        directories: &Directories,
        interrupt: &Interrupt,
    ) -> Result<Self, LaunchError> {
        let temporary = tempfile::Builder::new()
            .prefix("imgbuild-")
            .tempdir()
            .map_err(LaunchError::Temporary)?;
        let directories = Directories {
            state: temporary.path().to_path_buf(),
            // Where paths are short enough for sockets, as TMPDIR need not be.
            ..directories.clone()
        };
        let folder = Folder::create(&format!("trial-{}", std::process::id()), &directories)?;
        let plans = Common {
            artifacts,
            folder: &folder,
            accel: setup.accel,
            sharing: setup.sharing,
            net: setup.net,
            memory: setup.memory,
            parameters: setup.parameters,
            login: None,
        }
        .plan(count, interrupt)?;
        let pace = Pace {
            parallel: count as usize,
            boot_timeout: deadline::boot(setup.accel, artifacts.manifest.recipe.boot_timeout()),
        };
        Ok(Self {
            supervisor: Supervisor::new(plans, pace, interrupt.clone())?,
            folder,
            _temporary: temporary,
        })
    }
}
