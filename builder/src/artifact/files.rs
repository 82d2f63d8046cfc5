//! Files that are written once.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes a file that is not written again.
pub(crate) fn write_read_only(path: &Path, bytes: &[u8]) -> io::Result<()> {
    create_read_only(path)?.write_all(bytes)
}

/// Creates a file that only the handle can write, and that those may read whom the
/// umask lets: it may hold an image's secrets.
pub(super) fn create_read_only(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)
}
