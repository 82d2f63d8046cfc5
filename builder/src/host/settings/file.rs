//! Files of the kernel that hold one number each.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use super::Knob;

/// More than any number takes, in bytes.
const LONGEST: u64 = 64;

/// Reads a file that holds one number.
pub(crate) fn number(path: &Path) -> io::Result<u64> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    text.trim_ascii().parse().map_err(|_| {
        let text = format!("{:?} is not a number", text.trim_ascii());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// The present value of a knob.
pub(crate) fn read(root: &Path, knob: Knob) -> io::Result<u64> {
    number(&root.join(knob.path()))
}

pub(crate) fn write(root: &Path, knob: Knob, value: u64) -> io::Result<()> {
    #[cfg(test)]
    super::tests::fuse::burn();
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(root.join(knob.path()))?
        // One write(2): the kernel parses each by itself.
        .write_all(format!("{value}\n").as_bytes())
}

/// Whether a knob may be written, without writing it.
pub(crate) fn may_write(root: &Path, knob: Knob) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(root.join(knob.path()))
        .map(drop)
}
