//! Counts the living guests of all users: guests of users who cannot write the
//! record depend on its settings as well.

use std::path::Path;

use super::SettingsError;
use crate::sample::processes::{self, command_line, is_gone};
use crate::vmm::qemu::traces::has_identity;

/// How many guests of imgbuild live: processes of QEMU that are handed an
/// identity.
pub(crate) fn living(root: &Path) -> Result<u64, SettingsError> {
    let proc = root.join("proc");
    let failed = |source| SettingsError::Guests {
        path: proc.clone(),
        source,
    };
    let mut guests = 0;
    for process in processes::folders(root).map_err(failed)? {
        match command_line(&process.map_err(failed)?) {
            Ok(line) => guests += u64::from(has_identity(&line)),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(guests)
}
