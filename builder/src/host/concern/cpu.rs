//! What the processor offers to virtual machines, and what KVM uses of it.
//!
//! `/proc/cpuinfo` says what the CPU has, and a parameter of the KVM module says
//! what KVM uses. If both are known, the parameter decides.

use super::facts::link::{Link, broken};
use super::facts::processor::{has, is_amd, is_guest, is_set, vendor_module, virtualizes};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::Host;
use crate::host::want::Want;

const VT: Check = Check {
    id: "vt",
    document: "https://docs.kernel.org/virt/kvm/index.html",
};
const EPT: Check = Check {
    id: "ept",
    document: "https://docs.kernel.org/virt/kvm/x86/mmu.html",
};
const VPID: Check = Check {
    id: "vpid",
    document: PARAMETERS,
};
const UNRESTRICTED: Check = Check {
    id: "unrestricted-guest",
    document: PARAMETERS,
};
const APICV: Check = Check {
    id: "apicv",
    document: PARAMETERS,
};

const PARAMETERS: &str = "https://docs.kernel.org/admin-guide/kernel-parameters.html";

pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    let mut findings = vec![vt(host, want)];
    // Without VT-x or SVM there is nothing that these could be part of.
    if virtualizes(host) != Some(false) {
        findings.extend([
            ept(host, want),
            vpid(host, want),
            unrestricted_guest(host, want),
            apicv(host, want),
        ]);
    }
    findings
}

/// Whether KVM uses something: what `parameter` says, or else whether the CPU
/// has one of `flags`; `None` if neither could be seen.
fn used(host: &Host, parameter: &str, flags: &[&str]) -> Option<bool> {
    if let Some(set) = is_set(host, parameter) {
        return Some(set);
    }
    // Kernels before 5.8 list no VMX flags, so that their absence says nothing.
    let listed = is_amd(host) || host.cpu.flags.iter().any(|flag| flag.starts_with("vmx:"));
    if flags.iter().any(|flag| has(host, flag)) {
        Some(true)
    } else {
        listed.then_some(false)
    }
}

fn vt(host: &Host, want: &Want) -> Finding {
    let need = "VT-x (vmx) or SVM (svm)";
    let meaning = "The CPU runs guests' code itself, kernels included.";
    match virtualizes(host) {
        None => VT.not_seen(need, "It is not known whether the CPU can run guests."),
        Some(true) => {
            let value = if is_amd(host) { "SVM" } else { "VT-x" };
            VT.finds(Severity::Ok, value, need, meaning)
        }
        Some(false) => {
            let (severity, meaning) = match broken(host) {
                Some(Link::Cpu) => (
                    Severity::Blocker,
                    "Without it there is no KVM, so guests run only by emulation.",
                ),
                None => (
                    Severity::Advice,
                    "KVM is there without it, so something else does its work.",
                ),
                Some(Link::Kernel | Link::Module | Link::Device) => (
                    Severity::Advice,
                    "If /dev/kvm opens, something else does its work.",
                ),
            };
            let fix = if is_guest(host) {
                Fix::manual(
                    Needs::Choice,
                    want.or_tcg(&format!(
                        "have the outer host nest ({}.nested=1, this VM with -cpu host)",
                        vendor_module(host)
                    )),
                )
            } else {
                Fix::manual(
                    Needs::Reboot,
                    want.or_tcg(
                        "switch on VT-x (Intel Virtualization Technology) or SVM in the firmware's \
                         setup",
                    ),
                )
            };
            VT.finds(want.under_kvm(severity), "neither", need, meaning)
                .with_fix(fix)
        }
    }
}

/// A feature of VT-x or SVM that KVM does better with.
struct Feature {
    check: Check,
    /// Its name on this vendor's CPUs.
    name: &'static str,
    parameter: &'static str,
    /// Flags, any of which says that the CPU has it.
    flags: &'static [&'static str],
    /// What it does for guests.
    with: &'static str,
    /// What its lack does to them.
    without: &'static str,
}

