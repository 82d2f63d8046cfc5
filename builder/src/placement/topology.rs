//! Where the host's CPUs are: cores, their SMT siblings, NUMA nodes (kernel
//! documents admin-guide/cputopology and ABI/stable/sysfs-devices-node).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::thread::{CpuSet, sched_getaffinity};

use super::error::CpuError;
use super::list;
use crate::plain::if_there;

const CPUS: &str = "sys/devices/system/cpu";
const NODES: &str = "sys/devices/system/node";

/// A host's CPUs and NUMA nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topology {
    /// CPUs that are online, ascending.
    pub cpus: Vec<Cpu>,
    /// NUMA nodes that are online, ascending.
    pub nodes: Vec<u32>,
    /// Those of them that have memory.
    pub nodes_with_memory: Vec<u32>,
}

/// A CPU that is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// Its number.
    pub id: u32,
    /// Its core, as the lowest number of the core's CPUs.
    pub core: u32,
    /// Its NUMA node.
    pub node: u32,
    /// Whether this process may use it (sched_getaffinity(2)).
    pub allowed: bool,
}

impl Topology {
    /// Of this host, and what of it this process may use. The first 1,024 CPUs
    /// can be distinguished.
    pub(crate) fn read() -> Result<Self, CpuError> {
        let allowed = sched_getaffinity(None).map_err(|error| CpuError::Unreadable {
            path: "/proc/self".into(),
            problem: format!("sched_getaffinity(2): {error}"),
        })?;
        Self::below(Path::new("/"), |cpu| {
            (cpu as usize) < CpuSet::MAX_CPU && allowed.is_set(cpu as usize)
        })
    }

    /// As the files below `root` tell; `allowed` tells which CPUs may be used.
    pub(crate) fn below(root: &Path, allowed: impl Fn(u32) -> bool) -> Result<Self, CpuError> {
        let online = root.join(CPUS).join("online");
        let ids = read_list(&online)?.ok_or_else(|| absent(online))?;
        let nodes = root.join(NODES);
        // A kernel without NUMA has no such folder, and one node.
        let numbers = read_list(&nodes.join("online"))?.unwrap_or_else(|| vec![0]);
        let with_memory = read_list(&nodes.join("has_memory"))?.unwrap_or_else(|| numbers.clone());
        let cpus_of = numbers.iter().map(|node| {
            let path = nodes.join(format!("node{node}/cpulist"));
            let cpus: BTreeSet<u32> = read_list(&path)?.unwrap_or_default().into_iter().collect();
            Ok((*node, cpus))
        });
        let cpus_of = cpus_of.collect::<Result<Vec<_>, CpuError>>()?;
        let cpu = |id: u32| {
            let path = root
                .join(CPUS)
                .join(format!("cpu{id}/topology/thread_siblings_list"));
            let siblings = read_list(&path)?.unwrap_or_default();
            let node = cpus_of.iter().find(|(_, cpus)| cpus.contains(&id));
            Ok(Cpu {
                id,
                core: siblings.into_iter().min().unwrap_or(id),
                node: node.map_or_else(|| numbers.first().copied().unwrap_or(0), |(node, _)| *node),
                allowed: allowed(id),
            })
        };
        let mut cpus = ids.into_iter().map(cpu).collect::<Result<Vec<_>, _>>()?;
        cpus.sort_unstable_by_key(|cpu| cpu.id);
        Ok(Self {
            cpus,
            nodes: numbers,
            nodes_with_memory: with_memory,
        })
    }

    /// The CPUs that this process may use, of `node` alone if given. A node
    /// must have memory too, or nothing can be bound to it.
    pub(crate) fn usable(&self, node: Option<u32>) -> Result<Vec<Cpu>, CpuError> {
        let allowed = self.cpus.iter().filter(|cpu| cpu.allowed).copied();
        let Some(node) = node else {
            return Ok(allowed.collect());
        };
        if !self.nodes.contains(&node) {
            return Err(CpuError::NoNode {
                node,
                nodes: list::text(self.nodes.iter().copied()),
            });
        }
        if !self.nodes_with_memory.contains(&node) {
            return Err(CpuError::NodeWithoutMemory {
                node,
                nodes: list::text(self.nodes_with_memory.iter().copied()),
            });
        }
        let cpus: Vec<_> = allowed.clone().filter(|cpu| cpu.node == node).collect();
        if cpus.is_empty() {
            let nodes: BTreeSet<_> = allowed.map(|cpu| cpu.node).collect();
            return Err(CpuError::NodeWithoutCpu {
                node,
                nodes: list::text(nodes),
            });
        }
        Ok(cpus)
    }
}

/// The list in a file; `None` if there is no such file.
fn read_list(path: &Path) -> Result<Option<Vec<u32>>, CpuError> {
    let unreadable = |problem: String| CpuError::Unreadable {
        path: path.to_path_buf(),
        problem,
    };
    let found = if_there(fs::read_to_string(path)).map_err(|e| unreadable(e.to_string()))?;
    found
        .map(|text| {
            let list = list::parse(&text);
            list.ok_or_else(|| unreadable(format!("`{}` is not a list of numbers", text.trim())))
        })
        .transpose()
}

fn absent(path: PathBuf) -> CpuError {
    CpuError::Unreadable {
        path,
        problem: "there is no such file".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
