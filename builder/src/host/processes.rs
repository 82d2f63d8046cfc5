//! The folders of processes below `/proc` (proc_pid(5)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of each process below `root`.
pub(super) fn folders(root: &Path) -> io::Result<impl Iterator<Item = io::Result<PathBuf>>> {
    Ok(
        fs::read_dir(root.join("proc"))?.filter_map(|entry| match entry {
            Ok(entry) => is_process(entry.file_name().as_encoded_bytes()).then(|| Ok(entry.path())),
            Err(error) => Some(Err(error)),
        }),
    )
}

/// Whether what has this name in `/proc` is a process.
pub(super) fn is_process(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_digit)
}

/// Whether a file of a process could not be read because that has ended.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}
