//! Recipes: `images/*.toml` → a validated [`Recipe`].
//!
//! The file is read into plain values first and judged by one list of rules,
//! so that a bad recipe is told about every wrong key at once: key, value, rule.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::disk::ext4::Label;
use crate::units::ByteSize;

/// Largest recipe file, in bytes; a recipe is a page of text.
const FILE_MAX: u64 = 64 * 1024;
/// RAM of a guest: from the least in which its kernel boots.
pub const MEMORY: SizeRule = SizeRule {
    min: size(32 << 20),
    max: size(1 << 40),
    unit: 1 << 20,
    unit_rule: "must be whole MiB, as QEMU counts RAM",
};
/// Disk of a guest: from the least that ext4 wants.
pub const DISK: SizeRule = SizeRule {
    min: size(16 << 20),
    max: size(2 << 40),
    unit: 4096,
    unit_rule: "must be a multiple of 4 KiB, ext4's block",
};

const fn size(bytes: u64) -> ByteSize {
    ByteSize::new(bytes).expect("it is not zero")
}

/// What a size must be, in a recipe as on the command line.
#[derive(Debug)]
pub struct SizeRule {
    min: ByteSize,
    max: ByteSize,
    /// What it is a multiple of, in bytes.
    unit: u64,
    /// The same as a sentence.
    unit_rule: &'static str,
}

impl SizeRule {
    /// Reads a size; the error is the rule that it breaks.
    pub fn parse(&self, text: &str) -> Result<ByteSize, String> {
        let size = ByteSize::from_str(text).map_err(|error| error.to_string())?;
        if !(self.min..=self.max).contains(&size) {
            Err(format!("must be {} to {}", self.min, self.max))
        } else if !size.bytes().is_multiple_of(self.unit) {
            Err(self.unit_rule.to_owned())
        } else {
            Ok(size)
        }
    }
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
    /// What goes into the initramfs besides init.
    pub initramfs: Initramfs,
}

/// The CPU burn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burn {
    /// Share of the time that each thread burns, in percent.
    pub duty: u8,
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

/// What goes into the initramfs besides init.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initramfs {
    /// Single files.
    pub files: Vec<ExtraFile>,
    /// A root file system as a tar archive, relative to the recipe's folder.
    pub rootfs: Option<PathBuf>,
}

/// One file packed into the initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraFile {
    /// Absolute path in the guest.
    pub path: String,
    /// The file, relative to the recipe's folder.
    pub source: PathBuf,
    /// Permission bits.
    pub mode: u16,
}

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("recipe {}: {source}; `imgbuild list` shows the built-in ones", path.display())]
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
    /// No built-in recipe of that name.
    #[error("no recipe named {name}; there are {}; give a path for one of your own", known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The built-in ones.
        known: Vec<String>,
    },
}

/// The file as written, before the rules are applied.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    name: String,
    #[serde(default)]
    description: String,
    guest: GuestTable,
    #[serde(default)]
    burn: BurnTable,
    disk: DiskTable,
    kernel: KernelTable,
    #[serde(default)]
    initramfs: InitramfsTable,
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InitramfsTable {
    files: Vec<FileTable>,
    rootfs: Option<PathBuf>,
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
    /// watchdog (kernel document admin-guide/kernel-parameters).
    #[must_use]
    pub fn command_line(&self) -> String {
        let mut line = "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable".to_owned();
        for part in [
            self.kernel.command_line.as_str(),
            &format!("tty.burn={}", self.burn.duty),
            &format!("tty.threads={}", self.burn.threads),
        ] {
            if !part.is_empty() {
                line.push(' ');
                line.push_str(part);
            }
        }
        line
    }

    /// How long a guest may take to report ready.
    #[must_use]
    pub fn boot_timeout(&self) -> Duration {
        Duration::from_secs(self.boot_timeout_seconds)
    }
}

/// Collects broken rules, so that all are told at once.
#[derive(Default)]
struct Rules {
    broken: Vec<String>,
}

