//! What the user asks for: CPUs, memory, and shares of them.

use serde::{Deserialize, Serialize};

use crate::units::ByteSize;

/// On which CPUs guests run, and with what share of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacementSpec {
    /// How vCPUs are spread over CPUs; anywhere without.
    pub pin: Option<Pin>,
    /// The NUMA node whose CPUs and memory are used.
    pub numa_node: Option<u32>,
    /// Nice value of the guests, -20 to 19.
    pub nice: Option<i32>,
    /// The fleet's share of the CPU against other cgroups', 1 to 10,000
    /// (kernel document admin-guide/cgroup-v2, `cpu.weight`).
    pub cpu_weight: Option<u64>,
    /// Most CPU time of the fleet, in CPUs (`cpu.max`).
    pub cpu_max: Option<f64>,
    /// Most memory of the fleet (`memory.max`).
    pub memory_max: Option<ByteSize>,
}

/// How vCPUs are spread over CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// One on each core in turn, NUMA nodes in turn, SMT siblings last.
    Spread,
    /// Filling a core's SMT siblings and a NUMA node before the next.
    Compact,
    /// In turn on these CPUs.
    List(Vec<u32>),
}
