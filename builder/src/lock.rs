//! One worker at a time on one thing in the cache, across processes.

use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tracing::info;

use crate::{interrupt::Interrupt, plain};

const RETRY: Duration = Duration::from_millis(100);

/// A lock held until it is dropped, or its process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks the file at `path`, made if it is not there. While another process
    /// holds it, says so once, naming `what` it works on, and waits; `None` when
    /// `interrupt` came first.
    ///
    /// The file stays: removing it would let two processes lock different files
    /// of the same name.
    pub fn acquire(path: &Path, what: &str, interrupt: &Interrupt) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = plain::open_with(File::options().create(true).append(true), path)?;
        let mut said = false;
        while !interrupt.requested() {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(Errno::WOULDBLOCK) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if !said {
                info!("another imgbuild works on {what}: waiting for its result");
                said = true;
            }
            thread::sleep(RETRY);
        }
        Ok(None)
    }
}

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
            thread::sleep(2 * RETRY);
            assert!(!second.is_finished());
            drop(first);
            assert!(second.join().unwrap().unwrap().is_some());
        });
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
