//! Which host this is, and which boot of it: a home folder may be shared by
//! several.

use std::{fs, io};

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
    pub boot: String,
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
            boot: boot_id()?,
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

/// What tells this boot of the host from any other (`random(4)`).
pub fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, machine: Option<&str>, boot: &str) -> HostId {
        HostId {
            name: name.to_owned(),
            machine: machine.map(digest),
            boot: boot.to_owned(),
        }
    }

    #[test]
    fn a_boot_is_one_hosts_and_a_host_has_several() {
        let this = host("a", Some("1"), "x");
        for (other, relation) in [
            (host("a", Some("1"), "x"), Relation::ThisBoot),
            // Renamed since, or in a container with a name of its own.
            (host("b", None, "x"), Relation::ThisBoot),
            (host("a", Some("1"), "y"), Relation::EarlierBoot),
            // Clones of one image, or two that have the same name.
            (host("b", Some("1"), "y"), Relation::Other),
            (host("a", Some("2"), "y"), Relation::Other),
            (host("a", None, "y"), Relation::Other),
        ] {
            assert_eq!(this.relation(&other), relation, "{other:?}");
        }
    }

    #[test]
    fn folders_of_hosts_differ_and_are_one_name() {
        let one = host("node7.example", Some("1"), "x").folder();
        assert!(one.starts_with("node7.example-"), "{one}");
        assert_eq!(one, host("node7.example", Some("1"), "y").folder());
        for other in [
            host("node7.example", Some("2"), "x"),
            host("node7.example", None, "x"),
            host("node8.example", Some("1"), "x"),
        ] {
            assert_ne!(one, other.folder());
        }
        let odd = host("../a b\u{e9}", Some("1"), "x").folder();
        assert!(odd.starts_with("-a-b--"), "{odd}");
    }

    #[test]
    fn this_host_is_itself() {
        let this = HostId::this().unwrap();
        assert_eq!(this.relation(&HostId::this().unwrap()), Relation::ThisBoot);
    }
}
