//! A fleet's folders: the one of its state, and the one of its sockets.
//!
//! State stands in `$XDG_STATE_HOME/imgbuild/fleets/HOST/F`. Sockets stand where
//! the spec says: in `$XDG_RUNTIME_DIR/imgbuild/F` as that was at the launch, or in
//! `/run/imgbuild/F` for root. Folders have mode 0700, files 0600. The fleet's
//! supervisor holds the lock in the state folder.
//!
//! A folder with a `spec.json` is a fleet until it is removed. Everything else that
//! the fleet has is made after the spec and found by it. If the spec says that the
//! launch did not finish, the fleet never had a guest, and the next launch of the
//! same name removes it.

use std::fs::DirBuilder;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use tempfile::Builder;

use super::spec::FleetSpec;
use super::spec::file::SpecFile;
use crate::directories::Directories;
use crate::durable::{self, folder_of};
use crate::private::{Others, Private};
use crate::units::GuestIndex;
use crate::{random, text};
use list::entries;
use lock::Lock;
use paths::{SOCKET_PATH_MAX, SPEC};
use survey::remains_of;

mod document;
mod error;
mod list;
mod lock;
mod paths;
mod remains;
mod survey;
mod sweep;

pub(crate) use document::holds;
pub use document::{Remnant, read_spec};
pub use error::FolderError;
pub use list::{Found, Place, list};
pub(crate) use list::{is_locked, specs};
pub use lock::Supervised;
pub use paths::Paths;
pub use remains::Remains;
pub(crate) use survey::remains_in;
pub(crate) use sweep::{TRIAL_PREFIX, sweep};

/// How the fleets of one guest begin whose name nobody chose, of `imgbuild run`.
const PRIVATE_PREFIX: &str = "run-";
/// Bytes behind it, in hexadecimal.
const PRIVATE_BYTES: usize = 4;

/// A name for a fleet that nobody is to name.
pub(crate) fn private_name() -> io::Result<String> {
    let random = hex::encode(&random::random()?[..PRIVATE_BYTES]);
    Ok(format!("{PRIVATE_PREFIX}{random}"))
}

