//! Where the files of a fleet are.

use std::path::{Path, PathBuf};

use super::lock::{self, Supervised};
use crate::directories::Directories;
use crate::disk::overlay;
use crate::private::{Others, Private};
use crate::units::GuestIndex;

/// Longest path of a Unix socket: `sun_path` less its final NUL (unix(7)).
pub(crate) const SOCKET_PATH_MAX: usize = 107;

const IDENTITIES: &str = "identities";
const OVERLAYS: &str = "overlays";
const LOGS: &str = "logs";
const ERRORS: &str = "errors";
/// The control socket among the others.
pub(crate) const CONTROL: &str = "control";
/// Sockets, where they cannot be in the runtime folder.
pub(crate) const SOCKETS: &str = "sockets";
pub(crate) const JOURNAL: &str = "journal";
pub(crate) const SPEC: &str = "spec.json";

/// The paths of a fleet, whether there is one or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    pub(crate) state: PathBuf,
    pub(crate) runtime: PathBuf,
}

impl Paths {
    /// Those of a new fleet called `name`. Where the sockets of one are that was
    /// launched before, its spec says.
    pub fn of(name: &str, directories: &Directories) -> Self {
        Self {
            state: directories.fleets().join(name),
            runtime: directories.runtime.join(name),
        }
    }

    /// Where its sockets may be when they cannot be where they were.
    pub(crate) fn spare_runtime(&self) -> PathBuf {
        self.state.join(SOCKETS)
    }

    /// Whether a process of this host supervises the fleet now.
    pub fn supervised(&self) -> Supervised {
        match Private::open(&self.state, Others::Look) {
            Ok(Some(folder)) => lock::supervised(&folder),
            Ok(None) | Err(_) => Supervised::No,
        }
    }

    /// The folder of what the fleet keeps.
    pub fn path(&self) -> &Path {
        &self.state
    }

    /// The folder of its sockets.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The folders in the one that holds what the fleet keeps.
    pub(crate) fn folders(&self) -> [PathBuf; 4] {
        [
            self.state.join(IDENTITIES),
            self.overlays(),
            self.state.join(LOGS),
            self.errors(),
        ]
    }

    /// What the fleet is: a [`FleetSpec`](crate::store::spec::FleetSpec).
    pub fn spec_file(&self) -> PathBuf {
        self.state.join(SPEC)
    }

    /// What happened to its guests.
    pub fn journal(&self) -> PathBuf {
        self.state.join(JOURNAL)
    }

    /// What its supervisor says, when that runs on its own.
    pub fn supervisor_log(&self) -> PathBuf {
        self.state.join("supervisor.log")
    }

    /// The socket of its control interface.
    pub fn control(&self) -> PathBuf {
        self.runtime.join(CONTROL)
    }

    /// Folder of the fleet's overlays.
    pub fn overlays(&self) -> PathBuf {
        self.state.join(OVERLAYS)
    }

    /// A guest's overlay.
    pub fn overlay(&self, guest: GuestIndex) -> PathBuf {
        self.overlays().join(overlay::name(guest))
    }

    /// A guest's identity blob.
    pub fn identity(&self, guest: GuestIndex) -> PathBuf {
        self.state.join(IDENTITIES).join(guest.to_string())
    }

    /// A guest's console socket.
    pub fn console(&self, guest: GuestIndex) -> PathBuf {
        self.runtime.join(format!("{guest}.console"))
    }

    /// The socket of a guest's monitor: QMP.
    pub fn monitor(&self, guest: GuestIndex) -> PathBuf {
        self.runtime.join(format!("{guest}.qmp"))
    }

    /// What a guest's console said.
    pub fn log(&self, guest: GuestIndex) -> PathBuf {
        self.state.join(LOGS).join(format!("{guest}.log"))
    }

    /// Folder of what the VMMs write to standard error.
    pub fn errors(&self) -> PathBuf {
        self.state.join(ERRORS)
    }

    /// What a guest's VMM writes to standard error.
    pub fn error(&self, guest: GuestIndex) -> PathBuf {
        self.errors().join(guest.to_string())
    }
}
