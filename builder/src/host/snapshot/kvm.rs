//! KVM as its device and modules show it.

use std::collections::BTreeMap;
use std::path::Path;

use super::Unseen;
use super::file::{Source, reason};
use crate::host::kvm::{Device, Kvm, KvmError, access};

const MODULES: &str = "sys/module";

/// KVM of the machine under `root`.
pub(super) fn read(root: &Path, unseen: &mut Vec<Unseen>) -> Kvm {
    let modules = Source::new(root, unseen).names(MODULES);
    let is_vendors = |name: &String| name.starts_with("kvm_");
    Kvm {
        device: match access(root) {
            Ok(()) => Device::Open,
            Err(KvmError::Absent) => Device::Absent,
            Err(KvmError::Unopenable(error)) => Device::Refused {
                why: reason(&error),
                group: None,
            },
        },
        modules: modules.into_iter().filter(is_vendors).collect(),
        parameters: BTreeMap::new(),
        probe: None,
    }
}
