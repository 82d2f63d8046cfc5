//! `rm`: what a fleet without a supervisor left.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::Value;

use super::folder::{self, FolderError, Paths};
use super::orphans::{self, Living};
use super::site;
use super::spec::Instance;
use crate::directories::Directories;
use crate::units::counted;

/// How long after SIGKILL a guest may take to end.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Most bytes of a spec that are read.
const SPEC_MAX: u64 = 16 << 20;

/// What is done about guests that live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// The fleet stays.
    Spare,
    /// They are killed.
    Kill,
}

/// Why a fleet was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Its folder could not be opened or removed, or it is supervised.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Guests live.
    #[error(
        "fleet {name} has {}: `imgbuild launch --resume {name}` goes on with them, `imgbuild \
         rm --force {name}` kills them", counted(*living, "living guest")
    )]
    Living {
        /// The fleet.
        name: String,
        /// Guests that live.
        living: u64,
    },
    /// It cannot be told which guests are its.
    #[error(
        "{} does not tell which guests are those of fleet {name}: end them by hand, then \
         `imgbuild rm --force {name}` removes the folder", spec.display()
    )]
    Unknown {
        /// The fleet.
        name: String,
        /// Its spec.
        spec: PathBuf,
    },
    /// Guests could not be found or killed.
    #[error("cannot end the guests of fleet {name}: {source}")]
    Guests {
        /// The fleet.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// Removes the folders of a fleet that nothing supervises; gives the number of
/// guests that were killed for it.
pub fn remove(
    name: &str,
    directories: &Directories,
    survivors: Survivors,
) -> Result<u64, RemoveError> {
    let found = folder::list(directories)?;
    if !found.iter().any(|found| found.name == name) {
        return Err(FolderError::NotFound {
            name: name.to_owned(),
            fleets: found.into_iter().map(|found| found.name).collect(),
        }
        .into());
    }
    let paths = Paths::of(name, directories);
    // Held until the folder is gone: nobody resumes what is being removed.
    let _lock = lock(&paths, name)?;
    let guests = |source| RemoveError::Guests {
        name: name.to_owned(),
        source,
    };
    let instance = instance(&paths);
    let living = match instance {
        Some(instance) => orphans::living(Path::new("/"), instance).map_err(guests)?,
        None if survivors == Survivors::Spare => {
            return Err(RemoveError::Unknown {
                name: name.to_owned(),
                spec: paths.spec_file(),
            });
        }
        None => Vec::new(),
    };
    let number = living.len() as u64;
    if number > 0 && survivors == Survivors::Spare {
        return Err(RemoveError::Living {
            name: name.to_owned(),
            living: number,
        });
    }
    if let Some(instance) = instance {
        kill(&living, instance).map_err(guests)?;
        site::clear(name, instance);
    }
    for path in [paths.runtime(), paths.path()] {
        match fs::remove_dir_all(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(FolderError::Unwritable {
                    path: path.to_path_buf(),
                    source,
                }
                .into());
            }
            _ => {}
        }
    }
    Ok(number)
}

/// Takes the place of the fleet's supervisor.
fn lock(paths: &Paths, name: &str) -> Result<File, FolderError> {
    let unreadable = |source| FolderError::Unreadable {
        path: paths.path().to_path_buf(),
        source,
    };
    let folder = File::open(paths.path()).map_err(unreadable)?;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            // Who only looks whether the fleet runs shares the lock, for a moment.
            Err(TryLockError::WouldBlock) if folder.try_lock_shared().is_ok() => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::Running {
                    name: name.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unreadable(source)),
        }
    }
}

/// By what the fleet's guests are told, if no more of its spec can be read.
fn instance(paths: &Paths) -> Option<Instance> {
    let mut text = String::new();
    let file = File::open(paths.spec_file()).ok()?;
    file.take(SPEC_MAX).read_to_string(&mut text).ok()?;
    let spec: Value = serde_json::from_str(&text).ok()?;
    Instance::try_from(spec.get("instance")?.as_str()?.to_owned()).ok()
}

/// Kills guests, and returns when all have ended.
fn kill(living: &[Living], instance: Instance) -> io::Result<()> {
    // In turns, so that thousands do not take thousands of descriptors.
    for some in living.chunks(256) {
        let held: Vec<_> = some
            .iter()
            .filter_map(|one| orphans::open(one.pid, one.start_time, instance, one.guest))
            .collect();
        for pidfd in &held {
            match pidfd_send_signal(pidfd, Signal::KILL) {
                // It ended by itself.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let until = Instant::now() + KILL_WAIT;
        for pidfd in &held {
            wait(pidfd, until)?;
        }
    }
    Ok(())
}

/// Waits until a process ends.
fn wait(pidfd: &OwnedFd, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests;
