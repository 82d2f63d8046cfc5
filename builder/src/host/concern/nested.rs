//! A host that is a guest itself, and features that save its guests exits to the
//! outer hypervisor.

use std::fmt::Write as _;

use super::facts::processor::{is_amd, is_guest, is_set, virtualizes};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::Host;
use crate::host::want::Want;

const NESTED: Check = Check {
    id: "nested",
    document: "https://docs.kernel.org/virt/kvm/x86/running-nested-guests.html",
};

/// Judges whether this host is a guest.
pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    let word = |set| match set {
        Some(true) => "on",
        Some(false) => "off",
        None => "not seen",
    };
    let nesting = word(is_set(host, "nested"));
    let relief = Relief::of(host);
    let mut reliefs = String::new();
    for (name, parameter) in relief.features() {
        if let set @ Some(_) = is_set(host, parameter) {
            let _ = write!(reliefs, ", {name} {}", word(set));
        }
    }
    let (severity, place, meaning) = if is_guest(host) {
        (
            want.under_kvm(Severity::Advice),
            "a guest itself",
            format!(
                "Each exit of a guest under KVM passes through the outer hypervisor{}: guests boot \
                 and answer later, and the CPUs serve fewer of them.",
                relief.lacking()
            ),
        )
    } else {
        (
            Severity::Ok,
            "bare metal",
            "Guests exit to this host and no further; nesting matters only to guests that run \
             guests, and these run none."
                .to_owned(),
        )
    };
    let found = NESTED
        .finds(
            severity,
            format!("{place}; nesting {nesting}{reliefs}"),
            "a host that is not a guest",
            meaning,
        )
        .with_fix(Fix::manual(
            Needs::Choice,
            "use a bare-metal host for figures that are to be compared",
        ));
    vec![found]
}

/// What spares a hypervisor in a hypervisor exits to the outer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relief {
    Intel,
    /// Virtual VMLOAD, VMSAVE and GIF, of SVM.
    Amd,
    /// Of a CPU that has neither.
    None,
}

impl Relief {
    fn of(host: &Host) -> Self {
        if virtualizes(host) == Some(false) {
            Self::None
        } else if is_amd(host) {
            Self::Amd
        } else {
            Self::Intel
        }
    }

    /// Names, and the parameters of the vendor's module that tell.
    fn features(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Intel => &[("VMCS shadowing", "enable_shadow_vmcs")],
            Self::Amd => &[
                ("virtual VMLOAD and VMSAVE", "vls"),
                ("virtual GIF", "vgif"),
            ],
            Self::None => &[],
        }
    }

    /// What its lack out there does to exits here.
    fn lacking(self) -> &'static str {
        match self {
            Self::Intel => ", several times over without VMCS shadowing there",
            Self::Amd => ", several times over without virtual VMLOAD, VMSAVE and GIF there",
            Self::None => "",
        }
    }
}
