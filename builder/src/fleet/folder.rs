//! A fleet's folders: what it keeps, and its sockets.
//!
//! State (identities, overlays) stands in `$XDG_STATE_HOME/imgbuild/fleets/F`,
//! mode 0700; sockets in `$XDG_RUNTIME_DIR/imgbuild/F`, or `/run/imgbuild/F`
//! for root. Both are removed with the fleet.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::directories::Directories;
use crate::units::GuestIndex;

/// Longest path of a Unix socket: `sun_path` less its final NUL (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

const IDENTITIES: &str = "identities";
const OVERLAYS: &str = "overlays";
pub(super) const SSH_CONFIG: &str = "ssh_config";
pub(super) const KNOWN_HOSTS: &str = "known_hosts";

/// The folders of one fleet, removed when dropped.
#[derive(Debug)]
pub struct Folder {
    state: PathBuf,
    runtime: PathBuf,
    /// Held for as long as the fleet is supervised.
    _lock: File,
}

/// A fleet's folders could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process supervises a fleet of that name.
    #[error("a fleet named {name} is running; stop it, or choose another name with --name")]
    Running {
        /// The fleet.
        name: String,
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

impl Folder {
    /// Makes the folders of the fleet `name`, clearing what a killed launch of
    /// that name left behind.
    pub fn create(name: &str, directories: &Directories) -> Result<Self, FolderError> {
        let state = state(directories, name);
        let runtime = directories.runtime.join(name);
        let last = runtime.join("g99999.console");
        if last.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(FolderError::SocketPath { path: last });
        }
        if state.to_str().is_none() {
            return Err(FolderError::NotUtf8 { path: state });
        }
        let lock = claim(&state, name)?;
        // Whoever held the claim is gone, and its guests with it.
        let mut left_behind = entries(&state)?;
        left_behind.push(runtime.clone());
        for path in left_behind {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            if let Err(source) = removed
                && source.kind() != io::ErrorKind::NotFound
            {
                return Err(FolderError::Unwritable { path, source });
            }
        }
        let folder = Self {
            state,
            runtime,
            _lock: lock,
        };
        for path in [
            folder.state.join(IDENTITIES),
            folder.overlays(),
            folder.runtime.clone(),
        ] {
            private_folder(&path)?;
        }
        Ok(folder)
    }

    /// The folder of what the fleet keeps.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.state
    }

    /// Folder of the fleet's overlays.
    #[must_use]
    pub fn overlays(&self) -> PathBuf {
        self.state.join(OVERLAYS)
    }

    /// A guest's overlay.
    #[must_use]
    pub fn overlay(&self, guest: GuestIndex) -> PathBuf {
        self.overlays().join(guest.overlay_name())
    }

    /// A guest's console socket.
    #[must_use]
    pub fn console(&self, guest: GuestIndex) -> PathBuf {
        self.runtime.join(format!("{guest}.console"))
    }

    /// Writes a guest's identity blob, readable by its owner alone.
    pub fn write_identity(&self, guest: GuestIndex, blob: &[u8]) -> Result<PathBuf, FolderError> {
        let name = Path::new(IDENTITIES).join(guest.to_string());
        self.write(&name, blob)
    }

    /// Writes a file of this folder, readable by its owner alone.
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<PathBuf, FolderError> {
        let path = self.state.join(name);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|source| FolderError::Unwritable {
                path: path.clone(),
                source,
            })?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for path in [&self.state, &self.runtime] {
            if let Err(error) = fs::remove_dir_all(path) {
                tracing::warn!("{} is left behind: {error}", path.display());
            }
        }
    }
}

/// The folder of what the fleet `name` keeps.
fn state(directories: &Directories, name: &str) -> PathBuf {
    directories.state.join("fleets").join(name)
}

/// A fleet's configuration of ssh(1), if its guests have a network.
#[must_use]
pub fn ssh_config(state: &Path) -> PathBuf {
    state.join(SSH_CONFIG)
}

/// The host keys of a fleet's guests, one line a guest.
#[must_use]
pub fn known_hosts(state: &Path) -> PathBuf {
    state.join(KNOWN_HOSTS)
}

/// The folders of the fleets that are supervised now, in the order of their
/// names.
pub fn running(directories: &Directories) -> Result<Vec<PathBuf>, FolderError> {
    let mut found = Vec::new();
    for path in entries(&directories.state.join("fleets"))? {
        let supervised = File::open(&path)
            .is_ok_and(|folder| matches!(folder.try_lock_shared(), Err(TryLockError::WouldBlock)));
        if supervised {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What is in a folder; nothing in one that is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let read = || -> io::Result<Vec<_>> {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|source| FolderError::Unreadable {
            path: folder.to_path_buf(),
            source,
        }),
    }
}

/// Makes the folder `state` and locks it for this process.
///
/// The lock is on the folder itself, so that it goes when the folder goes; a
/// folder that went while we waited for it is made anew.
fn claim(state: &Path, name: &str) -> Result<File, FolderError> {
    let unwritable = |source| FolderError::Unwritable {
        path: state.to_path_buf(),
        source,
    };
    loop {
        private_folder(state)?;
        let folder = match File::open(state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(unwritable)?,
        };
        match folder.try_lock() {
            Ok(()) => {}
            // Who only looks whether the fleet runs shares the lock, for a moment.
            Err(TryLockError::WouldBlock) if folder.try_lock_shared().is_ok() => continue,
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::Running {
                    name: name.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unwritable(source)),
        }
        let locked = folder.metadata().map_err(unwritable)?;
        if fs::metadata(state).is_ok_and(|found| found.ino() == locked.ino()) {
            return Ok(folder);
        }
    }
}

fn private_folder(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| FolderError::Unwritable {
            path: path.to_path_buf(),
            source,
        })
}
