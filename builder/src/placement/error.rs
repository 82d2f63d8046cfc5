//! Why guests cannot be placed as the user asked.

use std::io;
use std::path::PathBuf;

/// Guests cannot be placed as asked.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// What was asked takes a cgroup, and none may be made.
    #[error(
        "{asked} needs a cgroup for the fleet, and {missing}; launch as root, or in a cgroup that \
         is delegated to you, such as systemd-run --user --scope -p Delegate=yes gives"
    )]
    NoCgroup {
        /// The flags.
        asked: String,
        /// What is not there, or not allowed.
        missing: String,
    },
    /// The fleet's cgroup cannot have a limit of memory.
    #[error(
        "--memory-max needs a cgroup with the memory controller, and {missing}; launch without \
         --memory-max, or as root on a host that has it"
    )]
    NoMemoryController {
        /// What is not there, or not allowed.
        missing: String,
    },
    /// A cgroup cannot be made, or does not take a value.
    #[error("cannot {what} {}: {source}; cgroup.controllers, cgroup.max.descendants and cgroup.max.depth of the groups above \
         it say what they allow", path.display())]
    Cgroup {
        /// What was tried.
        what: String,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// This user may not give guests this nice value.
    #[error(
        "nice value {nice} is not allowed here: below this process's own it takes CAP_SYS_NICE or \
         a higher RLIMIT_NICE; launch as root, or raise `nice` in limits.conf(5)"
    )]
    Nice {
        /// The value.
        nice: i32,
    },
    /// A file about CPUs makes no sense.
    #[error("cannot read the CPU topology from {}: {problem}; launch without --pin and --numa-node", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A CPU is not there, or offline.
    #[error("there is no CPU {cpu} online; those online are {online}")]
    NoCpu {
        /// The CPU.
        cpu: u32,
        /// The list of those that are there.
        online: String,
    },
    /// A CPU is not for this process.
    #[error(
        "CPU {cpu} is not allowed to this process, by its affinity or its cpuset; those allowed \
         are {allowed}"
    )]
    NotAllowed {
        /// The CPU.
        cpu: u32,
        /// The list of those that are.
        allowed: String,
    },
    /// A CPU is on another NUMA node than the one asked for.
    #[error("CPU {cpu} is not on NUMA node {node}, whose CPUs are {cpus}")]
    NotOnNode {
        /// The CPU.
        cpu: u32,
        /// The node.
        node: u32,
        /// The list of its CPUs.
        cpus: String,
    },
    /// A NUMA node is not there.
    #[error("there is no NUMA node {node}; this host has {nodes}")]
    NoNode {
        /// The node.
        node: u32,
        /// The list of those that are there.
        nodes: String,
    },
    /// No CPU of a NUMA node may be used.
    #[error(
        "NUMA node {node} has no CPU that is online and allowed to this process; nodes that have \
         one: {nodes}"
    )]
    NodeWithoutCpu {
        /// The node.
        node: u32,
        /// The list of those that have.
        nodes: String,
    },
    /// A NUMA node has no memory.
    #[error("NUMA node {node} has no memory; nodes that have: {nodes}")]
    NodeWithoutMemory {
        /// The node.
        node: u32,
        /// The list of those that have.
        nodes: String,
    },
}
