//! `rm`: removes a fleet that has no supervisor.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Signal, pidfd_send_signal};

use super::site;
use crate::directories::Directories;
use crate::interrupt::{Interrupt, poll_until};
use crate::store::claims::Register;
use crate::store::folder::{self, Folder, FolderError, Paths, Remnant, sweep};
use crate::store::journal;
use crate::store::orphans::{self, Living, Mark};
use crate::units::counted;

/// How long after SIGKILL a guest may take to end.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// What is done about guests that live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survivors {
    Spare,
    Kill,
}

/// Why a fleet was not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoveError {
    /// Its folder could not be opened or removed, or it is supervised.
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(
        "fleet {name} has {}: `imgbuild launch --resume {name}` resumes it, `imgbuild \
         rm --force {name}` kills them", counted(*living, "living guest")
    )]
    Living { name: String, living: u64 },
    /// It is not known which guests are its.
    #[error(
        "cannot find out from {} which processes are guests of fleet {name}: `imgbuild rm --force \
         {name}` ends those that its journal names, and removes the fleet; look for others then \
         with `pgrep -af qemu`",
        spec.display()
    )]
    Unknown { name: String, spec: PathBuf },
    /// Guests could not be found or killed.
    #[error("cannot end the guests of fleet {name}: {source}")]
    Guests { name: String, source: io::Error },
}

/// Removes the folders of a fleet that nothing supervises; gives the number of
/// guests that were killed for it.
pub(crate) fn remove(
    name: &str,
    directories: &Directories,
    survivors: Survivors,
) -> Result<u64, RemoveError> {
    sweep(directories);
    // Held until the folders are gone: nobody resumes what is being removed.
    let folder = Folder::claimed(name, directories)?;
    let guests = |source| RemoveError::Guests {
        name: name.to_owned(),
        source,
    };
    let recorded = Remnant::of(folder.path()).mark;
    if recorded.is_none() && survivors == Survivors::Spare {
        return Err(RemoveError::Unknown {
            name: name.to_owned(),
            spec: folder.spec_file(),
        });
    }
    let mark = recorded.or_else(|| shown(&folder));
    let living = match mark {
        Some(mark) => orphans::living(Path::new("/"), mark).map_err(guests)?,
        None => Vec::new(),
    };
    let number = living.len() as u64;
    if number > 0 && survivors == Survivors::Spare {
        return Err(RemoveError::Living {
            name: name.to_owned(),
            living: number,
        });
    }
    if let Some(mark) = mark {
        kill(&living, mark).map_err(guests)?;
        site::clear(name, mark.instance);
    }
    let (register, fleet) = (Register::beside(&folder), folder.path().to_path_buf());
    folder.remove()?;
    if let Some(mark) = mark {
        register.give_back(&fleet, mark.instance);
    }
    Ok(number)
}

/// What came of the removal of a fleet.
pub(crate) type Removed = (String, Result<u64, RemoveError>);

/// Removes every fleet of this user and host that nothing supervises, until the
/// user interrupts, and what guests on trial left; gives for each what
/// [`remove`] does.
pub(crate) fn remove_all(
    directories: &Directories,
    survivors: Survivors,
    interrupt: &Interrupt,
) -> Result<Vec<Removed>, FolderError> {
    sweep(directories);
    let all = folder::list(directories)?;
    let left = all
        .into_iter()
        .filter(|found| !found.is_elsewhere() && !found.is_supervised())
        .take_while(|_| !interrupt.requested());
    let removed = left.map(|found| {
        let removed = remove(&found.name, directories, survivors);
        (found.name, removed)
    });
    Ok(removed.collect())
}

/// Removes the throw-away fleets whose process was killed, as far as it can be.
pub(crate) fn sweep_private(directories: &Directories) {
    for found in folder::list(directories).unwrap_or_default() {
        if folder::is_private(&found.name)
            && !found.is_elsewhere()
            && !found.is_supervised()
            && let Err(error) = remove(&found.name, directories, Survivors::Kill)
        {
            tracing::debug!("cannot remove what a killed process left: {error}");
        }
    }
}

/// What tells the fleet's guests, by one that its journal tells of and that lives,
/// if nothing of its spec can be read.
fn shown(paths: &Paths) -> Option<Mark> {
    let past = journal::replay(&paths.journal()).ok()?.guests;
    let owner = paths.path().metadata().ok()?.uid();
    past.iter().find_map(|(guest, past)| {
        let run = past.last?;
        orphans::mark(Path::new("/"), run.pid, run.start_time, *guest, owner)
    })
}

/// Kills guests, and returns when all have ended.
fn kill(living: &[Living], mark: Mark) -> io::Result<()> {
    // In turns, so that thousands do not take thousands of descriptors.
    for some in living.chunks(256) {
        let held: Vec<_> = some
            .iter()
            .filter_map(|one| orphans::open(one.pid, one.start_time, mark, one.guest))
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
            if !poll_until(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(until))? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
