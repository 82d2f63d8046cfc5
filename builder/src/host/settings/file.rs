//! Reads and writes settings: files of the kernel that hold one number each, and
//! the nice value of ksmd.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::str::FromStr;

use super::{Knob, ksmd};

/// More than any number takes, in bytes.
const LONGEST: u64 = 64;

/// Reads a file that holds one number.
pub(crate) fn number<T: FromStr>(path: &Path) -> io::Result<T> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    text.trim_ascii().parse().map_err(|_| {
        let text = format!("{:?} is not a number", text.trim_ascii());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// The present value of a knob.
pub(crate) fn read(root: &Path, knob: Knob) -> io::Result<i64> {
    match knob.file() {
        Some(file) => number(&root.join(file)),
        None => ksmd::nice(root),
    }
}

pub(crate) fn write(root: &Path, knob: Knob, value: i64) -> io::Result<()> {
    #[cfg(test)]
    super::tests::fuse::burn();
    let Some(file) = knob.file() else {
        return ksmd::set_nice(root, value);
    };
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(root.join(file))?
        // One write(2): the kernel parses each by itself.
        .write_all(format!("{value}\n").as_bytes())
}

/// Whether a knob may be written, without writing it.
pub(crate) fn may_write(root: &Path, knob: Knob) -> io::Result<()> {
    match knob.file() {
        Some(file) => (OpenOptions::new().write(true).open(root.join(file))).map(drop),
        None => ksmd::may_set(),
    }
}