impl Rules {
    fn hold(&mut self, holds: bool, key: &str, value: impl Display, rule: &str) {
        if !holds {
            self.broken.push(format!("{key} = {value}: {rule}"));
        }
    }

    fn size(&mut self, key: &str, value: &str, rule: &SizeRule) -> ByteSize {
        rule.parse(value).unwrap_or_else(|broken| {
            self.hold(false, key, format!("{value:?}"), &broken);
            rule.min
        })
    }

    fn integer<T: TryFrom<i64> + Default>(
        &mut self,
        key: &str,
        value: i64,
        min: i64,
        max: i64,
    ) -> T {
        self.hold(
            (min..=max).contains(&value),
            key,
            value,
            &format!("must be {min} to {max}"),
        );
        T::try_from(value).unwrap_or_default()
    }

    fn files(&mut self, files: Vec<FileTable>) -> Vec<ExtraFile> {
        files
            .into_iter()
            .map(|file| {
                self.hold(
                    file.path.starts_with('/') && !file.path.ends_with('/'),
                    "initramfs.files.path",
                    format!("{:?}", file.path),
                    "must be an absolute path of a file in the guest",
                );
                let mode = u16::from_str_radix(&file.mode, 8).unwrap_or(u16::MAX);
                self.hold(
                    mode <= 0o7777,
                    "initramfs.files.mode",
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
    fn judge(self) -> Result<Recipe, Vec<String>> {
        let mut rules = Rules::default();
        rules.hold(
            is_name(&self.name),
            "name",
            format!("{:?}", self.name),
            "must be 1 to 32 characters of a-z, 0-9 and -, and start with a letter",
        );
        rules.hold(
            !self.description.contains(char::is_control) && self.description.len() <= 200,
            "description",
            format!("{:?}", self.description),
            "must be one line of at most 200 bytes",
        );
        let memory = rules.size("guest.memory", &self.guest.memory, &MEMORY);
        let timeout = humantime::parse_duration(&self.guest.boot_timeout).unwrap_or_default();
        rules.hold(
            (1..=3600).contains(&timeout.as_secs()) && timeout.subsec_nanos() == 0,
            "guest.boot_timeout",
            format!("{:?}", self.guest.boot_timeout),
            "must be whole seconds from \"1s\" to \"1h\"",
        );
        let burn = Burn {
            duty: rules.integer("burn.duty", self.burn.duty, 0, 100),
            threads: rules.integer("burn.threads", self.burn.threads, 1, 64),
        };
        let size = rules.size("disk.size", &self.disk.size, &DISK);
        let label = Label::from_str(&self.disk.label);
        rules.hold(
            label.is_ok(),
            "disk.label",
            format!("{:?}", self.disk.label),
            "must be 1 to 16 bytes, as ext4 holds them",
        );
        rules.hold(
            !self.kernel.fragments.is_empty(),
            "kernel.fragments",
            "[]",
            "must name at least one fragment of kernel-config",
        );
        for fragment in &self.kernel.fragments {
            rules.hold(
                is_name(fragment),
                "kernel.fragments",
                format!("{fragment:?}"),
                "must be the name of a file in kernel-config without .config",
            );
        }
        rules.hold(
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
        let files = rules.files(self.initramfs.files);
        let (Ok(label), true) = (label, rules.broken.is_empty()) else {
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
            initramfs: Initramfs {
                files,
                rootfs: self.initramfs.rootfs,
            },
        })
    }
}

/// A name that is safe as a file name, a fleet name and a fragment name.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "mine"

[guest]
memory = "64MiB"

[burn]
duty = 50
threads = 2

[disk]
size = "1GiB"
label = "mine"

[kernel]
fragments = ["base"]
command_line = "loglevel=7"

[[initramfs.files]]
path = "/etc/motd"
source = "motd"
"#;

    fn parse(text: &str) -> Result<Recipe, String> {
        Recipe::parse(Path::new("mine.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_recipe_is_resolved() {
        let recipe = parse(GOOD).unwrap();
        assert_eq!(recipe.memory.bytes(), 64 << 20);
        assert_eq!(
            recipe.burn,
            Burn {
                duty: 50,
                threads: 2
            }
        );
        assert_eq!(recipe.initramfs.files[0].mode, 0o644);
        assert_eq!(recipe.boot_timeout_seconds, 60);
        assert_eq!(
            recipe.command_line(),
            "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable loglevel=7 tty.burn=50 tty.threads=2"
        );
    }

    #[test]
    fn each_wrong_field_is_named_with_value_and_rule() {
        for (from, to, key, rule) in [
            (
                r#"name = "mine""#,
                r#"name = "Mine""#,
                "name = \"Mine\"",
                "a-z",
            ),
            (
                r#"name = "mine""#,
                r#"name = "../x""#,
                "name = \"../x\"",
                "a-z",
            ),
            (r#"name = "mine""#, "name = 7", "invalid type", "name = 7"),
            ("64MiB", "16MiB", "guest.memory = \"16MiB\"", "32"),
            ("64MiB", "lots", "guest.memory = \"lots\"", ""),
            ("64MiB", "65000K", "guest.memory = \"65000K\"", "whole MiB"),
            ("duty = 50", "duty = 101", "burn.duty = 101", "0 to 100"),
            ("duty = 50", "duty = -1", "burn.duty = -1", "0 to 100"),
            ("threads = 2", "threads = 0", "burn.threads = 0", "1 to 64"),
            ("1GiB", "1MiB", "disk.size = \"1MiB\"", "16"),
            ("1GiB", "1073741825", "disk.size = \"1073741825\"", "4 KiB"),
            (
                "label = \"mine\"",
                "label = \"seventeen letters\"",
                "disk.label",
                "16",
            ),
            (
                "[\"base\"]",
                "[\"../base\"]",
                "kernel.fragments = \"../base\"",
                "kernel-config",
            ),
            ("[\"base\"]", "[]", "kernel.fragments", "at least one"),
            ("loglevel=7", "a\\nb", "kernel.command_line", "printable"),
            (
                "/etc/motd",
                "etc/motd",
                "initramfs.files.path = \"etc/motd\"",
                "absolute",
            ),
            (
                "source = \"motd\"",
                "source = \"motd\"\nmode = \"0999\"",
                "initramfs.files.mode = \"0999\"",
                "octal",
            ),
            (
                "memory = \"64MiB\"",
                "memory = \"64MiB\"\nboot_timeout = \"0s\"",
                "guest.boot_timeout = \"0s\"",
                "1s",
            ),
            (
                "threads = 2",
                "threads = 2\nfrequency = 3",
                "unknown field `frequency`",
                "line",
            ),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let message = parse(&text).expect_err(to);
            assert!(message.contains("mine.toml"), "{message}");
            assert!(message.contains(key), "{key} is not in: {message}");
            assert!(message.contains(rule), "{rule} is not in: {message}");
        }
    }

    #[test]
    fn every_broken_rule_is_told_at_once() {
        let text = GOOD
            .replace("duty = 50", "duty = 500")
            .replace("64MiB", "1MiB");
        let message = parse(&text).unwrap_err();
        assert!(
            message.contains("burn.duty") && message.contains("guest.memory"),
            "{message}"
        );
    }

    #[test]
    fn truncated_and_hostile_files_are_refused() {
        for end in 0..GOOD.len() - 1 {
            // What is cut off may have been optional; it must only not panic.
            let _ = parse(&GOOD[..end]);
        }
        parse("").unwrap_err();
        parse("\0\u{1}").unwrap_err();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big.toml");
        std::fs::write(&path, vec![b'#'; 1 << 20]).unwrap();
        assert!(matches!(
            Recipe::load(&path),
            Err(RecipeError::TooLarge { .. })
        ));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(
            Recipe::load(&path),
            Err(RecipeError::Unreadable { .. })
        ));
    }
}