/// Whether a fleet has such a name.
pub(crate) fn is_private(name: &str) -> bool {
    name.strip_prefix(PRIVATE_PREFIX).is_some_and(|rest| {
        rest.len() == 2 * PRIVATE_BYTES && rest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

pub(crate) const SSH_CONFIG: &str = "ssh_config";
pub(crate) const KNOWN_HOSTS: &str = "known_hosts";

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
    /// The folder that the one of what it keeps is in.
    fleets: Private,
    /// `None` once the folders are removed: others may have made them again.
    lock: Option<Lock>,
    /// The folder of sockets, once this process has made or judged it.
    sockets: Option<Private>,
    /// Whether that folder is the fleet's: one of a launch that has made none may
    /// be another fleet's by now.
    has_sockets: bool,
}

impl Deref for Folder {
    type Target = Paths;

    fn deref(&self) -> &Paths {
        &self.paths
    }
}

impl Folder {
    /// Makes the folder of a new fleet. Nothing but what tells of the fleet,
    /// [`Folder::write_spec`], is to be made before the rest of it is, by
    /// [`Folder::make_folders`].
    pub fn create(name: &str, directories: &Directories) -> Result<Self, FolderError> {
        directories.open_runtime()?;
        let paths = unused(name, directories);
        usable(&paths)?;
        let fleets = directories.open_fleets()?;
        let folder = Self::in_folder(paths, fleets, name)?;
        if folder.spec_file().exists() {
            let spec = folder.finished()?;
            let remains = remains_of(&spec, &folder.state, &directories.host)?;
            let name = name.to_owned();
            return Err(FolderError::Exists { name, remains });
        }
        folder.empty()?;
        Ok(folder)
    }

    /// Makes a folder for guests on trial, with their sockets in it: where paths
    /// are short enough for those. It is removed when it is dropped.
    pub(crate) fn on_trial(name: &str, runtime: Private) -> Result<Self, FolderError> {
        let state = runtime.path().join(name);
        let paths = Paths {
            runtime: state.join("s"),
            state,
        };
        usable(&paths)?;
        let mut folder = Self::in_folder(paths, runtime, name)?;
        folder.make_folders()?;
        folder.make_new_runtime()?;
        Ok(folder)
    }

    /// Removes a folder in this one whose process is gone before it wrote of a
    /// fleet: of guests on trial, or of a launch.
    pub(crate) fn sweep(name: &str, within: &Private) -> Result<(), FolderError> {
        let path = within.path().join(name);
        match Lock::claim(within, name) {
            // It lives.
            Err(FolderError::Running { .. }) | Ok(None) => Ok(()),
            Ok(Some(_lock)) if path.join(SPEC).exists() => Ok(()),
            Ok(Some(_lock)) => within.remove(name).map_err(unwritable(&path)),
            Err(error) => Err(error),
        }
    }

    fn in_folder(paths: Paths, fleets: Private, name: &str) -> Result<Self, FolderError> {
        loop {
            fleets.make_folder(name)?;
            if let Some(lock) = Lock::claim(&fleets, name)? {
                let lock = Some(lock);
                return Ok(Self {
                    paths,
                    fleets,
                    lock,
                    sockets: None,
                    has_sockets: false,
                });
            }
        }
    }

    /// Removes all but what tells of the fleet.
    fn empty(&self) -> Result<(), FolderError> {
        let state = self.fleets.make_folder(self.name())?;
        for path in entries(&self.state)? {
            let name = path.file_name().unwrap_or_default();
            if name != lock::LOCK && name != SPEC {
                state.remove(name).map_err(unwritable(&path))?;
            }
        }
        Ok(())
    }

    /// Opens the folders of a fleet that nobody supervises, to go on with it.
    pub fn open(name: &str, directories: &Directories) -> Result<Self, FolderError> {
        let mut claimed = Self::claimed(name, directories);
        for _ in 0..TRIES {
            if !matches!(claimed, Err(FolderError::Running { .. })) {
                break;
            }
            sleep(PAUSE);
            claimed = Self::claimed(name, directories);
        }
        let folder = claimed?;
        folder.finished()?;
        Ok(folder)
    }

    /// What the fleet is, if its launch was done.
    fn finished(&self) -> Result<FleetSpec, FolderError> {
        let spec = self.spec()?;
        if spec.unfinished {
            return Err(FolderError::Unfinished { name: spec.name });
        }
        Ok(spec)
    }

    /// Takes the folders of a fleet that nobody supervises as they are, however
    /// little of them is left or can be read.
    pub(crate) fn claimed(name: &str, directories: &Directories) -> Result<Self, FolderError> {
        let fleets = list(directories)?;
        let of_that_name = fleets.iter().find(|found| found.name == name);
        let Some(found) = of_that_name else {
            return Err(FolderError::NotFound {
                name: name.to_owned(),
                fleets: fleets.into_iter().map(|found| found.name).collect(),
            });
        };
        if let Place::Elsewhere { host } = &found.place {
            return Err(FolderError::Elsewhere {
                name: name.to_owned(),
                path: found.path().to_path_buf(),
                host: host.clone(),
            });
        }
        Self::claim(found, directories)
    }

    fn claim(found: &Found, directories: &Directories) -> Result<Self, FolderError> {
        let gone = || FolderError::NotFound {
            name: found.name.clone(),
            fleets: Vec::new(),
        };
        let path = found.path().parent().ok_or_else(gone)?;
        let fleets = Private::open(path, Others::Look)?.ok_or_else(gone)?;
        let lock = Lock::claim(&fleets, &found.name)?;
        let lock = lock.filter(|_| found.paths.spec_file().exists());
        if lock.is_none() {
            let fleets = list(directories)?.into_iter().map(|found| found.name);
            return Err(FolderError::NotFound {
                name: found.name.clone(),
                fleets: fleets.collect(),
            });
        }
        // Its sockets may have moved since it was found.
        let state = found.path().to_path_buf();
        let runtime = Remnant::of(&state).runtime;
        let runtime = runtime.unwrap_or_else(|| found.paths.runtime.clone());
        Ok(Self {
            paths: Paths { state, runtime },
            fleets,
            lock,
            sockets: None,
            has_sockets: true,
        })
    }

    /// Makes the folders in the one of what it keeps that are not there.
    pub fn make_folders(&self) -> Result<(), FolderError> {
        self.folders()
            .iter()
            .try_for_each(|path| private_folder(path))
    }

    /// Makes the folder of sockets of a new fleet, which is nobody's yet.
    pub fn make_new_runtime(&mut self) -> Result<(), FolderError> {
        let within = Private::make(folder_of(&self.runtime), Others::Look)?;
        let name = self.runtime.file_name().unwrap_or_default();
        DirBuilder::new()
            .mode(0o700)
            .create(within.within(name))
            .map_err(unwritable(&self.runtime))?;
        self.has_sockets = true;
        self.make_runtime()
    }

    /// Makes the folder of sockets if it is not there: it goes with a log-in, a
    /// restart of the host, or whoever tidies up.
    pub fn make_runtime(&mut self) -> Result<(), FolderError> {
        Private::make(folder_of(&self.runtime), Others::Look)?;
        self.sockets = Some(Private::make(&self.runtime, Others::Look)?);
        Ok(())
    }

    /// Where to make a socket of this name: in the very folder that was judged,
    /// whatever stands in its place by now.
    pub fn socket(&self, path: &Path) -> PathBuf {
        match (&self.sockets, path.file_name()) {
            (Some(sockets), Some(name)) => sockets.within(name),
            _ => path.to_path_buf(),
        }
    }

    /// The same, elsewhere if it cannot be where it was: below `/run/user` only
    /// the log-in of its user makes folders. Tells whether it moved, which the
    /// spec is to say.
    pub fn move_runtime(&mut self) -> Result<bool, FolderError> {
        let Err(error) = self.make_runtime() else {
            return Ok(false);
        };
        let spare = self.spare_runtime();
        if spare == self.runtime {
            return Err(error);
        }
        let before = std::mem::replace(&mut self.paths.runtime, spare);
        let moved = usable(&self.paths).and_then(|()| self.make_runtime());
        if let Err(error) = moved {
            self.paths.runtime = before;
            return Err(error);
        }
        Ok(true)
    }

    /// Writes what the fleet is. From here on the folders stay until they are
    /// removed.
    pub fn write_spec(&self, spec: &FleetSpec) -> Result<(), FolderError> {
        let json = text::json_pretty(&SpecFile::from(spec.clone()))
            .expect("a spec has no map with other keys");
        let path = self.spec_file();
        durable::replace(&path, json.as_bytes()).map_err(unwritable(&path))?;
        Ok(())
    }

    /// Reads what the fleet is.
    pub fn spec(&self) -> Result<FleetSpec, FolderError> {
        read_spec(&self.state)
    }

    /// The fleet's name.
    pub fn name(&self) -> String {
        let name = self.state.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
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
        durable::beside(&Builder::new(), &path, bytes)
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
            tracing::warn!("cannot remove the fleet's folders: {error}");
        }
    }
}

/// A fleet's configuration of ssh(1), if its guests have a network.
pub fn ssh_config(state: &Path) -> PathBuf {
    state.join(SSH_CONFIG)
}

/// The host keys of a fleet's guests, one line a guest.
pub fn known_hosts(state: &Path) -> PathBuf {
    state.join(KNOWN_HOSTS)
}

/// The paths of a new fleet, its sockets where no other's are: fleets of several
/// state folders may have one name.
fn unused(name: &str, directories: &Directories) -> Paths {
    let mut paths = Paths::of(name, directories);
    let mut number = 1;
    while paths.runtime.exists() {
        number += 1;
        paths.runtime = directories.runtime.join(format!("{name}.{number}"));
    }
    paths
}

/// Whether the kernel takes these paths.
fn usable(paths: &Paths) -> Result<(), FolderError> {
    let last = paths.runtime.join("g99999.console");
    if last.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(FolderError::SocketPath { path: last });
    }
    Ok(())
}

fn private_folder(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(unwritable(path))
}

fn is_a_folder(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::IsADirectory
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> FolderError {
    move |source| FolderError::Unwritable {
        path: path.to_path_buf(),
        source,
    }
}

mod clear;
#[cfg(test)]
pub(crate) mod tests;
