//! Guests that live on this host, whoever's: those of users who cannot write the
//! record rest on its settings all the same.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use tty_init::identity::FW_CFG_NAME;

use super::SettingsError;
use crate::host::processes::{self, is_gone};

/// Most bytes of a command line that are looked at. A guest's takes less: a few
/// paths of 4 KiB each.
const LONGEST: u64 = 32 * 1024;

/// How many guests of imgbuild live: processes that QEMU's option `-fw_cfg`
/// hands an identity.
pub(super) fn living(root: &Path) -> Result<u64, SettingsError> {
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

/// The command line of the process with this folder; that of a zombie is empty
/// (`proc_pid_cmdline(5)`).
fn command_line(process: &Path) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    File::open(process.join("cmdline"))?
        .take(LONGEST)
        .read_to_end(&mut line)?;
    Ok(line)
}

/// Whether a command line, whose arguments end with a zero byte each, is a
/// guest's. The name alone may be in that of who looks for guests.
fn is_guest(line: &[u8]) -> bool {
    let arguments = || line.split(|&byte| byte == 0);
    arguments()
        .zip(arguments().skip(1))
        .any(|(option, value)| option == b"-fw_cfg" && names_identity(value))
}

fn names_identity(value: &[u8]) -> bool {
    value
        .strip_prefix(b"name=")
        .and_then(|rest| rest.strip_prefix(FW_CFG_NAME.as_bytes()))
        .is_some_and(|rest| rest.starts_with(b","))
}
