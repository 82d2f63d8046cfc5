//! The guest's first file system: a compressed cpio archive that the kernel
//! unpacks into memory before it starts `/init`.
//!
//! A [`Tree`] is put together from our init and, where a recipe has one, a root
//! file system's tar; [`pack`] turns it into the archive. Equal trees give equal
//! bytes, in whatever order and on whatever day they were put together. The
//! format is "newc" of Linux's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

mod error;
mod node;
mod pack;
mod path;
mod rootfs;
mod spool;
mod tree;

pub use error::{Problem, TreeError};
pub use pack::{PackError, Stats, pack};
pub use rootfs::RootfsError;
pub use tree::Tree;

use node::{Attributes, Device, DeviceClass};

/// What init mounts things on, with modes as a distribution has them.
const BASE_DIRECTORIES: [(&str, u16); 5] = [
    ("dev", 0o755),
    ("disk", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// The kernel opens it for init's first three descriptors, before any devtmpfs
/// is mounted; see `console_on_rootfs()` in Linux's `init/main.c`.
const CONSOLE: Device = Device {
    class: DeviceClass::Character,
    major: 5,
    minor: 1,
};

impl Tree {
    /// Adds what every guest needs: `/init` with these bytes, `/dev/console`,
    /// and the folders that init mounts things on, unless they are there.
    pub fn add_base(&mut self, init: Vec<u8>) -> Result<(), TreeError> {
        for (path, mode) in BASE_DIRECTORIES {
            if !self.contains(path)? {
                self.add_directory(path, Attributes::root(mode))?;
            }
        }
        self.add_device("dev/console", Attributes::root(0o600), CONSOLE)?;
        self.add_file("init", 0o755, init)
    }
}

#[cfg(test)]
mod tests;
