//! The guest's first file system: a compressed cpio archive that the kernel
//! unpacks into memory before it starts `/init`.
//!
//! A [`Tree`], which a disk can hold as well, is made of our init and, if the
//! recipe has one, a root file system's tar; [`pack`] turns it into the archive.
//! Equal trees give equal bytes, whatever the order and the time in which they
//! were made. The format is "newc" of Linux's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use crate::tree::Tree;
use crate::tree::error::TreeError;
use crate::tree::node::{Attributes, Device, DeviceClass};

mod pack;
mod rootfs;
mod sparse;
mod zstd;

pub use pack::{PackError, Stats, pack};
pub use rootfs::RootfsError;

/// What init mounts things on, with modes as a distribution has them.
const BASE_DIRECTORIES: [(&str, u16); 4] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// Where init finds what it is to run.
const COMMAND: &str = "init.command";

/// The kernel opens it for init's first three descriptors, before any devtmpfs
/// is mounted; see `console_on_rootfs()` in Linux's `init/main.c`.
const CONSOLE: Device = Device {
    class: DeviceClass::Character,
    major: 5,
    minor: 1,
};

impl Tree {
    /// Adds the folders that init mounts things on, unless they are there.
    pub fn add_folders(&mut self) -> Result<(), TreeError> {
        for (path, mode) in BASE_DIRECTORIES {
            self.add_folder(path, mode)?;
        }
        Ok(())
    }

    /// Adds what every guest's initramfs needs: those folders and `/disk`,
    /// `/dev/console`, `/init` with these bytes, and in `/init.command` the words
    /// of the program that it is to run. Whatever stood there gives way.
    pub fn add_base(&mut self, init: Vec<u8>, command: &[String]) -> Result<(), TreeError> {
        self.add_folders()?;
        self.add_folder("disk", 0o755)?;
        self.add_device("dev/console", Attributes::root(0o600), CONSOLE)?;
        if !command.is_empty() || self.contains(COMMAND)? {
            let words = command.iter().flat_map(|word| [word.as_str(), "\0"]);
            self.add_file(COMMAND, 0o600, words.collect::<String>().into_bytes())?;
        }
        self.add_file("init", 0o755, init)
    }

    fn add_folder(&mut self, path: &str, mode: u16) -> Result<(), TreeError> {
        if self.contains(path)? {
            return Ok(());
        }
        self.add_directory(path, Attributes::root(mode))
    }
}

#[cfg(test)]
mod tests;
