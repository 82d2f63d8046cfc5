//! Locks that let one worker at a time, across processes, use an entry of the cache,
//! the record of what fleets have, or the record of host settings.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{io, thread};

use tracing::{info, warn};

use crate::interrupt::Interrupt;
use crate::{plain, private};

/// How often a lock is tried that another has.
const PAUSE: Duration = Duration::from_millis(20);

/// Locks a file, unless another process has it locked for longer than `may_wait`,
/// which is asked after each attempt, says to wait for it; tells whether it did.
pub(crate) fn wait(file: &File, mut may_wait: impl FnMut() -> bool) -> io::Result<bool> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if may_wait() => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// A lock held until it is dropped, or its process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Locks the file at `path`, made if it is not there. While another process
    /// holds it, says so once, naming `what` it works on, and waits; `None` when
    /// `interrupt` came first.
    ///
    /// The file stays: removing it would let two processes lock different files
    /// of the same name.
    pub(crate) fn acquire(
        path: &Path,
        what: &str,
        interrupt: &Interrupt,
    ) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent() {
            private::make_all(folder)?;
        }
        let file = plain::open_with(File::options().create(true).append(true), path)?;
        let mut said = false;
        let is_locked = wait(&file, || {
            if !said {
                info!("another imgbuild works on {what}: waiting for its result");
                said = true;
            }
            !interrupt.requested()
        })?;
        let path = path.to_owned();
        Ok((is_locked && !interrupt.requested()).then_some(Self { path, _file: file }))
    }

    /// Removes what killed processes left in `folder`: whatever is named
    /// `KEY.tmp-…` while nobody but this holds `KEY.lock`, beside this lock.
    pub(crate) fn sweep(&self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((key, _)) = name.to_str().and_then(|name| name.split_once(TEMPORARY)) else {
                continue;
            };
            let lock = self.path.with_file_name(format!("{key}.lock"));
            // It is held for as long as it is open, and so until its work is removed.
            let other = (lock != self.path)
                .then(|| plain::open(&lock).ok())
                .flatten();
            if other.as_ref().is_some_and(|file| file.try_lock().is_err()) {
                continue;
            }
            if let Err(error) = plain::if_there(fs::remove_dir_all(entry.path())) {
                warn!("cannot remove {}: {error}", entry.path().display());
            }
        }
    }
}

/// What stands between the key and the rest in the name of what is being made.
pub(crate) const TEMPORARY: &str = ".tmp-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks/one");
        let interrupt = Interrupt::never().unwrap();
        let first = Lock::acquire(&path, "it", &interrupt).unwrap().unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| Lock::acquire(&path, "it", &interrupt));
            thread::sleep(5 * PAUSE);
            assert!(!second.is_finished());
            drop(first);
            assert!(second.join().unwrap().unwrap().is_some());
        });
    }

    #[test]
    fn what_killed_processes_left_goes_and_what_others_make_stays() {
        let folder = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::never().unwrap();
        let take = |name: &str| {
            let path = folder.path().join(name);
            Lock::acquire(&path, "it", &interrupt).unwrap().unwrap()
        };
        let ours = take("ours.lock");
        let others = take("others.lock");
        drop(take("free.lock"));
        let made = [
            "ours.tmp-1",
            "others.tmp-2",
            "free.tmp-3",
            "none.tmp-4",
            "whole",
        ];
        for name in made {
            fs::create_dir_all(folder.path().join(name).join("sub")).unwrap();
        }
        ours.sweep(folder.path());
        let left = made.map(|name| folder.path().join(name).exists());
        assert_eq!(left, [false, true, false, false, true]);
        drop(others);
        ours.sweep(folder.path());
        assert!(!folder.path().join("others.tmp-2").exists());
    }

    #[test]
    fn what_is_no_file_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        plain::tests::fifo(&path);
        let interrupt = Interrupt::never().unwrap();
        let error = Lock::acquire(&path, "it", &interrupt).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[test]
    fn an_interrupt_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let interrupt = Interrupt::never().unwrap();
        let _first = Lock::acquire(&path, "it", &interrupt).unwrap().unwrap();
        interrupt.raise();
        assert!(Lock::acquire(&path, "it", &interrupt).unwrap().is_none());
    }
}
