//! A fleet's folders: what it keeps, and its sockets.
//!
//! State stands in `$XDG_STATE_HOME/imgbuild/fleets/F`, sockets in
//! `$XDG_RUNTIME_DIR/imgbuild/F`, or `/run/imgbuild/F` for root; folders have
//! mode 0700, files 0600. Who supervises the fleet holds a lock on the first.
//!
//! What has a `spec.json` is a fleet, and stays until it is removed: its guests
//! may outlive their supervisor. What has none never had a guest, and goes with
//! the process that made it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;
use tempfile::NamedTempFile;

use super::orphans;
use super::spec::{FleetSpec, SPEC_VERSION};
use crate::directories::Directories;
use crate::units::GuestIndex;

mod error;
mod paths;
mod turn;

pub use error::FolderError;
pub(super) use paths::JOURNAL;
pub use paths::Paths;
use paths::{SOCKET_PATH_MAX, SPEC};
pub(super) use turn::Turn;

pub(super) const SSH_CONFIG: &str = "ssh_config";
pub(super) const KNOWN_HOSTS: &str = "known_hosts";

/// Most bytes of a `spec.json`: a fleet of 100,000 guests takes one MiB.
const SPEC_MAX: u64 = 16 << 20;
/// How often a folder is tried again that somebody has locked, and how long
/// apart: a launch of a name that is taken has it until it knows.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// The folders of one fleet, locked for this process.
///
/// Dropping it lets go of the lock, and removes the folders if no spec was
/// written; [`Folder::remove`] removes them in any case.
#[derive(Debug)]
pub struct Folder {
    paths: Paths,
    /// `None` once the folders are removed: others may have made them anew.
    lock: Option<File>,
}

/// A fleet that has a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// The folder of what it keeps.
    pub path: PathBuf,
    /// Whether a process supervises it now.
    pub supervised: bool,
}

impl Deref for Folder {
    type Target = Paths;

    fn deref(&self) -> &Paths {
        &self.paths
    }
}

impl Folder {
    /// Makes the folders of a new fleet, clearing what a launch of that name
    /// left that was killed before it wrote a spec.
    pub fn create(name: &str, directories: &Directories) -> Result<Self, FolderError> {
        let paths = usable(name, directories)?;
        let lock = loop {
            private_folder(&paths.state)?;
            if let Some(lock) = claim(&paths.state, name)? {
                break lock;
            }
        };
        if paths.spec_file().exists() {
            let guests = living_guests(&paths, name)?;
            let name = name.to_owned();
            return Err(FolderError::Exists { name, guests });
        }
        let mut left_behind = entries(&paths.state)?;
        left_behind.push(paths.runtime.clone());
        for path in left_behind {
            removed(&path)?;
        }
        let lock = Some(lock);
        Self { paths, lock }.with_folders()
    }

    /// Opens the folders of a fleet that nobody supervises, to go on with it.
    pub fn open(name: &str, directories: &Directories) -> Result<Self, FolderError> {
        usable(name, directories)?;
        let mut claimed = Self::claimed(name, directories);
        for _ in 0..TRIES {
            if !matches!(claimed, Err(FolderError::Running { .. })) {
                break;
            }
            sleep(PAUSE);
            claimed = Self::claimed(name, directories);
        }
        let folder = claimed?;
        read_spec(&folder.state)?;
        // The runtime folder goes with a log-in or a restart of the host.
        folder.with_folders()
    }

    /// Takes the folders of a fleet that nobody supervises as they are, however
    /// little of them is left or can be read.
    pub(super) fn claimed(name: &str, directories: &Directories) -> Result<Self, FolderError> {
        let paths = Paths::of(name, directories);
        let lock = claim(&paths.state, name)?.filter(|_| paths.spec_file().exists());
        if lock.is_none() {
            let fleets = list(directories)?.into_iter().map(|found| found.name);
            return Err(FolderError::NotFound {
                name: name.to_owned(),
                fleets: fleets.collect(),
            });
        }
        Ok(Self { paths, lock })
    }

    fn with_folders(self) -> Result<Self, FolderError> {
        for path in self.folders() {
            private_folder(&path)?;
        }
        Ok(self)
    }

    /// Writes what the fleet is. From here on the folders stay until they are
    /// removed.
    pub fn write_spec(&self, spec: &FleetSpec) -> Result<(), FolderError> {
        let bytes = serde_json::to_vec_pretty(spec).expect("a spec has no map with other keys");
        let path = self.spec_file();
        replace(&path, &bytes).map_err(unwritable(&path))?;
        Ok(())
    }

    /// Reads what the fleet is.
    pub fn spec(&self) -> Result<FleetSpec, FolderError> {
        read_spec(&self.state)
    }

    /// Removes the folders. The caller has seen to it that no guest lives.
    pub fn remove(mut self) -> Result<(), FolderError> {
        self.clear()
    }

    /// Without a spec first, so that what is left of a removal that was cut
    /// short is cleared by the next launch.
    fn clear(&mut self) -> Result<(), FolderError> {
        let Some(_lock) = self.lock.take() else {
            return Ok(());
        };
        removed(&self.spec_file())?;
        removed(&self.runtime)?;
        // The locked folder last: until it is gone nobody can make either anew.
        removed(&self.state)
    }

    /// Writes a guest's identity blob, readable by its owner alone.
    pub fn write_identity(&self, guest: GuestIndex, blob: &[u8]) -> Result<PathBuf, FolderError> {
        self.write(self.identity(guest), blob)
    }

