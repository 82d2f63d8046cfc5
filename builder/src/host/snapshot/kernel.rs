//! The kernel's release and configuration.

use std::collections::BTreeMap;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::Kernel;
use crate::sample::source::{ORDINARY, Source, read_bounded, reason};

/// Most bytes of a configuration; a distribution's has 300 kB.
const CONFIG_LIMIT: u64 = 4 << 20;

const BUILT_IN: &str = "proc/config.gz";

/// The options that checks look at, without `CONFIG_`.
const OPTIONS: [&str; 24] = [
    "BPF_SYSCALL",
    "CGROUP_PIDS",
    "CGROUP_SCHED",
    "DEBUG_INFO_BTF",
    "HAVE_KVM_IRQ_BYPASS",
    "IKCONFIG_PROC",
    "IRQ_BYPASS_MANAGER",
    "KSM",
    "KVM",
    "KVM_AMD",
    "KVM_INTEL",
    "MEMCG",
    "NUMA",
    "PSI",
    "SCHED_AUTOGROUP",
    "SCHED_INFO",
    "TRANSPARENT_HUGEPAGE",
    "TUN",
    "VHOST",
    "VHOST_NET",
    "VIRTIO",
    "VIRTIO_BLK",
    "VIRTIO_MMIO",
    "VIRTIO_NET",
];

/// The kernel whose release is `release`.
pub(crate) fn read(source: &mut Source, release: Option<String>) -> Kernel {
    Kernel {
        config: built_in(source).or_else(|| installed(source, release.as_deref()?)),
        release,
    }
}

fn built_in(source: &mut Source) -> Option<BTreeMap<String, String>> {
    let packed = source.bytes(BUILT_IN, ORDINARY)?;
    match read_bounded(MultiGzDecoder::new(packed.as_slice()), CONFIG_LIMIT) {
        Ok(text) => options(source, Path::new(BUILT_IN), &text),
        Err(error) => {
            source.note(BUILT_IN, reason(&error));
            None
        }
    }
}

fn installed(source: &mut Source, release: &str) -> Option<BTreeMap<String, String>> {
    let path = Path::new("boot").join(format!("config-{release}"));
    let text = source.bytes(&path, CONFIG_LIMIT)?;
    options(source, &path, &text)
}

/// The options of `text` that checks look at; none of any kind is no
/// configuration.
fn options(source: &mut Source, path: &Path, text: &[u8]) -> Option<BTreeMap<String, String>> {
    let text = String::from_utf8_lossy(text);
    let set = |line| {
        let (name, value) = str::split_once(line, '=')?;
        Some((name.strip_prefix("CONFIG_")?, value))
    };
    let mut all = text.lines().filter_map(set).peekable();
    if all.peek().is_none() {
        source.note(path, "there is no kernel option in it");
        return None;
    }
    let looked_at =
        all.filter(|(name, value)| OPTIONS.contains(name) && ["y", "m"].contains(value));
    Some(
        looked_at
            .map(|(name, value)| (format!("CONFIG_{name}"), value.to_owned()))
            .collect(),
    )
}
