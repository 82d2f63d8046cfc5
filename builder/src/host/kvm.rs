//! Hardware virtualization as the kernel offers it: `/dev/kvm`, the module
//! behind it, and whether it really runs a guest's kernel.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sample::unseen::Unseen;

mod access;
mod code;
mod image;
mod layout;
mod loaded;
mod machine;
mod measure;
pub(crate) mod probe;
mod prober;
mod remedy;
mod step;
#[cfg(test)]
mod tcg;

pub(crate) use access::access;
pub(crate) use measure::take;
pub(crate) use prober::PROBE_VERB;
pub(crate) use prober::Prober;
pub(crate) use remedy::Remedy;
pub(crate) use step::Step;

/// Looks at KVM below `root`, with what came of a probe.
pub(crate) fn read(root: &Path, probe: Option<probe::Outcome>, unseen: &mut Vec<Unseen>) -> Kvm {
    let modules = loaded::modules(root, unseen);
    Kvm {
        device: access::device(root),
        access: access::given(root),
        parameters: loaded::parameters(root, &modules, unseen),
        modules,
        probe,
        vm_create_in_fleet: None,
        pit_threads: None,
    }
}

/// KVM on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kvm {
    /// `/dev/kvm`.
    pub device: Device,
    /// Vendor modules that are loaded or built in: `kvm_intel`, `kvm_amd`,
    /// others. Of these two, where both are built in, the CPU's own.
    pub modules: Vec<String>,
    /// Who may open the device; `None` where it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Parameters of those modules, such as `ept` = `Y`, and of `kvm`, such as
    /// `halt_poll_ns` = `200000`.
    pub parameters: BTreeMap<String, String>,
    /// What it did with ring-0 code; `None` if it was not tried, since the
    /// device does not open.
    pub probe: Option<probe::Outcome>,
    /// Nanoseconds that `KVM_CREATE_VM` takes in a control group like a fleet's;
    /// `None` if it was not timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_create_in_fleet: Option<probe::Extremes>,
    /// Kernel threads now that stand for a guest's PIT (`kvm-pit/PID`); `None` in
    /// snapshots of before they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pit_threads: Option<u64>,
}

/// Who may open `/dev/kvm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Its permission bits.
    pub mode: u32,
    /// The group that owns it.
    pub group: u32,
}

/// `/dev/kvm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// It opens for reading and writing.
    Open,
    /// It is not there, or nothing is behind it.
    Absent,
    Refused {
        why: String,
        /// The group that owns it, by name or number.
        group: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_root_is_read() {
        let root = tempfile::tempdir().unwrap();
        for (path, contents) in [
            ("dev/kvm", ""),
            ("sys/module/kvm_amd/parameters/npt", "1\n"),
            ("sys/module/kvm_amd/parameters/avic", "\0"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        let mut unseen = Vec::new();
        let kvm = read(root.path(), None, &mut unseen);
        let access = kvm.access.unwrap();
        assert_eq!(access.mode & 0o600, 0o600);
        let expected = Kvm {
            device: Device::Open,
            access: Some(access),
            modules: vec!["kvm_amd".into()],
            parameters: [("npt".to_owned(), "1".to_owned())].into(),
            probe: None,
            vm_create_in_fleet: None,
            pit_threads: None,
        };
        assert_eq!(kvm, expected);
        assert_eq!(unseen.len(), 1);
        assert_eq!(unseen[0].what, "/sys/module/kvm_amd/parameters/avic");
    }
}
