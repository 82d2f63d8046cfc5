//! Which process has a fleet: the one that holds the lock in the fleet's folder.
//!
//! The lock is on a file, which names the process, and not on the folder itself,
//! because file systems that hosts share do not lock folders (nfs(5)).

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::thread::sleep;

use rustix::fs::OFlags;

use super::{FolderError, PAUSE, TRIES};
use crate::private::Private;

pub(crate) const LOCK: &str = "lock";
/// Most bytes of a process id.
const PID_MAX: u64 = 16;

/// Whether a process supervises a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervised {
    /// None does.
    No,
    /// One does, whose process id the fleet's lock may tell.
    By(Option<u32>),
}

/// A fleet's folder, locked for this process until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks the folder called `name` in `fleets`; `None` if it is not there.
    ///
    /// The lock goes when the folder goes; one that went while we waited for it
    /// is looked for again. Who only looks whether the fleet runs shares the
    /// lock for a moment, and is waited for.
    pub(super) fn claim(fleets: &Private, name: &str) -> Result<Option<Self>, FolderError> {
        let mut tries = 0;
        loop {
            let Some(folder) = fleets.folder(name)? else {
                return Ok(None);
            };
            let Some(mut file) = folder.file(LOCK, OFlags::RDWR | OFlags::CREATE)? else {
                continue;
            };
            let failed = |source| FolderError::Unwritable {
                path: folder.path().join(LOCK),
                source,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if tries == TRIES || file.try_lock_shared().is_err() {
                        return Err(FolderError::Running {
                            name: name.to_owned(),
                            pid: pid(&mut file),
                        });
                    }
                    drop(file);
                    tries += 1;
                    sleep(PAUSE);
                    continue;
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            let locked = file.metadata().map_err(failed)?.ino();
            let found = folder_lock(fleets, name)?;
            if found.is_some_and(|found| found == locked) {
                file.set_len(0).map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
                return Ok(Some(Self { _file: file }));
            }
        }
    }
}

/// The inode of the lock in the folder of that name, if there is one.
fn folder_lock(fleets: &Private, name: &str) -> Result<Option<u64>, FolderError> {
    let Some(folder) = fleets.folder(name)? else {
        return Ok(None);
    };
    let file = folder.file(LOCK, OFlags::RDONLY)?;
    let metadata = file.map(|file| file.metadata()).transpose();
    let metadata = metadata.map_err(|source| FolderError::Unreadable {
        path: folder.path().join(LOCK),
        source,
    })?;
    Ok(metadata.map(|metadata| metadata.ino()))
}

/// Whether a process has the fleet in this folder.
pub(crate) fn supervised(folder: &Private) -> Supervised {
    let Ok(Some(mut file)) = folder.file(LOCK, OFlags::RDONLY) else {
        return Supervised::No;
    };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Supervised::By(pid(&mut file)),
        _ => Supervised::No,
    }
}

fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    let read = |file: &mut File, text: &mut String| -> io::Result<usize> {
        file.take(PID_MAX).read_to_string(text)
    };
    read(file, &mut text).ok()?;
    text.trim().parse().ok()
}
