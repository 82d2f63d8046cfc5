//! Identifies this host and its current boot: several hosts may share a home
//! folder.

use std::path::Path;
use std::str::FromStr;
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A host and a boot of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostId {
    /// Its name (`uname(2)`).
    pub name: String,
    /// Digest of what tells it from hosts of the same name (machine-id(5), which
    /// is not to be shown as it is); none where it has no such id.
    pub machine: Option<String>,
    /// Tells this boot from any other, of any host (`random(4)`).
    pub boot: BootId,
}

/// What a host is to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same, not restarted since.
    ThisBoot,
    /// The same, restarted since.
    EarlierBoot,
    /// Another one.
    Other,
}

impl HostId {
    /// This host.
    pub fn this() -> io::Result<Self> {
        let uname = rustix::system::uname();
        let machine = fs::read_to_string("/etc/machine-id").ok();
        let machine = machine.filter(|id| !id.trim().is_empty());
        Ok(Self {
            name: uname.nodename().to_string_lossy().into_owned(),
            machine: machine.map(|id| digest(id.trim())),
            boot: BootId::of(Path::new("/"))?,
        })
    }

    /// What `other` is to this host.
    pub fn relation(&self, other: &Self) -> Relation {
        if self.boot == other.boot {
            Relation::ThisBoot
        } else if (&self.name, &self.machine) == (&other.name, &other.machine) {
            Relation::EarlierBoot
        } else {
            Relation::Other
        }
    }

    /// A folder's name that no other host has, short and for people.
    pub fn folder(&self) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let plain = |c| if is_plain(c) { c } else { '-' };
        let name: String = self.name.chars().take(64).map(plain).collect();
        let name = name.trim_start_matches('.');
        match &self.machine {
            Some(machine) => format!("{name}-{machine}"),
            None => format!("{name}-"),
        }
    }
}

/// So few digits that a path stays short: hosts of one name are few.
fn digest(machine_id: &str) -> String {
    hex::encode(&Sha256::digest(format!("imgbuild {machine_id}"))[..4])
}

/// Tells a boot of a host from any other, of any host (`random(4)`): a UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId(String);

/// A text that is not the id of a boot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no boot")]
pub struct ParseBootIdError(String);

impl BootId {
    /// The file that tells it, below the root.
    pub(crate) const FILE: &str = "proc/sys/kernel/random/boot_id";

    /// That of the host below `root`, which is `/` on a live system.
    pub(crate) fn of(root: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(root.join(Self::FILE))?;
        let id = text.trim_ascii().parse();
        id.map_err(|error: ParseBootIdError| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl FromStr for BootId {
    type Err = ParseBootIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_in_form = text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
        if is_in_form && text.len() == 36 {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseBootIdError(text.to_owned()))
        }
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BootId {
    type Error = ParseBootIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BootId> for String {
    fn from(boot: BootId) -> Self {
        boot.0
    }
}

/// A boot that tests tell from others by its number.
#[cfg(test)]
pub(crate) fn boot(number: u8) -> BootId {
    let text = format!("00000000-0000-4000-8000-0000000000{number:02x}");
    text.parse().expect("it is a UUID")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, machine: Option<&str>, number: u8) -> HostId {
        HostId {
            name: name.to_owned(),
            machine: machine.map(digest),
            boot: boot(number),
        }
    }

    #[test]
    fn a_boot_is_one_hosts_and_a_host_has_several() {
        let this = host("a", Some("1"), 1);
        for (other, relation) in [
            (host("a", Some("1"), 1), Relation::ThisBoot),
            // Renamed since, or in a container with a name of its own.
            (host("b", None, 1), Relation::ThisBoot),
            (host("a", Some("1"), 2), Relation::EarlierBoot),
            // Clones of one image, or two that have the same name.
            (host("b", Some("1"), 2), Relation::Other),
            (host("a", Some("2"), 2), Relation::Other),
            (host("a", None, 2), Relation::Other),
        ] {
            assert_eq!(this.relation(&other), relation, "{other:?}");
        }
    }

    #[test]
    fn folders_of_hosts_differ_and_are_one_name() {
        let one = host("node7.example", Some("1"), 1).folder();
        assert!(one.starts_with("node7.example-"), "{one}");
        assert_eq!(one, host("node7.example", Some("1"), 2).folder());
        for other in [
            host("node7.example", Some("2"), 1),
            host("node7.example", None, 1),
            host("node8.example", Some("1"), 1),
        ] {
            assert_ne!(one, other.folder());
        }
        let odd = host("../a b\u{e9}", Some("1"), 1).folder();
        assert!(odd.starts_with("-a-b--"), "{odd}");
    }

    #[test]
    fn a_boot_is_named_by_a_uuid_alone() {
        let text = r#""01234567-89ab-cdef-0123-456789abcdef""#;
        let boot: BootId = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&boot).unwrap(), text);
        for text in ["", "tomorrow", "01234567-89ab-cdef-0123-456789abcdeg"] {
            let error = text.parse::<BootId>().unwrap_err().to_string();
            assert_eq!(error, format!("{text:?} names no boot"));
        }
    }

    #[test]
    fn this_host_is_itself() {
        let this = HostId::this().unwrap();
        assert_eq!(this.relation(&HostId::this().unwrap()), Relation::ThisBoot);
    }
}
