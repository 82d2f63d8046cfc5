//! The folders of processes below `/proc` (proc_pid(5)).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Most bytes of a command line that are looked at. A guest's takes less: a few
/// paths of 4 KiB each.
const LONGEST: u64 = 32 * 1024;

/// The folder of each process below `root`.
pub(crate) fn folders(root: &Path) -> io::Result<impl Iterator<Item = io::Result<PathBuf>>> {
    Ok(
        fs::read_dir(root.join("proc"))?.filter_map(|entry| match entry {
            Ok(entry) => is_process(entry.file_name().as_encoded_bytes()).then(|| Ok(entry.path())),
            Err(error) => Some(Err(error)),
        }),
    )
}

/// Whether what has this name in `/proc` is a process.
pub(crate) fn is_process(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_digit)
}

/// Whether a file of a process could not be read because that has ended.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The command line of the process with this folder, whose arguments end with a
/// zero byte each; that of a zombie is empty (`proc_pid_cmdline(5)`).
pub(crate) fn command_line(process: &Path) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    File::open(process.join("cmdline"))?
        .take(LONGEST)
        .read_to_end(&mut line)?;
    Ok(line)
}

/// What follows each `option` of a command line.
pub(crate) fn values<'a>(line: &'a [u8], option: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let arguments = || line.split(|&byte| byte == 0);
    arguments()
        .zip(arguments().skip(1))
        .filter(move |(argument, _)| *argument == option)
        .map(|(_, value)| value)
}
