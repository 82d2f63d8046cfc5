//! One fleet of a user at a time chooses what no other may have.

use std::fs::{File, TryLockError};
use std::thread::sleep;

use super::{Folder, FolderError, PAUSE};

/// A fleet's turn to choose ports, user ids and taps' addresses among those that
/// the specs beside its own leave. Kept until its own spec tells what it chose.
#[derive(Debug)]
pub(in crate::fleet) struct Turn {
    /// Of the folder that all fleets are in.
    _lock: File,
}

impl Folder {
    /// Waits for this fleet's turn for as long as `may_wait` says so; `None` if
    /// it has not come by then.
    pub(in crate::fleet) fn turn(
        &self,
        may_wait: impl Fn() -> bool,
    ) -> Result<Option<Turn>, FolderError> {
        let fleets = self.state.parent().expect("a fleet is in a folder");
        let unreadable = |source| FolderError::Unreadable {
            path: fleets.to_path_buf(),
            source,
        };
        let lock = File::open(fleets).map_err(unreadable)?;
        let mut said = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(Turn { _lock: lock })),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(unreadable(source)),
            }
            if !may_wait() {
                return Ok(None);
            }
            if !said {
                tracing::info!(
                    "another fleet chooses ports, user ids and addresses: waiting for its choice"
                );
                said = true;
            }
            sleep(PAUSE);
        }
    }
}
