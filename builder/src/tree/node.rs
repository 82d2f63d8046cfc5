//! The kinds of files in a tree.

use super::error::Problem;
use super::spool::Spooled;

/// Largest device numbers that Linux has: 12 and 20 bits.
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;

/// Who may do what with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits, with set-id and sticky bits.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Attributes {
    pub(crate) const fn root(mode: u16) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceClass {
    Block,
    Character,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) class: DeviceClass,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Device {
    /// Whether Linux has such a device at all.
    pub(crate) const fn check(self) -> Result<(), Problem> {
        let Self { major, minor, .. } = self;
        if major > MAX_MAJOR || minor > MAX_MINOR {
            Err(Problem::DeviceNumber { major, minor })
        } else {
            Ok(())
        }
    }
}

/// What stands behind a path; the hard links of a file share one.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) attributes: Attributes,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Directory,
    File(Content),
    Symlink(Vec<u8>),
    Device(Device),
}

/// A file's bytes: our own in memory, an archive's on disk.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Memory { bytes: Vec<u8>, size: u32 },
    Spooled(Spooled),
}

impl Content {
    /// How many bytes it has.
    pub(crate) const fn size(&self) -> u32 {
        match self {
            Self::Memory { size, .. } => *size,
            Self::Spooled(spooled) => spooled.size,
        }
    }
}
