//! The kernel's configuration.

use super::facts::config::{Config, kvm_options, missing};
use super::facts::link::{Link, broken};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::Host;
use crate::host::want::Want;
use crate::vmm::{Net, Sharing};

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

pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    let release = host.kernel.release.as_deref().unwrap_or("not seen");
    let need = "/proc/config.gz or /boot/config-RELEASE";
    let Some(config) = &host.kernel.config else {
        return vec![CONFIG.finds(
            Severity::Ok,
            format!("not seen, of kernel {release}"),
            need,
            "The kernel's configuration is not known; other checks look at what the kernel \
                 does.",
        )];
    };
    let value = format!("of kernel {release}");
    let meaning = "The kernel's configuration is known.";
    vec![
        CONFIG.finds(Severity::Ok, value, need, meaning),
        kvm(host, want, config),
        ksm(host, want, config),
        virtio(config),
        vhost(config),
        irq_bypass(config),
        tun(host, want, config),
    ]
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
        .with_fix(Fix::manual(
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
    let lack = match want.machine.sharing {
        Sharing::None => Lack::Unused("guests with --sharing none merge nothing."),
        Sharing::Guest | Sharing::All if host.ksm.is_some() => {
            Lack::Unused("/sys/kernel/mm/ksm is there, which is enough.")
        }
        Sharing::Guest | Sharing::All => Lack::Matters(Severity::Advice),
    };
    options(
        KSM,
        config,
        &["CONFIG_KSM"],
        lack,
        "The kernel can keep equal pages of guests once.",
    )
}

/// For information, as the next two are: they are looked for where other
/// launchers run.
fn virtio(config: &Config) -> Finding {
    options(
        VIRTIO,
        config,
        &["CONFIG_VIRTIO", "CONFIG_VIRTIO_NET", "CONFIG_VIRTIO_BLK"],
        Lack::Unused(
            "guests' virtio devices are QEMU's, and where this host is a guest itself, what \
             serves its disk and network is there.",
        ),
        "Guests' virtio devices are QEMU's and need none of it; it serves this host's own disk and \
         network where it is itself a guest.",
    )
}

fn vhost(config: &Config) -> Finding {
    options(
        VHOST,
        config,
        &["CONFIG_VHOST_NET"],
        Lack::Unused("QEMU moves guests' packets itself."),
        "The kernel can move a guest's packets instead of QEMU, which imgbuild's guests are not \
         set up for.",
    )
}

fn irq_bypass(config: &Config) -> Finding {
    options(
        IRQ_BYPASS,
        config,
        &["CONFIG_IRQ_BYPASS_MANAGER"],
        Lack::Unused("guests are given no device of the host's."),
        "Interrupts of a device that is passed through go to its guest directly; imgbuild's guests \
         are given none.",
    )
}

fn tun(host: &Host, want: &Want, config: &Config) -> Finding {
    let lack = match want.machine.net {
        Net::User | Net::None => Lack::Unused("only guests on taps need it."),
        Net::Tap if host.network.tun => {
            Lack::Unused("/dev/net/tun is there, which is what counts.")
        }
        Net::Tap => Lack::Matters(Severity::Advice),
    };
    options(
        TUN,
        config,
        &["CONFIG_TUN"],
        lack,
        "Guests can be connected by taps, which --net user does not need.",
    )
}
