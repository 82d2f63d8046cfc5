//! `/dev/kvm`, the module behind it, and how it ran a guest's kernel code.

use super::facts::link::{Link, broken, stands_in, vendor_modules};
use super::facts::processor;
use super::text::count;
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::kvm::probe::{Outcome, Probe};
use crate::host::kvm::{Device, Remedy};
use crate::host::snapshot::Host;
use crate::host::want::Want;
use crate::vmm::Accel;

const DEVICE: Check = Check {
    id: "kvm-device",
    document: "https://docs.kernel.org/virt/kvm/api.html#general-description",
};
const MODULE: Check = Check {
    id: "kvm-module",
    document: "https://docs.kernel.org/admin-guide/kernel-parameters.html",
};
/// The module of PVM, and what it is.
const PVM: &str = "kvm_pvm";
const PVM_PROJECT: &str = "https://github.com/virt-pvm/linux";
const RING0: Check = Check {
    id: "kvm-ring0",
    document: "https://docs.kernel.org/virt/kvm/api.html#kvm-run",
};
const INSTRUCTIONS: Check = Check {
    id: "kvm-instructions",
    document: "https://docs.kernel.org/virt/kvm/api.html#the-kvm-run-structure",
};
const EXITS: Check = Check {
    id: "kvm-exits",
    document: "https://docs.kernel.org/virt/kvm/api.html#the-kvm-run-structure",
};

/// Exits a second below which devices are felt. Hardware does several times
/// this, a guest hypervisor a fraction of it.
const FEW_EXITS: f64 = 100_000.0;

/// So many times as slow as the host's own code, a guest's does not run on the
/// CPU itself: there it takes as long, but for how the two are clocked.
const SLOWER: f64 = 3.0;

pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    match broken(host) {
        None => {
            let mut findings = vec![device(host, want)];
            findings.extend(probed(host, want));
            findings.push(module(host, want));
            findings
        }
        Some(Link::Device) => vec![device(host, want), module(host, want)],
        Some(Link::Module) => vec![module(host, want)],
        Some(Link::Cpu | Link::Kernel) => Vec::new(),
    }
}

fn device(host: &Host, want: &Want) -> Finding {
    let need = "opens for reading and writing";
    match &host.kvm.device {
        Device::Open => DEVICE.finds(
            Severity::Ok,
            "opens",
            need,
            "QEMU can ask the kernel for virtual machines.",
        ),
        Device::Absent => DEVICE
            .finds(
                want.under_kvm(Severity::Blocker),
                "absent, though its module is loaded",
                need,
                "No guest starts under KVM; a container has only the devices it is given.",
            )
            .with_fix(given(want)),
        Device::Refused { why, group } => DEVICE
            .finds(
                want.under_kvm(Severity::Blocker),
                format!("does not open: {why}"),
                need,
                "No guest of this user starts under KVM.",
            )
            .with_fix(permitted(host, want, why, group.as_deref())),
    }
}

/// What gives a container the device.
fn given(want: &Want) -> Fix {
    Fix::manual(
        Needs::Command,
        want.or_tcg("start the container with --device /dev/kvm"),
    )
}

/// What lets this user open the device, by what the system said. EACCES is for
/// want of permission, which root has; EPERM, and any refusal of root, is a
/// container's list of devices (kernel document admin-guide/cgroup-v2,
/// "Device controller").
fn permitted(host: &Host, want: &Want, why: &str, group: Option<&str>) -> Fix {
    if host.privileged || why.starts_with("Operation not permitted") {
        return given(want);
    }
    if !why.starts_with("Permission denied") {
        return Fix::manual(
            Needs::Command,
            want.or_tcg("see what the kernel's log says of it (dmesg)"),
        );
    }
    let remedy = Remedy::of(host.kvm.access, group);
    let needs = match remedy {
        Remedy::JoinGroup(_) => Needs::Group,
        Remedy::GiveToGroup(_) => Needs::File,
        Remedy::LookAtRules(_) => Needs::Command,
    };
    Fix::manual(needs, want.or_tcg(&remedy.to_string()))
}

