//! Hardware virtualization as the kernel offers it: `/dev/kvm`, the module
//! behind it, and whether it really runs a guest's kernel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod access;
mod code;
mod deadline;
mod image;
mod machine;
mod measure;
pub mod probe;

pub use access::{KvmError, access};

/// KVM on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kvm {
    /// `/dev/kvm`.
    pub device: Device,
    /// Vendor modules that are loaded or built in: `kvm_intel`, `kvm_amd`,
    /// others.
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
    /// It is not there.
    Absent,
    /// It does not open.
    Refused {
        /// What the system said.
        why: String,
        /// The group that owns it, by name or number.
        group: Option<String>,
    },
}
