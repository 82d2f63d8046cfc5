//! A recipe file as written, and the rules that judge it.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr as _;

use serde::Deserialize;

use super::{
    Burn, Disk, ExtraFile, Kernel, Place, Recipe, Rootfs, Ssh, SshServer, disk_size, guest_memory,
    is_name,
};
use crate::disk::ext4::Label;
use crate::units::{ByteSize, Duty};

/// Most words of a root file system's command: what the guest's init hands on.
const COMMAND_WORDS: usize = 8;
/// Most bytes of them, each with the NUL at its end: init's buffer.
const COMMAND_BYTES: usize = 1024;

/// The file as written, before the rules are applied.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecipeFile {
    name: String,
    #[serde(default)]
    description: String,
    guest: GuestTable,
    #[serde(default)]
    burn: BurnTable,
    disk: DiskTable,
    kernel: KernelTable,
    rootfs: Option<RootfsTable>,
    ssh: Option<SshTable>,
    #[serde(default)]
    files: Vec<FileTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestTable {
    memory: String,
    #[serde(default = "default_boot_timeout")]
    boot_timeout: String,
}

fn default_boot_timeout() -> String {
    "60s".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BurnTable {
    duty: i64,
    threads: i64,
}

impl Default for BurnTable {
    fn default() -> Self {
        Self {
            duty: 100,
            threads: 1,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskTable {
    size: String,
    label: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KernelTable {
    fragments: Vec<String>,
    #[serde(default)]
    command_line: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RootfsTable {
    source: Option<PathBuf>,
    place: String,
    #[serde(default)]
    command: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SshTable {
    server: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    path: String,
    source: PathBuf,
    #[serde(default = "default_mode")]
    mode: String,
}

fn default_mode() -> String {
    "0644".to_owned()
}

/// Collects broken rules, so that all are reported at once.
#[derive(Default)]
struct Rules {
    broken: Vec<String>,
}

impl Rules {
    fn require(&mut self, is_met: bool, key: &str, value: impl Display, rule: &str) {
        if !is_met {
            self.broken.push(format!("{key} = {value}: {rule}"));
        }
    }

    fn size(
        &mut self,
        key: &str,
        value: &str,
        read: impl Fn(&str) -> Result<ByteSize, String>,
    ) -> Option<ByteSize> {
        read(value)
            .inspect_err(|rule| self.require(false, key, format!("{value:?}"), rule))
            .ok()
    }

    fn integer<T: TryFrom<i64> + Default>(
        &mut self,
        key: &str,
        value: i64,
        min: i64,
        max: i64,
    ) -> T {
        self.require(
            (min..=max).contains(&value),
            key,
            value,
            &format!("must be {min} to {max}"),
        );
        T::try_from(value).unwrap_or_default()
    }

    fn rootfs(&mut self, table: RootfsTable) -> Rootfs {
        let place = match table.place.as_str() {
            "initramfs" => Some(Place::Initramfs),
            "disk" => Some(Place::Disk),
            _ => None,
        };
        self.require(
            place.is_some(),
            "rootfs.place",
            format!("{:?}", table.place),
            "must be \"initramfs\" or \"disk\"",
        );
        let command = table.command;
        let bytes: usize = command.iter().map(|word| word.len() + 1).sum();
        self.require(
            command.first().is_none_or(|path| path.starts_with('/'))
                && command.len() <= COMMAND_WORDS
                && bytes <= COMMAND_BYTES
                && !command.iter().any(|word| word.contains('\0')),
            "rootfs.command",
            format!("{command:?}"),
            "must be the absolute path of a program in the guest and its arguments, \
             8 words and 1024 bytes at the most, without NUL",
        );
        Rootfs {
            source: table.source,
            place: place.unwrap_or(Place::Initramfs),
            command,
        }
    }

    fn ssh(&mut self, table: &SshTable, rootfs: Option<&Rootfs>) -> Ssh {
        let server = match table.server.as_str() {
            "imgbuild" => Some(SshServer::Imgbuild),
            "image" => Some(SshServer::Image),
            _ => None,
        };
        let value = format!("{:?}", table.server);
        self.require(
            server.is_some(),
            "ssh.server",
            &value,
            "must be \"imgbuild\" or \"image\"",
        );
        self.require(
            server != Some(SshServer::Image) || rootfs.is_some(),
            "ssh.server",
            &value,
            "must not be the image's where there is no table [rootfs]",
        );
        Ssh {
            server: server.unwrap_or_default(),
        }
    }

    fn files(&mut self, files: Vec<FileTable>) -> Vec<ExtraFile> {
        files
            .into_iter()
            .map(|file| {
                self.require(
                    file.path.starts_with('/') && !file.path.ends_with('/'),
                    "files.path",
                    format!("{:?}", file.path),
                    "must be an absolute path of a file in the guest",
                );
                let mode = u16::from_str_radix(&file.mode, 8).unwrap_or(u16::MAX);
                self.require(
                    mode <= 0o7777,
                    "files.mode",
                    format!("{:?}", file.mode),
                    "must be octal permission bits from \"0000\" to \"7777\"",
                );
                ExtraFile {
                    path: file.path,
                    source: file.source,
                    mode,
                }
            })
            .collect()
    }
}

impl RecipeFile {
    /// Every rule of a recipe, in one place.
    pub(crate) fn judge(self) -> Result<Recipe, Vec<String>> {
        let mut rules = Rules::default();
        rules.require(
            is_name(&self.name),
            "name",
            format!("{:?}", self.name),
            "must be 1 to 32 characters of a-z, 0-9 and -, and start with a letter",
        );
        rules.require(
            !self.description.contains(char::is_control) && self.description.len() <= 200,
            "description",
            format!("{:?}", self.description),
            "must be one line of at most 200 bytes",
        );
        let memory = rules.size("guest.memory", &self.guest.memory, guest_memory);
        let timeout = humantime::parse_duration(&self.guest.boot_timeout).unwrap_or_default();
        rules.require(
            (1..=3600).contains(&timeout.as_secs()) && timeout.subsec_nanos() == 0,
            "guest.boot_timeout",
            format!("{:?}", self.guest.boot_timeout),
            "must be whole seconds from \"1s\" to \"1h\"",
        );
        let burn = Burn {
            duty: Duty::at_most_whole(rules.integer("burn.duty", self.burn.duty, 0, 100)),
            threads: rules.integer("burn.threads", self.burn.threads, 1, 64),
        };
        let size = rules.size("disk.size", &self.disk.size, disk_size);
        let label = Label::from_str(&self.disk.label);
        rules.require(
            label.is_ok(),
            "disk.label",
            format!("{:?}", self.disk.label),
            "must be 1 to 16 bytes, as ext4 holds them",
        );
        rules.require(
            !self.kernel.fragments.is_empty(),
            "kernel.fragments",
            "[]",
            "must name at least one fragment of kernel-config",
        );
        for fragment in &self.kernel.fragments {
            rules.require(
                is_name(fragment),
                "kernel.fragments",
                format!("{fragment:?}"),
                "must be the name of a file in kernel-config without .config",
            );
        }
        let mut words = self.kernel.command_line.split(' ');
        rules.require(
            !words.any(|word| word.starts_with("tty.burn")),
            "kernel.command_line",
            format!("{:?}", self.kernel.command_line),
            "must not hold tty.burn: guests boot quiet, and burn as [burn] says",
        );
        rules.require(
            self.kernel.command_line.len() <= 1024
                && self
                    .kernel
                    .command_line
                    .bytes()
                    .all(|byte| byte == b' ' || byte.is_ascii_graphic()),
            "kernel.command_line",
            format!("{:?}", self.kernel.command_line),
            "must be at most 1024 printable ASCII characters",
        );
        let rootfs = self.rootfs.map(|table| rules.rootfs(table));
        let ssh = self.ssh.map(|table| rules.ssh(&table, rootfs.as_ref()));
        let files = rules.files(self.files);
        let (Some(memory), Some(size), Ok(label), true) =
            (memory, size, label, rules.broken.is_empty())
        else {
            return Err(rules.broken);
        };
        Ok(Recipe {
            name: self.name,
            description: self.description,
            memory,
            boot_timeout_seconds: timeout.as_secs(),
            burn,
            disk: Disk { size, label },
            kernel: Kernel {
                fragments: self.kernel.fragments,
                command_line: self.kernel.command_line,
            },
            rootfs,
            ssh: ssh.unwrap_or_default(),
            files,
        })
    }
}