fn module(host: &Host, want: &Want) -> Finding {
    let need = "kvm_intel or kvm_amd";
    let modules = vendor_modules(host);
    let value = modules.join(", ");
    if modules.iter().any(|module| !stands_in(module)) {
        let meaning = "It runs guests on the CPU's own VT-x or SVM.";
        return MODULE.finds(Severity::Ok, value, need, meaning);
    }
    if modules.contains(&PVM) {
        return pvm(value, want);
    }
    if !modules.is_empty() {
        return MODULE
            .finds(
                want.under_kvm(Severity::Advice),
                value,
                need,
                "It takes the place of VT-x or SVM and may run guests' kernels in another way, or \
                 not at all; the probe of the device finds out.",
            )
            .with_fix(Fix::manual(
                Needs::Choice,
                want.or_tcg("use a host with kvm_intel or kvm_amd"),
            ));
    }
    if host.kvm.device == Device::Open {
        return MODULE.not_seen(need, "The device opens, so some module is behind it.");
    }
    MODULE
        .finds(
            want.under_kvm(Severity::Blocker),
            "none",
            need,
            "Without it there is no /dev/kvm, so no guest runs under KVM.",
        )
        .with_fix(Fix::Module(processor::vendor_module(host)))
}

/// A host that has PVM in the place of a vendor's module.
fn pvm(value: String, want: &Want) -> Finding {
    let found = MODULE.finds(
        want.under_kvm(Severity::Advice),
        value,
        "kvm_intel or kvm_amd",
        "It is PVM (Pagetable Virtual Machine), which does not need VT-x or SVM: it runs guests \
         whose kernel has CONFIG_PVM_GUEST, which no released kernel has, and emulates the \
         kernels of others, such as imgbuild's.",
    );
    let found = Finding {
        document: PVM_PROJECT,
        ..found
    };
    found.with_fix(Fix::manual(
        Needs::Choice,
        format!(
            "{}; guests with the patched kernel of {PVM_PROJECT} run there, and imgbuild builds none",
            want.or_tcg("use a host with kvm_intel or kvm_amd")
        ),
    ))
}

/// What the probe found, if there was one.
fn probed(host: &Host, want: &Want) -> Vec<Finding> {
    match &host.kvm.probe {
        None => vec![RING0.not_seen(
            "ring 0 at the CPU's speed",
            "KVM was not probed; check --canary finds out whether it runs kernels.",
        )],
        Some(Outcome::Overdue(why)) => vec![
            RING0
                .finds(
                    Severity::Advice,
                    why,
                    "ring 0 at the CPU's speed",
                    "It is not known whether KVM runs kernels; check --canary finds out.",
                )
                .with_fix(Fix::manual(
                    Needs::Choice,
                    "try again when the host is idle",
                )),
        ],
        Some(Outcome::Failed(why)) => vec![
            RING0
                .finds(
                    want.under_kvm(Severity::Blocker),
                    format!("KVM could not be probed: {why}"),
                    "ring 0 at the CPU's speed",
                    "A call that QEMU makes at the start of each guest fails here.",
                )
                .with_fix(another(want)),
        ],
        Some(Outcome::Ran(probe)) => vec![
            ring0(host, want, probe),
            instructions(want, probe),
            exits(want, probe),
        ],
    }
}

fn ring0(host: &Host, want: &Want, probe: &Probe) -> Finding {
    let need = "ring 0 at the CPU's speed";
    let figure = probe.ring0_ns.map_or_else(
        || "a counting loop did not end".to_owned(),
        |ns| {
            let times = multiple(ns / probe.host_ns);
            format!("{} an instruction, {times} the host's", duration(ns))
        },
    );
    let modules = vendor_modules(host);
    let through = match &modules[..] {
        [] => String::new(),
        modules => format!(", through {}", modules.join(", ")),
    };
    let value = format!("{figure}{through}");
    if probe.emulates() {
        let meaning = match want.machine.accel {
            Accel::Kvm => "KVM emulates ring 0; guests will not boot",
            Accel::Tcg => "KVM emulates ring 0; under KVM guests would not boot",
        };
        RING0
            .finds(want.under_kvm(Severity::Blocker), value, need, meaning)
            .with_fix(another(want))
    } else {
        RING0.finds(Severity::Ok, value, need, speed(probe))
    }
}

