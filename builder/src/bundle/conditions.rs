//! The conditions of a run by name, and which of them forbid a comparison when they
//! differ.

/// Whether runs can be compared whose conditions differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Only on request: the difference alone may explain other figures.
    Matters,
    /// They can; the difference is reported.
    Noted,
}

/// A condition that is recorded by name, in [`Conditions::host`] or
/// [`Conditions::guest`].
///
/// [`Conditions::host`]: super::types::Conditions::host
/// [`Conditions::guest`]: super::types::Conditions::guest
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Its name in `run.json`.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// Whether it forbids a comparison.
    pub weight: Weight,
}

const fn matters(name: &'static str, title: &'static str) -> Condition {
    Condition {
        name,
        title,
        weight: Weight::Matters,
    }
}

const fn noted(name: &'static str, title: &'static str) -> Condition {
    Condition {
        name,
        title,
        weight: Weight::Noted,
    }
}

/// Conditions of the host.
pub mod host {
    use super::{Condition, matters, noted};

    /// Release and version of its kernel, as uname(2) has them.
    pub const KERNEL: Condition = matters("kernel", "the host's kernel");
    /// `model name` of /proc/cpuinfo.
    pub const CPU_MODEL: Condition = matters("cpu_model", "the CPU's model");
    /// `vendor_id` of /proc/cpuinfo.
    pub const CPU_VENDOR: Condition = noted("cpu_vendor", "the CPU's vendor");
    /// Version of the control groups, and which controllers the fleet had.
    pub const CGROUP: Condition = noted("cgroup", "control groups");
    /// The policy of transparent huge pages.
    pub const THP: Condition = noted("thp", "transparent huge pages");
    /// Swap space.
    pub const SWAP: Condition = noted("swap", "swap");
    /// Whether cores have several threads.
    pub const SMT: Condition = noted("smt", "simultaneous multithreading");
    /// Which boot of the host it was.
    pub const BOOT: Condition = noted("boot", "the host's boot");

    /// All of them, in the order in which they are reported.
    pub const ALL: [Condition; 8] = [KERNEL, CPU_MODEL, CPU_VENDOR, CGROUP, THP, SWAP, SMT, BOOT];
}

/// Conditions of the VMM, and of how guests run on it.
pub mod guest {
    use super::{Condition, matters, noted};

    /// Name and version of QEMU.
    pub const QEMU: Condition = matters("qemu", "QEMU");
    /// Digest of its file.
    pub const QEMU_SHA256: Condition = matters("qemu_sha256", "QEMU's digest");
    /// The accelerator.
    pub const ACCEL: Condition = matters("accel", "the accelerator");
    /// What guests share.
    pub const SHARING: Condition = matters("sharing", "sharing");
    /// Their network.
    pub const NET: Condition = noted("net", "the network");
    /// How guests come up: they boot, or are cloned.
    pub const START: Condition = noted("start", "how guests start");
    /// The recipe's name.
    pub const RECIPE: Condition = noted("recipe", "the recipe");
    /// Which guests are started again.
    pub const RESTART: Condition = noted("restart", "the restart policy");
    /// Their disk.
    pub const DISK: Condition = noted("disk", "the disk");

    /// All of them, in the order in which they are reported.
    pub const ALL: [Condition; 9] = [
        QEMU,
        QEMU_SHA256,
        ACCEL,
        SHARING,
        NET,
        START,
        RECIPE,
        RESTART,
        DISK,
    ];
}
