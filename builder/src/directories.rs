//! Where imgbuild keeps things, by the XDG Base Directory specification.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use crate::host_id::HostId;
use crate::private::{Others, Private, PrivateError};

/// The folders of this user, on this host.
#[derive(Debug, Clone)]
pub struct Directories {
    /// What can be fetched or built again: downloads, sources, kernels.
    pub cache: PathBuf,
    /// What belongs to fleets.
    pub state: PathBuf,
    /// Sockets of fleets to come; those of a fleet stay where its spec says.
    pub runtime: PathBuf,
    /// This host: a home folder, and so the state folder, may be shared by
    /// several.
    pub host: HostId,
}

/// A folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoriesError {
    /// There is no home folder to put them in.
    #[error("{0}; set HOME")]
    Home(#[from] etcetera::HomeDirError),
    /// This boot has no name.
    #[error("cannot read the id of the host's boot: {0}; is /proc mounted?")]
    Boot(std::io::Error),
    /// It is another user's, or could be changed by others.
    #[error(
        "cannot use the folder for {what}: {source}; or unset {variable}, or set it to a folder \
         of your own"
    )]
    NotOurs {
        /// What it is for.
        what: &'static str,
        /// The environment variable that leads to it.
        variable: &'static str,
        /// What is wrong with it.
        source: PrivateError,
    },
}

impl DirectoriesError {
    /// Whether somebody else may have made or changed a folder, by which it is
    /// distinguished from one that cannot be used at all.
    pub fn is_refusal(&self) -> bool {
        let Self::NotOurs { source, .. } = self else {
            return false;
        };
        matches!(source, PrivateError::Refused { .. })
    }
}

impl Directories {
    /// From the environment: `XDG_CACHE_HOME`, `XDG_STATE_HOME` and
    /// `XDG_RUNTIME_DIR`, with their defaults.
    pub fn from_environment() -> Result<Self, DirectoriesError> {
        let host = HostId::this().map_err(DirectoriesError::Boot)?;
        let base = etcetera::base_strategy::Xdg::new()?;
        let state = base
            .state_dir()
            .expect("the XDG strategy has a state folder")
            .join("imgbuild");
        let runtime = match base.runtime_dir() {
            Some(folder) => folder.join("imgbuild"),
            None if rustix::process::geteuid().is_root() => PathBuf::from("/run/imgbuild"),
            // A log-in without a session has no runtime folder.
            None => spare_runtime(&state, &host),
        };
        Ok(Self {
            cache: base.cache_dir().join("imgbuild"),
            state,
            runtime,
            host,
        })
    }

    /// The cache folder, made if it is not there.
    pub fn open_cache(&self) -> Result<Private, DirectoriesError> {
        open(&self.cache, "the cache", "XDG_CACHE_HOME")
    }

    /// The folder of this host's fleets, made if it is not there.
    pub fn open_fleets(&self) -> Result<Private, DirectoriesError> {
        open(&self.state, "fleets", "XDG_STATE_HOME")?;
        open(&self.fleets(), "fleets", "XDG_STATE_HOME")
    }

    /// The folder of sockets, made if it is not there.
    pub fn open_runtime(&self) -> Result<Private, DirectoriesError> {
        open(&self.runtime, "sockets", "XDG_RUNTIME_DIR")
    }

    /// The folder of this host's fleets.
    pub fn fleets(&self) -> PathBuf {
        self.fleets_of_hosts().join(self.host.folder())
    }

    /// The folder of sockets of a user who is not logged in.
    pub fn spare_runtime(&self) -> PathBuf {
        spare_runtime(&self.state, &self.host)
    }

    /// The folder that has one for the fleets of each host.
    pub fn fleets_of_hosts(&self) -> PathBuf {
        self.state.join("fleets")
    }
}

/// In the state folder, and apart for each host: sockets are this host's.
fn spare_runtime(state: &Path, host: &HostId) -> PathBuf {
    state.join("run").join(host.folder())
}

fn open(
    path: &Path,
    what: &'static str,
    variable: &'static str,
) -> Result<Private, DirectoriesError> {
    Private::make(path, Others::Look).map_err(|source| DirectoriesError::NotOurs {
        what,
        variable,
        source,
    })
}
