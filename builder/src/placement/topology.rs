//! Where the host's CPUs are: cores, their SMT siblings, NUMA nodes (kernel
//! documents admin-guide/cputopology and ABI/stable/sysfs-devices-node).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::thread::{CpuSet, sched_getaffinity};

use super::error::CpuError;
use super::list;

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
    /// can be told apart.
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
    match fs::read_to_string(path) {
        Ok(text) => list::parse(&text)
            .map(Some)
            .ok_or_else(|| unreadable(format!("`{}` is not a list of numbers", text.trim()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn absent(path: PathBuf) -> CpuError {
    CpuError::Unreadable {
        path,
        problem: "there is no such file".to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A host of these files below `/sys/devices/system`.
    pub(crate) fn host(
        files: &[(&str, &str)],
        allowed: impl Fn(u32) -> bool,
    ) -> Result<Topology, CpuError> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join("sys/devices/system").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Topology::below(root.path(), allowed)
    }

    const SIBLINGS: &str = "topology/thread_siblings_list";

    /// Two sockets, each a NUMA node, of two cores with two threads; siblings
    /// are four apart, as firmware likes to number them.
    pub(crate) fn two_sockets() -> Topology {
        let siblings: Vec<(String, String)> = (0..8)
            .map(|cpu| {
                let core = cpu % 4;
                (
                    format!("cpu/cpu{cpu}/{SIBLINGS}"),
                    format!("{core},{}\n", core + 4),
                )
            })
            .collect();
        let mut files = vec![
            ("cpu/online", "0-7\n"),
            ("node/online", "0-1\n"),
            ("node/has_memory", "0-1\n"),
            ("node/node0/cpulist", "0-1,4-5\n"),
            ("node/node1/cpulist", "2-3,6-7\n"),
        ];
        files.extend(
            siblings
                .iter()
                .map(|(name, text)| (name.as_str(), text.as_str())),
        );
        host(&files, |_| true).unwrap()
    }

    #[test]
    fn siblings_and_nodes_are_told() {
        let topology = two_sockets();
        assert_eq!(
            topology.cpus[6],
            Cpu {
                id: 6,
                core: 2,
                node: 1,
                allowed: true
            }
        );
        assert_eq!(
            (topology.nodes, topology.nodes_with_memory),
            (vec![0, 1], vec![0, 1])
        );
    }

    #[test]
    fn a_host_that_tells_only_what_is_online_has_one_node_and_no_siblings() {
        let topology = host(&[("cpu/online", "0,2-3\n")], |cpu| cpu != 2).unwrap();
        let cpus = [(0, true), (2, false), (3, true)];
        let cpus = cpus.map(|(id, allowed)| Cpu {
            id,
            core: id,
            node: 0,
            allowed,
        });
        assert_eq!(topology.cpus, cpus);
        let usable = topology.usable(Some(0)).unwrap();
        assert_eq!(usable.iter().map(|cpu| cpu.id).collect::<Vec<_>>(), [0, 3]);
    }

    #[test]
    fn nodes_that_cannot_be_used_are_refused_with_those_that_can() {
        // Node 1 has memory alone, node 2 a CPU alone; 4 is offline; node 5 has
        // one that is not allowed.
        let topology = host(
            &[
                ("cpu/online", "0-3,6\n"),
                ("node/online", "0-2,5\n"),
                ("node/has_memory", "0-1,5\n"),
                ("node/node0/cpulist", "0-2\n"),
                ("node/node1/cpulist", "\n"),
                ("node/node2/cpulist", "3\n"),
                ("node/node5/cpulist", "4,6\n"),
            ],
            |cpu| cpu != 6,
        )
        .unwrap();
        let message = |node| topology.usable(Some(node)).unwrap_err().to_string();
        assert_eq!(message(3), "there is no NUMA node 3; this host has 0-2,5");
        assert_eq!(
            message(1),
            "NUMA node 1 has no CPU that is online and allowed to this process; nodes that have \
             one: 0,2"
        );
        assert_eq!(
            message(2),
            "NUMA node 2 has no memory; nodes that have: 0-1,5"
        );
        assert!(matches!(
            topology.usable(Some(5)),
            Err(CpuError::NodeWithoutCpu { .. })
        ));
        assert_eq!(topology.usable(Some(0)).unwrap().len(), 3);
        assert_eq!(topology.usable(None).unwrap().len(), 4);
    }

    #[test]
    fn files_that_make_no_sense_are_named() {
        for files in [
            &[][..],
            &[("cpu/online", "0-")],
            &[("cpu/online", "0-9999999")],
            &[
                ("cpu/online", "0-1"),
                ("cpu/cpu1/topology/thread_siblings_list", "1,"),
            ],
            &[("cpu/online", "0-1"), ("node/online", "0-")],
            &[
                ("cpu/online", "0-1"),
                ("node/online", "0"),
                ("node/node0/cpulist", "0-x"),
            ],
            &[("cpu/online", "0-1"), ("node/has_memory", "?")],
        ] {
            let error = host(files, |_| true).unwrap_err();
            assert!(matches!(error, CpuError::Unreadable { .. }), "{error}");
            let named = files.last().map_or("cpu/online", |(name, _)| name);
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn this_host_has_a_cpu_that_may_be_used() {
        assert!(!Topology::read().unwrap().usable(None).unwrap().is_empty());
    }
}
