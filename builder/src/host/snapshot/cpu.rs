//! The processors, and the NUMA nodes that have memory.

use std::ops::ControlFlow;
use std::path::Path;

use super::{Cpu, Node};
use crate::sample::meminfo;
use crate::sample::source::{Source, unexpected};

const CPUINFO: &str = "proc/cpuinfo";
/// Most bytes of the part of `/proc/cpuinfo` that is about one processor.
const ONE_PROCESSOR: u64 = 64 << 10;
const ONLINE: &str = "sys/devices/system/cpu/online";
/// Whether a guest can hang a CPU by huge pages that it runs code from (kernel
/// document admin-guide/hw-vuln/multihit).
const MULTIHIT: &str = "sys/devices/system/cpu/vulnerabilities/itlb_multihit";
const NODES: &str = "sys/devices/system/node";

/// `flags` that checks look at.
const FLAGS: [&str; 14] = [
    "avic",
    "constant_tsc",
    "cx16",
    "ept",
    "ept_ad",
    "hypervisor",
    "nonstop_tsc",
    "npt",
    "svm",
    "tsc_deadline_timer",
    "vmx",
    "vpid",
    "x2avic",
    "xsave",
];

/// `vmx flags` that checks look at; see the kernel's
/// arch/x86/include/asm/vmxfeatures.h.
const VMX_FLAGS: [&str; 10] = [
    "apicv",
    "ept",
    "ept_1gb",
    "flexpriority",
    "posted_intr",
    "shadow_vmcs",
    "tsc_offset",
    "unrestricted_guest",
    "vnmi",
    "vpid",
];

/// The processors, of which this process may use `allowed`.
pub(crate) fn read(source: &mut Source, allowed: u64) -> Cpu {
    let mut cpu = Cpu {
        online: source
            .parsed(ONLINE, "a list of processors, such as `0-3,8`", count)
            .unwrap_or(allowed),
        allowed,
        itlb_multihit: source.text(MULTIHIT).map(|text| text.trim().to_owned()),
        ..Cpu::default()
    };
    // The processors are alike in all that is looked at; only the first counts.
    let mut begun = false;
    let read = source.lines(CPUINFO, ONE_PROCESSOR, |line| {
        let Some((name, value)) = line.split_once(':') else {
            return if begun && line.is_empty() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            };
        };
        begun = true;
        let value = value.trim();
        let words = value.split_ascii_whitespace();
        match name.trim_end() {
            "vendor_id" => cpu.vendor = Some(value.to_owned()),
            "model name" => cpu.model = Some(value.to_owned()),
            "flags" => {
                let known = words.filter(|flag| FLAGS.contains(flag));
                cpu.flags.extend(known.map(str::to_owned));
            }
            "vmx flags" => {
                let known = words.filter(|flag| VMX_FLAGS.contains(flag));
                cpu.flags.extend(known.map(|flag| format!("vmx:{flag}")));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    if read.is_some() && cpu.vendor.is_none() {
        source.note(CPUINFO, "there is no vendor_id in it");
    }
    cpu
}

/// How many processors a list such as `0-3,8` names.
fn count(processors: &str) -> Option<u64> {
    processors.split(',').try_fold(0_u64, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(u64::from(last.checked_sub(first)?) + 1)
    })
}

/// The nodes that have memory, by number.
pub(crate) fn nodes(source: &mut Source) -> Vec<Node> {
    let mut ids: Vec<u32> = source
        .names(NODES)
        .iter()
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .collect();
    ids.sort_unstable();
    ids.into_iter()
        .filter_map(|id| node(source, id))
        .filter(|node| node.total > 0)
        .collect()
}

fn node(source: &mut Source, id: u32) -> Option<Node> {
    let folder = Path::new(NODES).join(format!("node{id}"));
    let path = folder.join("meminfo");
    let text = source.text(&path)?;
    let fields = meminfo::fields(&text);
    // Each line begins with the node: `Node 0 MemTotal:  24684092 kB`.
    let size = |name: &str| meminfo::bytes(fields.get(format!("Node {id} {name}").as_str())?);
    let (Some(total), Some(free)) = (size("MemTotal"), size("MemFree")) else {
        source.note(&path, unexpected(&text, "what a node has of memory"));
        return None;
    };
    Some(Node {
        id,
        total,
        free,
        cpus: source
            .parsed(folder.join("cpulist"), "a list of processors", |list| {
                (list.is_empty() || count(list).is_some()).then(|| list.to_owned())
            })
            .unwrap_or_default(),
    })
}
