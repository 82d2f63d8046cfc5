//! The chain of CPU, kernel and module, which ends in a `/dev/kvm` that opens.

use super::{config, processor};
use crate::host::kvm::Device;
use crate::host::snapshot::Host;

/// What a `/dev/kvm` that opens rests on; each needs the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    Cpu,
    /// A kernel built with KVM.
    Kernel,
    Module,
    Device,
}

/// The first link that is broken, which is why the device does not open.
pub(crate) fn broken(host: &Host) -> Option<Link> {
    match host.kvm.device {
        Device::Open => None,
        Device::Refused { .. } => Some(Link::Device),
        Device::Absent if vendor_modules(host).iter().any(stands_in) => Some(Link::Device),
        // The usual modules, where they are built in, are there without it too.
        Device::Absent if processor::virtualizes(host) == Some(false) => Some(Link::Cpu),
        Device::Absent if !vendor_modules(host).is_empty() => Some(Link::Device),
        Device::Absent if config::has_kvm(host) == Some(false) => Some(Link::Kernel),
        Device::Absent => Some(Link::Module),
    }
}

/// The modules that are not KVM itself but what runs its guests.
pub(crate) fn vendor_modules(host: &Host) -> Vec<&str> {
    let modules = host.kvm.modules.iter().map(String::as_str);
    modules.filter(|name| *name != "kvm").collect()
}

/// Whether a module does what VT-x or SVM do, in another way.
pub(crate) fn stands_in(module: &&str) -> bool {
    !matches!(*module, "kvm_intel" | "kvm_amd")
}