    /// Writes a file of this folder, readable by its owner alone; whole or not
    /// at all, on a full disk too and whenever this process dies.
    ///
    /// It is not forced to the disk: a fleet does not outlive its host.
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<PathBuf, FolderError> {
        let path = self.state.join(name);
        written_beside(&path, bytes)
            .and_then(|new| Ok(new.persist(&path)?))
            .map_err(unwritable(&path))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.lock.is_some()
            && !self.spec_file().exists()
            && let Err(error) = self.clear()
        {
            tracing::warn!("the fleet's folders are left behind: {error}");
        }
    }
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

/// Reads what the fleet is that keeps its state in this folder, whether it is
/// supervised or not.
pub fn read_spec(state: &Path) -> Result<FleetSpec, FolderError> {
    #[derive(Deserialize)]
    struct Version {
        spec_version: u32,
    }
    let path = state.join(SPEC);
    let bytes = spec_bytes(state).map_err(|source| FolderError::Unreadable {
        path: path.clone(),
        source,
    })?;
    let name = state
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let malformed = |reason: String| FolderError::Spec {
        name: name.clone(),
        path: path.clone(),
        reason,
    };
    if bytes.len() as u64 > SPEC_MAX {
        return Err(malformed(format!("it is larger than {SPEC_MAX} bytes")));
    }
    let Version { spec_version } =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    if spec_version != SPEC_VERSION {
        return Err(FolderError::SpecVersion {
            name,
            path,
            found: spec_version,
        });
    }
    let spec: FleetSpec =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    if spec.name != name {
        return Err(malformed(format!("it is that of {}", spec.name)));
    }
    Ok(spec)
}

/// What the spec in this folder holds, whatever that is; of one that is larger
/// than any spec, a part that shows it.
pub(super) fn spec_bytes(state: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(state.join(SPEC))?
        .take(SPEC_MAX + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The fleets that have a folder, in the order of their names.
pub fn list(directories: &Directories) -> Result<Vec<Found>, FolderError> {
    let mut found = Vec::new();
    for path in entries(&paths::fleets(directories))? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let supervised = File::open(&path)
            .is_ok_and(|folder| matches!(folder.try_lock_shared(), Err(TryLockError::WouldBlock)));
        if supervised || path.join(SPEC).exists() {
            found.push(Found {
                name: name.to_owned(),
                path,
                supervised,
            });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// What the fleets are that have a folder beside this fleet's; without those
/// that another version of imgbuild launched.
pub(super) fn beside(fleet: &Path) -> Vec<FleetSpec> {
    let folders = fleet.parent().map(entries);
    let folders = folders.and_then(Result::ok).unwrap_or_default();
    specs_in(folders.iter().filter(|folder| *folder != fleet))
}

/// What all fleets are that have a folder; without those that another version of
/// imgbuild launched.
pub fn specs(directories: &Directories) -> Vec<FleetSpec> {
    specs_in(&entries(&paths::fleets(directories)).unwrap_or_default())
}

fn specs_in<'a>(folders: impl IntoIterator<Item = &'a PathBuf>) -> Vec<FleetSpec> {
    let specs = folders.into_iter().map(|folder| read_spec(folder));
    specs.filter_map(Result::ok).collect()
}

/// Puts a file of these bytes in the place of another, whole or not at all,
/// whenever this process or the host dies; readable by its owner alone.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let new = written_beside(path, bytes)?;
    new.as_file().sync_all()?;
    let file = new.persist(path)?;
    File::open(folder_of(path))?.sync_all()?;
    Ok(file)
}

/// A temporary file of these bytes in the folder of `path`, to be put in its
/// place; readable by its owner alone.
fn written_beside(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut new = NamedTempFile::new_in(folder_of(path))?;
    new.write_all(bytes)?;
    Ok(new)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().expect("a file is in a folder")
}

/// The paths of a fleet, if the kernel and QEMU take them.
fn usable(name: &str, directories: &Directories) -> Result<Paths, FolderError> {
    let paths = Paths::of(name, directories);
    let last = paths.runtime.join("g99999.console");
    if last.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(FolderError::SocketPath { path: last });
    }
    if paths.state.to_str().is_none() {
        return Err(FolderError::NotUtf8 { path: paths.state });
    }
    Ok(paths)
}

/// How many guests live of a fleet that nobody supervises.
fn living_guests(paths: &Paths, name: &str) -> Result<u32, FolderError> {
    let spec = read_spec(&paths.state)?;
    let living = orphans::living(Path::new("/"), spec.instance).map_err(|source| {
        let name = name.to_owned();
        FolderError::Guests { name, source }
    })?;
    Ok(u32::try_from(living.len()).unwrap_or(u32::MAX))
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

/// Locks the folder `state` for this process; `None` if it is not there.
///
/// The lock is on the folder itself, so that it goes when the folder goes; one
/// that went while we waited for it is looked for anew.
fn claim(state: &Path, name: &str) -> Result<Option<File>, FolderError> {
    loop {
        let folder = match File::open(state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(unwritable(state))?,
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
            Err(TryLockError::Error(source)) => return Err(unwritable(state)(source)),
        }
        let locked = folder.metadata().map_err(unwritable(state))?;
        if fs::metadata(state).is_ok_and(|found| found.ino() == locked.ino()) {
            return Ok(Some(folder));
        }
    }
}

fn private_folder(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(unwritable(path))
}

/// Sees to it that there is no such file or folder.
fn removed(path: &Path) -> Result<(), FolderError> {
    let result = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(unwritable(path)),
    }
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> FolderError {
    move |source| FolderError::Unwritable {
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
pub(super) mod tests;
