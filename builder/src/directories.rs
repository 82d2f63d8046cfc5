//! Where imgbuild keeps things, by the XDG Base Directory specification.

use std::path::PathBuf;

use etcetera::BaseStrategy as _;

/// The folders of this user.
#[derive(Debug, Clone)]
pub struct Directories {
    /// What can be fetched or built again: downloads, sources, kernels.
    pub cache: PathBuf,
    /// What belongs to fleets.
    pub state: PathBuf,
    /// Sockets.
    pub runtime: PathBuf,
}

impl Directories {
    /// From the environment: `XDG_CACHE_HOME`, `XDG_STATE_HOME` and
    /// `XDG_RUNTIME_DIR`, with their defaults.
    pub fn from_environment() -> Result<Self, etcetera::HomeDirError> {
        let base = etcetera::base_strategy::Xdg::new()?;
        let state = base
            .state_dir()
            .expect("the XDG strategy has a state folder")
            .join("imgbuild");
        let runtime = match base.runtime_dir() {
            Some(folder) => folder.join("imgbuild"),
            None if rustix::process::geteuid().is_root() => PathBuf::from("/run/imgbuild"),
            // A log-in without a session has no runtime folder.
            None => state.join("run"),
        };
        Ok(Self {
            cache: base.cache_dir().join("imgbuild"),
            state,
            runtime,
        })
    }
}
