//! The kernel's configuration.

use std::collections::BTreeMap;

use super::cpu;
use super::kvm::{Link, broken};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::settings::Module;
use crate::host::snapshot::Host;
use crate::host::want::Want;
use crate::vmm::Sharing;

const CONFIG: Check = Check {
    id: "config",
    document: "https://docs.kernel.org/kbuild/kconfig.html",
};
const KVM: Check = Check {
    id: "config-kvm",
    document: "https://docs.kernel.org/virt/kvm/index.html",
};
const KSM: Check = Check {
    id: "config-ksm",
    document: "https://docs.kernel.org/admin-guide/mm/ksm.html",
};
const VIRTIO: Check = Check {
    id: "config-virtio",
    document: "https://docs.kernel.org/driver-api/virtio/virtio.html",
};
const VHOST: Check = Check {
    id: "config-vhost",
    document: "https://www.qemu.org/docs/master/system/devices/net.html",
};
const IRQ_BYPASS: Check = Check {
    id: "config-irqbypass",
    document: "https://docs.kernel.org/driver-api/vfio.html",
};
const TUN: Check = Check {
    id: "config-tun",
    document: "https://docs.kernel.org/networking/tuntap.html",
};

type Config = BTreeMap<String, String>;

/// Whether the kernel is built with KVM for this CPU; `None` without a
/// configuration to read.
pub(super) fn has_kvm(host: &Host) -> Option<bool> {
    let config = host.kernel.config.as_ref()?;
    Some(missing(config, &kvm_options(host)).is_empty())
}

/// Its version, the first two numbers of its release.
pub(super) fn version(host: &Host) -> Option<(u32, u32)> {
    let mut numbers = host
        .kernel
        .release
        .as_deref()?
        .split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    let release = host.kernel.release.as_deref().unwrap_or("not seen");
    let need = "/proc/config.gz or /boot/config-RELEASE";
    let Some(config) = &host.kernel.config else {
        return vec![
            CONFIG
                .finds(
                    Severity::Advice,
                    format!("not seen, of kernel {release}"),
                    need,
                    "The kernel's configuration is not known; other checks look at what the kernel \
                     does.",
                )
                .mended_by(Fix::manual(
                    Needs::Command,
                    "load the module that exports it (modprobe configs), or let this user read \
                     /boot/config-$(uname -r)",
                )),
        ];
    };
    let value = format!("of kernel {release}");
    let meaning = "The kernel's configuration is known.";
    vec![
        CONFIG.finds(Severity::Ok, value, need, meaning),
        kvm(host, want, config),
        ksm(host, want, config),
        virtio(host, config),
        vhost(config),
        irq_bypass(config),
        tun(config),
    ]
}

fn kvm_options(host: &Host) -> [&'static str; 2] {
    let vendor = match cpu::vendor_module(host) {
        Module::KvmAmd => "CONFIG_KVM_AMD",
        Module::KvmIntel => "CONFIG_KVM_INTEL",
    };
    ["CONFIG_KVM", vendor]
}

/// Those of `options` that are neither built in nor modules.
fn missing<'a>(config: &Config, options: &[&'a str]) -> Vec<&'a str> {
    let set = |option: &str| matches!(config.get(option).map(String::as_str), Some("y" | "m"));
    let options = options.iter().copied();
    options.filter(|option| !set(option)).collect()
}

/// What it means that an option is lacking.
#[derive(Clone, Copy)]
enum Lack {
    /// So much is lost of what the option does.
    Matters(Severity),
    /// Nothing is, for this reason.
    Unused(&'static str),
}

/// A finding on `options`, all of which are needed for what `meaning` says.
fn options(check: Check, config: &Config, options: &[&str], lack: Lack, meaning: &str) -> Finding {
    let missing = missing(config, options);
    let need = options.join(", ");
    if missing.is_empty() {
        let set = options
            .iter()
            .map(|option| format!("{option}={}", config[*option]));
        let value = set.collect::<Vec<_>>().join(" ");
        return check.finds(Severity::Ok, value, need, meaning);
    }
    let value = format!("without {}", missing.join(", "));
    let (severity, meaning) = match lack {
        Lack::Matters(severity) => (severity, meaning.to_owned()),
        Lack::Unused(reason) => (Severity::Ok, format!("Not used: {reason}")),
    };
    check
        .finds(severity, value, need, meaning)
        .mended_by(Fix::manual(
            Needs::Reboot,
            format!("boot a kernel built with {}", missing.join(", ")),
        ))
}

fn kvm(host: &Host, want: &Want, config: &Config) -> Finding {
    let lack = match broken(host) {
        None => Lack::Unused("/dev/kvm opens, so something else is behind it."),
        Some(Link::Kernel) => Lack::Matters(want.under_kvm(Severity::Blocker)),
        Some(Link::Cpu | Link::Module | Link::Device) => Lack::Matters(Severity::Advice),
    };
    options(
        KVM,
        config,
        &kvm_options(host),
        lack,
        "The kernel runs virtual machines on the CPU's VT-x or SVM.",
    )
}

fn ksm(host: &Host, want: &Want, config: &Config) -> Finding {
    let lack = match want.sharing {
        Sharing::None => Lack::Unused("guests with --sharing none merge nothing."),
        Sharing::Guest if host.ksm.is_some() => {
            Lack::Unused("/sys/kernel/mm/ksm is there, which is enough.")
        }
        Sharing::Guest => Lack::Matters(Severity::Advice),
    };
    options(
        KSM,
        config,
        &["CONFIG_KSM"],
        lack,
        "The kernel can keep equal pages of guests once.",
    )
}

fn virtio(host: &Host, config: &Config) -> Finding {
    let lack = if cpu::is_guest(host) {
        Lack::Matters(Severity::Advice)
    } else {
        Lack::Unused("this host is not a guest itself, and guests' virtio devices are QEMU's.")
    };
    options(
        VIRTIO,
        config,
        &["CONFIG_VIRTIO", "CONFIG_VIRTIO_NET", "CONFIG_VIRTIO_BLK"],
        lack,
        "Guests' virtio devices are QEMU's and need none of it; it makes this host's own disk and \
         network fast where it is itself a guest.",
    )
}

fn vhost(config: &Config) -> Finding {
    options(
        VHOST,
        config,
        &["CONFIG_VHOST_NET"],
        Lack::Matters(Severity::Advice),
        "Guests on taps can have their packets moved by the kernel instead of QEMU; QEMU's own \
         network, --net user, does without.",
    )
}

fn irq_bypass(config: &Config) -> Finding {
    options(
        IRQ_BYPASS,
        config,
        &["CONFIG_IRQ_BYPASS_MANAGER"],
        Lack::Matters(Severity::Advice),
        "Interrupts of a device that is passed through go to its guest directly; these guests are \
         given none, so it is only for comparison.",
    )
}

fn tun(config: &Config) -> Finding {
    options(
        TUN,
        config,
        &["CONFIG_TUN"],
        Lack::Matters(Severity::Advice),
        "Guests can be connected by taps; --net user does without.",
    )
}
