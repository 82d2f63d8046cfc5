//! Hardware virtualization as the kernel offers it: `/dev/kvm`, the module
//! behind it, and whether it really runs a guest's kernel.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::snapshot::Unseen;

mod access;
mod code;
mod image;
mod loaded;
mod machine;
mod measure;
pub mod probe;
mod prober;
mod step;
#[cfg(test)]
mod tcg;

pub use access::{KvmError, access};
pub(crate) use measure::take;
pub(crate) use prober::PROBE_VERB;
pub use prober::Prober;
pub(crate) use step::Step;

/// Looks at KVM below `root`, with what came of a probe.
#[must_use]
pub fn read(root: &Path, probe: Option<probe::Outcome>, unseen: &mut Vec<Unseen>) -> Kvm {
    let modules = loaded::modules(root, unseen);
    Kvm {
        device: access::device(root),
        parameters: loaded::parameters(root, &modules, unseen),
        modules,
        probe,
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
    /// Parameters of those modules, such as `ept` = `Y`.
    pub parameters: BTreeMap<String, String>,
    /// What it did with ring-0 code; `None` if it was not tried, since the
    /// device does not open.
    pub probe: Option<probe::Outcome>,
}

/// `/dev/kvm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// It opens for reading and writing.
    Open,
    /// It is not there, or nothing is behind it.
    Absent,
    /// It does not open.
    Refused {
        /// What the system said.
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
        let expected = Kvm {
            device: Device::Open,
            modules: vec!["kvm_amd".into()],
            parameters: [("npt".to_owned(), "1".to_owned())].into(),
            probe: None,
        };
        assert_eq!(kvm, expected);
        assert_eq!(unseen.len(), 1);
        assert_eq!(unseen[0].what, "/sys/module/kvm_amd/parameters/avic");
    }
}
