//! NUMA nodes.

use super::text::size;
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::Host;
use crate::host::want::Want;

const NUMA: Check = Check {
    id: "numa",
    document: "https://docs.kernel.org/admin-guide/mm/numa_memory_policy.html",
};

/// Judges how memory is spread.
pub(super) fn judge(host: &Host, _want: &Want) -> Vec<Finding> {
    let need = "one node, or guests placed by node";
    let finding = match &host.nodes[..] {
        [] => NUMA.not_seen(need, "It is not known whether memory is near to every CPU."),
        [node] => NUMA.finds(
            Severity::Ok,
            format!("1 node of {}", size(node.total)),
            need,
            "Memory is as near to one CPU as to another.",
        ),
        nodes => {
            let list: Vec<_> = nodes
                .iter()
                .map(|node| {
                    format!(
                        "node {} with {} ({} free, CPUs {})",
                        node.id,
                        size(node.total),
                        size(node.free),
                        node.cpus
                    )
                })
                .collect();
            NUMA.finds(
                Severity::Advice,
                format!("{} nodes: {}", nodes.len(), list.join(", ")),
                need,
                "A guest whose vCPU runs on one node and whose memory lies on another is slower; \
                 a page that KSM merged across nodes is far from most of its guests.",
            )
            .with_fix(Fix::manual(
                Needs::Choice,
                "launch a fleet for each node: numactl --cpunodebind=0 --membind=0 imgbuild \
                 launch …",
            ))
        }
    };
    vec![finding]
}
