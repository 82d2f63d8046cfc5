//! What a template depends on: with anything else, guests would begin with what is not
//! theirs.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::artifact::opened::Artifacts;
use crate::digest::Sha256;
use crate::host_id::HostId;
use crate::plain;
use crate::sample::source::Source;
use crate::vmm::qemu::Emulator;
use crate::vmm::qemu::argv::kind;
use crate::vmm::{Accel, Machine, Part, Sharing};

/// Changes whenever what a template holds, or how it is taken, does.
const VERSION: u32 = 1;

/// What of /proc/cpuinfo tells a CPU from another one (proc_cpuinfo(5)). The rest
/// differs from core to core, or from moment to moment.
const CPU: [&str; 7] = [
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "microcode",
    "flags",
];
/// Most that is read of /proc/cpuinfo, in bytes: its first CPU is enough.
const CPUINFO_MAX: u64 = 64 << 10;

/// What a template depends on.
#[derive(Debug, Serialize)]
pub(crate) struct Key<'a> {
    version: u32,
    /// Digest of the manifest, which has the recipe, the kernel command line without
    /// measured values, and the digests of all files.
    artifacts: Sha256,
    /// All of it but what KSM may merge, which makes no other guest.
    machine: Machine,
    /// How QEMU is asked for it.
    argv: Sha256,
    qemu: &'a Emulator,
    /// The frequency that the guest's kernel was told is this host's.
    host: Option<&'a str>,
    cpu: BTreeMap<String, String>,
    /// KVM is a part of the machine, and comes with the kernel.
    kernel: Option<String>,
}

impl<'a> Key<'a> {
    /// That of a template of such guests on this host, whose files are at `root`.
    pub(crate) fn of(
        artifacts: &Artifacts,
        machine: Machine,
        qemu: &'a Emulator,
        host: &'a HostId,
        root: &Path,
    ) -> Self {
        let kernel = match machine.accel {
            Accel::Kvm => Source::new(root, &mut Vec::new()).text("proc/sys/kernel/osrelease"),
            Accel::Tcg => None,
        };
        let machine = Machine {
            sharing: Sharing::None,
            ..machine
        };
        let cpuinfo = plain::read_start(&root.join("proc/cpuinfo"), CPUINFO_MAX);
        Self {
            version: VERSION,
            artifacts: artifacts.digest,
            machine,
            argv: kind(
                machine,
                &[Part::Identity, Part::Overlay, Part::Base, Part::Memory],
            ),
            qemu,
            host: host.machine.as_deref(),
            cpu: cpu(&String::from_utf8_lossy(&cpuinfo.unwrap_or_default())),
            kernel,
        }
    }

    /// Its digest, by which the template is kept.
    pub(crate) fn digest(&self) -> Sha256 {
        Sha256::of_bytes(serde_json::to_string(self).expect("a key is plain data"))
    }
}

/// What the first CPU is.
fn cpu(cpuinfo: &str) -> BTreeMap<String, String> {
    let first = cpuinfo.lines().take_while(|line| !line.is_empty());
    let fields = first.filter_map(|line| line.split_once(':'));
    fields
        .map(|(name, value)| (name.trim(), value.trim()))
        .filter(|(name, _)| CPU.contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_told_by_what_does_not_change_by_itself() {
        let cpuinfo = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: EPYC\n\
                       microcode\t: 0xa0\ncpu MHz\t\t: 2445.4\nflags\t\t: fpu vme\n\n\
                       processor\t: 1\nvendor_id\t: other\n";
        let known = cpu(cpuinfo);
        let names: Vec<_> = known.keys().map(String::as_str).collect();
        assert_eq!(names, ["flags", "microcode", "model name", "vendor_id"]);
        assert_eq!(known["vendor_id"], "AuthenticAMD");
        assert_eq!(cpu(&cpuinfo.replace("2445.4", "1500.0")), known);
        assert_ne!(cpu(&cpuinfo.replace("0xa0", "0xa1")), known);
        assert!(cpu("").is_empty());
    }
}