impl Feature {
    fn judge(&self, host: &Host, want: &Want) -> Finding {
        let need = format!("{} used", self.name);
        match used(host, self.parameter, self.flags) {
            None => self.check.not_seen(need, self.with),
            Some(true) => {
                self.check
                    .finds(Severity::Ok, format!("{} used", self.name), need, self.with)
            }
            Some(false) => {
                let module = vendor_module(host);
                let there = self.flags.iter().any(|flag| has(host, flag));
                let (value, fix) = if there {
                    (
                        format!("{module}.{}=N", self.parameter),
                        Fix::manual(
                            Needs::File,
                            format!(
                                "write `options {module} {}=1` into /etc/modprobe.d/kvm.conf, end \
                                 all guests, and load the module again",
                                self.parameter
                            ),
                        ),
                    )
                } else {
                    (format!("no {}", self.name), absent(host))
                };
                self.check
                    .finds(want.under_kvm(Severity::Advice), value, need, self.without)
                    .with_fix(fix)
            }
        }
    }
}

/// What helps where the CPU lacks something.
fn absent(host: &Host) -> Fix {
    let instruction = if is_guest(host) {
        "have the outer hypervisor pass it on (-cpu host), or use a bare-metal host"
    } else {
        "use a host whose CPU has it; this one's hardware does not"
    };
    Fix::manual(Needs::Choice, instruction)
}

fn ept(host: &Host, want: &Want) -> Finding {
    let (name, parameter, flags): (_, _, &[_]) = if is_amd(host) {
        ("NPT", "npt", &["npt"])
    } else {
        ("EPT", "ept", &["ept", "vmx:ept"])
    };
    let feature = Feature {
        check: EPT,
        name,
        parameter,
        flags,
        with: "The CPU walks guests' page tables; KVM keeps one table a guest.",
        without: "KVM shadows every page table of every guest: more memory a guest, and an exit \
                  for each change that a guest makes to its own.",
    };
    feature.judge(host, want)
}

fn vpid(host: &Host, want: &Want) -> Finding {
    let with = "Switching between guests keeps their TLB entries.";
    if is_amd(host) {
        return VPID.finds(
            Severity::Ok,
            "ASIDs, part of SVM",
            "tagged TLB entries",
            with,
        );
    }
    let feature = Feature {
        check: VPID,
        name: "VPID",
        parameter: "vpid",
        flags: &["vpid", "vmx:vpid"],
        with,
        without: "Every switch to or from a guest empties the TLB, which many guests on few CPUs \
                  do all the time.",
    };
    feature.judge(host, want)
}

fn unrestricted_guest(host: &Host, want: &Want) -> Finding {
    let with = "Guests start in real mode or without paging on the CPU itself.";
    if is_amd(host) {
        let need = "any mode of a guest run by the CPU";
        return UNRESTRICTED.finds(Severity::Ok, "part of SVM", need, with);
    }
    let feature = Feature {
        check: UNRESTRICTED,
        name: "unrestricted guest",
        parameter: "unrestricted_guest",
        flags: &["vmx:unrestricted_guest"],
        with,
        without: "KVM emulates what guests do before they switch on paging, so each boots later.",
    };
    feature.judge(host, want)
}

fn apicv(host: &Host, want: &Want) -> Finding {
    if is_amd(host) {
        return avic(host);
    }
    let feature = Feature {
        check: APICV,
        name: "APICv with posted interrupts",
        parameter: "enable_apicv",
        flags: &["vmx:apicv"],
        with: "Interrupts reach a running guest without an exit.",
        without: "Each interrupt of a guest, timers included, costs exits, which thousands of \
                  ticking guests multiply.",
    };
    feature.judge(host, want)
}

/// AMD's APICv, for information: a guest with a PIT as QEMU makes it gets none
/// (`APICV_INHIBIT_REASON_PIT_REINJ` of Linux's kvm_host.h).
fn avic(host: &Host) -> Finding {
    let value = match (is_set(host, "avic"), has(host, "avic")) {
        (Some(true), _) | (None, true) => "AVIC on",
        (Some(false), true) => "AVIC off",
        (Some(false) | None, false) => "no AVIC",
    };
    APICV.finds(
        Severity::Ok,
        value,
        "none of it",
        "Each interrupt of a running guest costs an exit; AVIC saves it to guests without a PIT, \
         and imgbuild's have one. x2AVIC matters to guests of more than 255 virtual CPUs alone.",
    )
}
