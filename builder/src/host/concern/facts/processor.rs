//! The processor, and the parameters of its KVM module.

use crate::host::settings::Module;
use crate::host::snapshot::Host;

/// Whether the CPU has VT-x or SVM; `None` if that could not be seen.
pub(crate) fn virtualizes(host: &Host) -> Option<bool> {
    let unseen = host.cpu.vendor.is_none() && host.cpu.flags.is_empty();
    (!unseen).then(|| has(host, "vmx") || has(host, "svm"))
}

/// The module for this CPU.
pub(crate) fn vendor_module(host: &Host) -> Module {
    if is_amd(host) {
        Module::KvmAmd
    } else {
        Module::KvmIntel
    }
}

/// Whether this host is itself a guest.
pub(crate) fn is_guest(host: &Host) -> bool {
    has(host, "hypervisor")
}

/// Whether its virtualization is AMD's.
pub(crate) fn is_amd(host: &Host) -> bool {
    let vendor = host.cpu.vendor.as_deref();
    has(host, "svm") || matches!(vendor, Some("AuthenticAMD" | "HygonGenuine"))
}

/// Whether the CPU has a flag of those in the snapshot.
pub(crate) fn has(host: &Host, flag: &str) -> bool {
    host.cpu.flags.contains(flag)
}

/// Whether a parameter of the vendor's module is on; `None` if that could not be
/// seen.
pub(crate) fn is_set(host: &Host, parameter: &str) -> Option<bool> {
    match host.kvm.parameters.get(parameter)?.as_str() {
        "Y" | "y" | "1" => Some(true),
        "N" | "n" | "0" => Some(false),
        _ => None,
    }
}
