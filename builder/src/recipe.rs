//! Recipes: `images/*.toml` → a validated [`Recipe`].
//!
//! The file is parsed into plain values first and then judged by one list of rules,
//! so that an error lists every wrong key at once: key, value, rule.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::any_path;
use crate::disk::ext4::Label;
use crate::units::{ByteSize, Duty};
use file::RecipeFile;

pub mod built_in;
mod file;

/// Largest recipe file, in bytes; a recipe is a page of text.
const FILE_MAX: u64 = 64 * 1024;
/// Memory of a guest: least, in which its kernel boots, and most.
const MEMORY: [ByteSize; 2] = [size(32 << 20), size(1 << 40)];
/// Disk of a guest: least, which ext4 wants, and most.
const DISK: [ByteSize; 2] = [size(16 << 20), size(2 << 40)];

const fn size(bytes: u64) -> ByteSize {
    ByteSize::new(bytes).expect("it is not zero")
}

/// What to build, as resolved from a recipe file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Name of the recipe, of its output folder and of its fleets.
    pub name: String,
    /// One line for `imgbuild list`.
    pub description: String,
    /// RAM of a guest.
    pub memory: ByteSize,
    /// How long a guest may take to report ready, in seconds, before boot
    /// verification gives it up.
    pub boot_timeout_seconds: u64,
    /// What the guest burns from the moment it is ready.
    pub burn: Burn,
    /// Its disk.
    pub disk: Disk,
    /// Its kernel.
    pub kernel: Kernel,
    /// Its user land, where it has one besides init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Rootfs>,
    /// Who serves SSH in the guest.
    #[serde(default, skip_serializing_if = "Ssh::is_default")]
    pub ssh: Ssh,
    /// Single files put over the root file system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ExtraFile>,
}

/// The CPU burn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burn {
    /// Share of the time that each thread burns, in percent.
    pub duty: Duty,
    /// Number of threads.
    pub threads: u16,
}

/// The base image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Virtual size.
    pub size: ByteSize,
    /// ext4 volume label.
    pub label: Label,
}

/// The kernel's configuration and command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Names of the fragments, in order.
    pub fragments: Vec<String>,
    /// Parameters added to the ones that every guest needs.
    pub command_line: String,
}

/// A root file system, from a tar archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// The archive, relative to the recipe's folder; `None` where it must come
    /// from the command line.
    #[serde(with = "any_path::option")]
    pub source: Option<PathBuf>,
    /// Where the guest has it.
    pub place: Place,
    /// A program that the guest runs once it is ready, and its arguments; empty
    /// for none.
    pub command: Vec<String>,
}

/// Where a guest has its root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In memory, unpacked at every boot
    Initramfs,
    /// On the disk, which the guest switches to
    Disk,
}

/// How guests are logged in to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ssh {
    /// Who serves it.
    pub server: SshServer,
}

impl Ssh {
    /// Whether it is as where nothing is said.
    pub fn is_default(&self) -> bool {
        self.server.is_default()
    }
}

/// What serves SSH in a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SshServer {
    /// imgbuild's init: commands, and no terminals or files
    #[default]
    Imgbuild,
    /// The image's own sshd or dropbear
    Image,
}

impl SshServer {
    /// Whether it is what serves where nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One file put over the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraFile {
    /// Absolute path in the guest.
    pub path: String,
    /// The file, relative to the recipe's folder.
    #[serde(with = "any_path")]
    pub source: PathBuf,
    /// Permission bits.
    pub mode: u16,
}

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error(
        "recipe {}: {source}; `imgbuild list` lists the built-in ones, and `imgbuild build RECIPE \
         --out OUT` builds one into an output folder",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than a recipe can be.
    #[error("recipe {}: {size} bytes; a recipe has at most {FILE_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// Not TOML, or a key of the wrong type or name.
    #[error("recipe {}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the TOML reader says, with line and key.
        source: Box<toml::de::Error>,
    },
    /// Well-formed, but against the rules.
    #[error("recipe {}: {}", path.display(), broken.join("; "))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// One sentence a broken rule: key, value, rule.
        broken: Vec<String>,
    },
    /// A root file system for a recipe that has none.
    #[error(
        "--rootfs, --rootfs-place and --ssh-server image do not apply to recipe {recipe}, which has \
         no table [rootfs]; use a recipe that has one, such as debian-shell"
    )]
    NoRootfs {
        /// The recipe.
        recipe: String,
    },
    /// No archive, neither in the recipe nor on the command line.
    #[error(
        "recipe {recipe} needs the tar of a root file system: give it with --rootfs PATH; \
         `debootstrap --variant=minbase bookworm DIR` and `tar -C DIR -cf root.tar .` make one, \
         and so does `docker export CONTAINER > root.tar`"
    )]
    NoArchive {
        /// The recipe.
        recipe: String,
    },
    /// No built-in recipe of that name.
    #[error("no recipe named {name}; there are {}; give a path for one of your own", known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The built-in ones.
        known: Vec<String>,
    },
}

