//! Guests that live on this host, whoever's: those of users who cannot write the
//! record rest on its settings all the same.

use std::path::Path;

use tty_init::identity::FW_CFG_NAME;

use super::SettingsError;
use crate::sample::processes::{self, command_line, is_gone, values};

/// How many guests of imgbuild live: processes that QEMU's option `-fw_cfg`
/// hands an identity.
pub(crate) fn living(root: &Path) -> Result<u64, SettingsError> {
    let proc = root.join("proc");
    let failed = |source| SettingsError::Guests {
        path: proc.clone(),
        source,
    };
    let mut guests = 0;
    for process in processes::folders(root).map_err(failed)? {
        match command_line(&process.map_err(failed)?) {
            Ok(line) => guests += u64::from(is_guest(&line)),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(guests)
}

/// Whether a command line is a guest's. The name alone may be in that of who
/// looks for guests.
fn is_guest(line: &[u8]) -> bool {
    values(line, b"-fw_cfg").any(names_identity)
}

fn names_identity(value: &[u8]) -> bool {
    value
        .strip_prefix(b"name=")
        .and_then(|rest| rest.strip_prefix(FW_CFG_NAME.as_bytes()))
        .is_some_and(|rest| rest.starts_with(b","))
}
