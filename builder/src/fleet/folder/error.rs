//! What can be wrong with a fleet's folder.

use std::io;
use std::path::PathBuf;

use super::super::spec::SPEC_VERSION;
use super::paths::SOCKET_PATH_MAX;
use crate::units::counted;

/// A fleet's folders could not be made, opened or read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process supervises a fleet of that name.
    #[error("a fleet named {name} is running; stop it, or choose another name with --name")]
    Running {
        /// The fleet.
        name: String,
    },
    /// A supervisor died, and its fleet is still there.
    #[error(
        "a fleet named {name} was left by a supervisor that died, with {}: \
         `imgbuild launch --resume {name}` goes on with it, `imgbuild rm {name}` clears it",
        counted((*guests).into(), "living guest")
    )]
    Exists {
        /// The fleet.
        name: String,
        /// Guests that live.
        guests: u32,
    },
    /// There is no such fleet.
    #[error("there is no fleet named {name}; fleets: {}", listed(fleets))]
    NotFound {
        /// The fleet asked for.
        name: String,
        /// The fleets that there are.
        fleets: Vec<String>,
    },
    /// What describes the fleet is not usable.
    #[error(
        "{} does not describe the fleet {name}: {reason}; \
         `imgbuild rm {name}` clears the fleet",
        path.display()
    )]
    Spec {
        /// The fleet.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another version of imgbuild launched the fleet.
    #[error(
        "{} has version {found}, and this imgbuild knows version {SPEC_VERSION}: \
         go on with the imgbuild that launched it, or clear it with `imgbuild rm {name}`",
        path.display()
    )]
    SpecVersion {
        /// The fleet.
        name: String,
        /// The file.
        path: PathBuf,
        /// The version of the document.
        found: u32,
    },
    /// It cannot be seen which guests live.
    #[error("cannot look for the guests of the fleet {name} in /proc: {source}; is it mounted?")]
    Guests {
        /// The fleet.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A socket's path would not fit.
    #[error(
        "the socket path {} has {} bytes, and the kernel takes {SOCKET_PATH_MAX}; \
         choose a shorter --name or XDG_RUNTIME_DIR",
        path.display(), path.as_os_str().len()
    )]
    SocketPath {
        /// The path.
        path: PathBuf,
    },
    /// QEMU is told paths in JSON, which is UTF-8.
    #[error("the path {} is not UTF-8; choose another XDG_STATE_HOME", path.display())]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A folder or file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder or file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