impl Recipe {
    /// Reads and judges a recipe file.
    pub fn load(path: &Path) -> Result<Self, RecipeError> {
        let unreadable = |source| RecipeError::Unreadable {
            path: path.to_path_buf(),
            source,
        };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > FILE_MAX {
            let path = path.to_path_buf();
            return Err(RecipeError::TooLarge { path, size });
        }
        Self::parse(path, &std::fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Judges a recipe's text; `path` names it in messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, RecipeError> {
        let file: RecipeFile = toml::from_str(text).map_err(|source| RecipeError::Syntax {
            path: path.to_path_buf(),
            source: Box::new(source),
        })?;
        file.judge().map_err(|broken| RecipeError::Invalid {
            path: path.to_path_buf(),
            broken,
        })
    }

    /// The kernel command line of a guest, before what the launcher adds.
    ///
    /// `reboot=t` resets by triple fault, the only way off a board without
    /// ACPI; `panic=-1` does so at once; `tsc=reliable` stops the clocksource
    /// watchdog; `no_timer_check` spares a wait of 40 ms for ticks that KVM
    /// guests are spared anyway; `initramfs_async=0` unpacks the initramfs
    /// before the boot goes on, so that memory is handed out in the same order
    /// in every guest; the tables of directory entries, inodes and connections
    /// are sized for the few that a guest has, not for its RAM (kernel document
    /// admin-guide/kernel-parameters); QEMU's `fw_cfg` has 12 ports from 0x510
    /// (kernel source drivers/firmware/qemu_fw_cfg.c).
    pub fn command_line(&self) -> String {
        let mut line = "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable no_timer_check \
                        initramfs_async=0 dhash_entries=256 ihash_entries=256 thash_entries=64 \
                        qemu_fw_cfg.ioport=12@0x510"
            .to_owned();
        for part in [
            self.kernel.command_line.as_str(),
            &format!("tty.threads={}", self.burn.threads),
            if self.root_on_disk() {
                "tty.root=disk"
            } else {
                ""
            },
            match self.ssh.server {
                SshServer::Imgbuild => "",
                SshServer::Image => "tty.ssh=image",
            },
        ] {
            if !part.is_empty() {
                line.push(' ');
                line.push_str(part);
            }
        }
        line
    }

    /// Whether the guest's root is its disk.
    pub fn root_on_disk(&self) -> bool {
        self.rootfs
            .as_ref()
            .is_some_and(|rootfs| rootfs.place == Place::Disk)
    }

    /// Whether its root file system has to be given on the command line.
    pub fn lacks_archive(&self) -> bool {
        let rootfs = self.rootfs.as_ref();
        rootfs.is_some_and(|rootfs| rootfs.source.is_none())
    }

    /// Whether its guests may have a shell of their own.
    pub fn may_hold_shell(&self) -> bool {
        let has_file = |path| self.files.iter().any(|file| file.path == path);
        self.rootfs.is_some() || has_file("/bin/sh")
    }

    /// Takes what the command line says of the root file system: the archive,
    /// relative to this process's folder, and where the guest has it.
    pub fn choose_rootfs(
        &mut self,
        source: Option<PathBuf>,
        place: Option<Place>,
    ) -> Result<(), RecipeError> {
        let recipe = || self.name.clone();
        let Some(rootfs) = &mut self.rootfs else {
            return match (source, place) {
                (None, None) => Ok(()),
                _ => Err(RecipeError::NoRootfs { recipe: recipe() }),
            };
        };
        rootfs.source = match source {
            None => rootfs.source.take(),
            Some(source) if is_stdin(&source) => Some(source),
            Some(source) => {
                Some(
                    std::path::absolute(&source).map_err(|error| RecipeError::Unreadable {
                        path: source,
                        source: error,
                    })?,
                )
            }
        };
        rootfs.place = place.unwrap_or(rootfs.place);
        match rootfs.source {
            Some(_) => Ok(()),
            None => Err(RecipeError::NoArchive { recipe: recipe() }),
        }
    }

    /// Takes what the command line says of the SSH server.
    pub fn choose_ssh_server(&mut self, server: Option<SshServer>) -> Result<(), RecipeError> {
        self.ssh.server = server.unwrap_or(self.ssh.server);
        if self.ssh.server == SshServer::Image && self.rootfs.is_none() {
            let recipe = self.name.clone();
            return Err(RecipeError::NoRootfs { recipe });
        }
        Ok(())
    }

    /// The same recipe with the names of its files and not their folders, which
    /// differ from machine to machine.
    pub fn without_paths(&self) -> Self {
        let name = |path: &PathBuf| path.file_name().map(PathBuf::from).unwrap_or_default();
        let mut recipe = self.clone();
        if let Some(rootfs) = &mut recipe.rootfs {
            rootfs.source = rootfs.source.as_ref().map(name);
        }
        for file in &mut recipe.files {
            file.source = name(&file.source);
        }
        recipe
    }

    /// How long a guest may take to report ready.
    pub fn boot_timeout(&self) -> Duration {
        Duration::from_secs(self.boot_timeout_seconds)
    }
}

/// Whether an archive's path stands for stdin, as for tar(1).
pub(crate) fn is_stdin(source: &Path) -> bool {
    source == Path::new("-")
}

/// Reads a guest's RAM, as a recipe and `--memory` give it.
pub fn guest_memory(text: &str) -> Result<ByteSize, String> {
    size_within(text, MEMORY, size(1 << 20), "QEMU counts RAM in whole MiB")
}

/// Reads a disk's virtual size, as a recipe and `--disk-size` give it.
pub fn disk_size(text: &str) -> Result<ByteSize, String> {
    size_within(text, DISK, size(4096), "ext4 counts in blocks of 4 KiB")
}

fn size_within(
    text: &str,
    [min, max]: [ByteSize; 2],
    unit: ByteSize,
    why: &str,
) -> Result<ByteSize, String> {
    let size = ByteSize::from_str(text).map_err(|error| error.to_string())?;
    if !(min..=max).contains(&size) {
        Err(format!("must be {min} to {max}"))
    } else if size.bytes() % unit.bytes() != 0 {
        Err(format!("must be a multiple of {unit}: {why}"))
    } else {
        Ok(size)
    }
}

/// A name that is safe as a file name, a fleet name and a fragment name.
pub fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests;
