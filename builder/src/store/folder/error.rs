//! Why a fleet's folder cannot be used.

use std::io;
use std::path::PathBuf;

use super::super::spec::SPEC_VERSION;
use super::paths::SOCKET_PATH_MAX;
use super::remains::Remains;
use crate::directories::DirectoriesError;
use crate::private::PrivateError;

/// A fleet's folders could not be made, opened or read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process supervises a fleet of that name.
    #[error(
        "a fleet named {name} is running, {}: `imgbuild stop --all --fleet {name}` ends it; \
         another one needs another --name", supervisor(*pid)
    )]
    Running {
        /// The fleet.
        name: String,
        /// The process, if its lock tells.
        pid: Option<u32>,
    },
    /// A launch was killed before it started a guest.
    #[error(
        "the launch of fleet {name} was killed before it started a guest: launch it again, or \
         `imgbuild rm {name}` removes what it left"
    )]
    Unfinished {
        /// The fleet.
        name: String,
    },
    /// It is another host's.
    #[error(
        "the fleet {name} is on host {host}: run imgbuild there; if that host no longer exists, \
         remove {}",
        path.display()
    )]
    Elsewhere {
        /// The fleet.
        name: String,
        /// Its folder.
        path: PathBuf,
        /// The host.
        host: String,
    },
    /// A folder is not this user's alone.
    #[error(transparent)]
    Directories(#[from] DirectoriesError),
    /// The same.
    #[error("cannot use a fleet's folder: {0}")]
    Private(#[from] PrivateError),
    /// A supervisor died, and its fleet is still there.
    #[error("the supervisor of fleet {name} died: {}", remains.next_step(name))]
    Exists {
        /// The fleet.
        name: String,
        /// What is left of it.
        remains: Remains,
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
         `imgbuild rm --force {name}` kills guests of it that still run, and removes the fleet",
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
         use the imgbuild that launched it; `imgbuild rm --force {name}` kills guests of it that \
         still run, and removes the fleet",
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
    /// A folder or file could not be read.
    #[error("cannot read {}: {source}; {}", path.display(), remedy(source))]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder or file could not be written.
    #[error("cannot write {}: {source}; {}", path.display(), remedy(source))]
    Unwritable {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What helps against what the system said of a file that is a fleet's.
fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded => {
            "make room there, or give other folders by XDG_STATE_HOME and XDG_RUNTIME_DIR"
        }
        ReadOnlyFilesystem => "give other folders by XDG_STATE_HOME and XDG_RUNTIME_DIR",
        PermissionDenied => "run imgbuild as the user who launched the fleet",
        _ => {
            "see whether the folder is still there and yours; the kernel's log (dmesg) may say more"
        }
    }
}

fn supervisor(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("supervised by process {pid}"),
        None => "supervised by another process".to_owned(),
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refused_has_a_next_step() {
        for (errno, step) in [
            (libc::ENOSPC, "make room"),
            (libc::EDQUOT, "make room"),
            (libc::EROFS, "XDG_STATE_HOME"),
            (libc::EACCES, "as the user who launched"),
            (libc::EIO, "dmesg"),
        ] {
            let (path, source) = (PathBuf::from("/f"), io::Error::from_raw_os_error(errno));
            let error = FolderError::Unwritable { path, source }.to_string();
            assert!(error.contains(step), "{error}");
        }
    }
}