/// What it means that ring 0 is as fast as it is.
fn speed(probe: &Probe) -> String {
    match probe.ring0_ns.map(|ns| ns / probe.host_ns) {
        Some(times) if times > SLOWER => format!(
            "Guests' kernels run, though {} slower than what runs here: this host is a guest \
             itself, or its CPU is emulated.",
            multiple(times)
        ),
        _ => "Guests' kernels run on the CPU itself.".to_owned(),
    }
}

fn instructions(want: &Want, probe: &Probe) -> Finding {
    let need = "all that an early kernel runs";
    let broken: Vec<_> = probe
        .broken()
        .map(|instruction| format!("{} ({})", instruction.name, instruction.result))
        .collect();
    if broken.is_empty() {
        let value = format!("all {} run", probe.instructions.len());
        let meaning = "A kernel gets past its first instructions.";
        return INSTRUCTIONS.finds(Severity::Ok, value, need, meaning);
    }
    INSTRUCTIONS
        .finds(
            want.under_kvm(Severity::Blocker),
            format!(
                "{} of {} fail: {}",
                broken.len(),
                probe.instructions.len(),
                broken.join(", ")
            ),
            need,
            "A guest's kernel dies at the first of them, before it can say anything.",
        )
        .with_fix(another(want))
}

fn exits(want: &Want, probe: &Probe) -> Finding {
    let need = format!("{} a second", thousands(FEW_EXITS));
    let (severity, value) = match probe.exits_per_second {
        Some(rate) if rate >= FEW_EXITS => (Severity::Ok, format!("{} a second", thousands(rate))),
        Some(rate) => (
            want.under_kvm(Severity::Advice),
            format!("{} a second", thousands(rate)),
        ),
        None => (
            want.under_kvm(Severity::Advice),
            "a loop of port writes did not end".to_owned(),
        ),
    };
    EXITS
        .finds(
            severity,
            value,
            need,
            "Each byte on a guest's console and each kick of a virtio queue is an exit; a host \
             that is itself a guest pays several times for one.",
        )
        .with_fix(another(want))
}

/// What helps where KVM does not do what it should.
fn another(want: &Want) -> Fix {
    Fix::manual(
        Needs::Choice,
        want.or_tcg(
            "use a bare-metal host, or one whose outer hypervisor gives it real VT-x or SVM",
        ),
    )
}

fn duration(nanoseconds: f64) -> String {
    if nanoseconds < 100.0 {
        format!("{nanoseconds:.2} ns")
    } else {
        format!("{:.2} µs", nanoseconds / 1000.0)
    }
}

fn multiple(times: f64) -> String {
    if times < 10.0 {
        format!("{times:.1} ×")
    } else {
        format!("{} ×", thousands(times))
    }
}

/// A large figure, to two digits.
fn thousands(figure: f64) -> String {
    let scale = 10_f64.powf(figure.max(1.0).log10().floor() - 1.0).max(1.0);
    let rounded = (figure / scale).round() * scale;
    // A figure is a rate or a ratio, far from what 64 bits end at; `as` stops there.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    count(rounded as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_two_digits() {
        assert_eq!(thousands(2876.3), "2,900");
        assert_eq!(thousands(1_234_567.0), "1,200,000");
        assert_eq!(thousands(12.4), "12");
        assert_eq!(thousands(0.0), "0");
        assert_eq!(thousands(f64::NAN), "0");
        assert_eq!(multiple(1.04), "1.0 ×");
        assert_eq!(duration(0.25), "0.25 ns");
        assert_eq!(duration(719.0), "0.72 µs");
    }
}
