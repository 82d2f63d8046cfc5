//! Removes a fleet's folders.

use std::fs;

use super::Folder;
use crate::durable::folder_of;
use crate::plain::if_there;
use crate::private::{Others, Private};
use crate::store::folder::{FolderError, is_a_folder, unwritable};

impl Folder {
    /// Removes the folders. The caller has seen to it that no guest lives.
    pub fn remove(mut self) -> Result<(), FolderError> {
        self.clear()
    }

    /// The spec last but for the folder itself, so that a removal that is cut
    /// short can be repeated.
    pub(super) fn clear(&mut self) -> Result<(), FolderError> {
        let Some(_lock) = self.lock.take() else {
            return Ok(());
        };
        let spec = self.spec_file();
        if self.has_sockets {
            self.remove_sockets();
        }
        self.empty()?;
        let removed = match fs::remove_file(&spec) {
            Err(error) if is_a_folder(&error) => fs::remove_dir_all(&spec),
            other => other,
        };
        if_there(removed).map_err(unwritable(&spec))?;
        // The locked folder last: until it is gone nobody can make it again.
        let removed = self.fleets.remove(self.name());
        removed.map_err(unwritable(&self.state))
    }

    /// Removes the folder of sockets, and nothing but sockets in it: where it is
    /// was read from a file, and another may stand in its place by now.
    pub(super) fn remove_sockets(&self) {
        let name = self.runtime.file_name().unwrap_or_default();
        let removed = match Private::open(folder_of(&self.runtime), Others::Look) {
            Ok(Some(within)) => within.remove_sockets(name).map_err(|e| e.to_string()),
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = removed {
            tracing::warn!("did not remove {}: {why}", self.runtime.display());
        }
    }
}
