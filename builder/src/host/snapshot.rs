//! A host as one value, which checks judge and which a user can save and send.
//!
//! Everything that may be absent is an `Option`. What exists but cannot be read, or
//! is malformed, is `None` as well and is listed in [`Host::unseen`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::kvm::Kvm;
use crate::any_path;
use crate::host_id::BootId;

pub(crate) mod cgroup;
mod cpu;
mod daemons;
mod kernel;
mod merge;
pub(crate) mod mounts;
mod network;
mod read;
mod saved;
mod storage;
mod tables;
mod users;

pub use crate::sample::ksm::Ksm;
pub use crate::sample::unseen::Unseen;
pub use read::{KvmProbe, Places};
pub use saved::SnapshotError;

/// The version of the shape that this program writes and reads.
pub const SCHEMA: u32 = 1;

/// What a host offers, and what runs on it now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Shape of this document; see [`SCHEMA`].
    pub schema: u32,
    /// The imgbuild that wrote it.
    pub imgbuild: String,
    /// Whether root looked.
    pub privileged: bool,
    /// This boot, `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<BootId>,
    /// The kernel.
    pub kernel: Kernel,
    /// The processors.
    pub cpu: Cpu,
    /// Hardware virtualization, as the kernel offers it.
    pub kvm: Kvm,
    /// Memory.
    pub memory: Memory,
    /// NUMA nodes that have memory.
    pub nodes: Vec<Node>,
    /// Kernel samepage merging; `None` where the kernel has none.
    pub ksm: Option<Ksm>,
    /// The library by which QEMUs' heaps are alike; `None` where it is not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocator: Option<String>,
    /// Whether `PR_SET_MEMORY_MERGE` outlives execve(2).
    pub memory_merge: Option<MemoryMerge>,
    /// Control groups.
    pub cgroup: Cgroup,
    /// Processes and threads.
    pub processes: Processes,
    /// User ids for guests.
    pub users: UserIds,
    /// Open files and other tables of the kernel.
    pub files: Files,
    /// Network.
    pub network: Network,
    /// File systems that a fleet writes to.
    pub storage: BTreeMap<Store, FileSystem>,
    /// QEMU.
    pub qemu: Qemu,
    /// Running programs that change what imgbuild would, by name: `ksmtuned`,
    /// `uksmd`, `libvirtd`, `virtqemud`.
    pub daemons: BTreeSet<String>,
    /// What could not be read, or makes no sense.
    pub unseen: Vec<Unseen>,
}

/// The kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Its release, as uname(2) has it.
    pub release: Option<String>,
    /// The options of its configuration that checks look at, such as
    /// `CONFIG_KSM` = `y`; an option that is not set has no entry. `None`
    /// without a `/proc/config.gz` or `/boot/config-RELEASE`.
    pub config: Option<BTreeMap<String, String>>,
}

/// The processors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// `GenuineIntel`, `AuthenticAMD`, …
    pub vendor: Option<String>,
    /// Model name.
    pub model: Option<String>,
    /// Processors online; where the kernel does not say, those that this
    /// process may use.
    pub online: u64,
    /// Processors that this process may use.
    pub allowed: u64,
    /// `flags` and `vmx flags` of `/proc/cpuinfo`, of those that checks look
    /// at; the latter with `vmx:` before them, as in `vmx:ept`.
    pub flags: BTreeSet<String>,
    /// What the kernel says of `itlb_multihit`, such as `Not affected`; `None`
    /// where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub itlb_multihit: Option<String>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// `MemTotal`.
    pub total: Option<u64>,
    /// `MemAvailable`.
    pub available: Option<u64>,
    /// `SwapTotal`.
    pub swap: Option<u64>,
    /// `SwapFree`.
    pub swap_free: Option<u64>,
    /// `Hugetlb`: set aside for huge pages, used or not.
    pub huge_pages: Option<u64>,
    /// `CommitLimit`.
    pub commit_limit: Option<u64>,
    /// `Committed_AS`.
    pub committed: Option<u64>,
    /// `vm.overcommit_memory`.
    pub overcommit: Option<u64>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub transparent_huge_pages: Option<String>,
    /// Whether `/proc/pressure/memory` (PSI) is there.
    pub pressure: bool,
}

/// A NUMA node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its number.
    pub id: u32,
    /// Memory, in bytes.
    pub total: u64,
    /// Free memory, in bytes.
    pub free: u64,
    /// Its processors, as the kernel lists them: `0-17,36-53`.
    pub cpus: String,
}

/// What became of `PR_SET_MEMORY_MERGE` (prctl(2)) at execve(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryMerge {
    /// It still holds.
    Kept,
    /// It is gone.
    Lost,
    /// The kernel does not know it (before Linux 6.4), or refuses.
    Unsupported,
}

/// Control groups of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// How they are mounted; `None` where they are not.
    pub version: Option<CgroupVersion>,
    /// Whether this process may make groups below its own, for CPU weights.
    pub delegated: bool,
    /// Whether the hierarchy of CPU time is mounted with `favordynmods`, by which
    /// processes and machines are moved and made at once; `None` where that was
    /// not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub favours_moves: Option<bool>,
    /// This process's group and its ancestors as far as they can be seen,
    /// the innermost first, for each controller that limits guests.
    pub groups: Vec<Group>,
}

/// How control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupVersion {
    /// A hierarchy a controller.
    V1,
    /// Version 1 for controllers, version 2 without any.
    Hybrid,
    /// One hierarchy.
    V2,
}

/// A control group that limits something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its folder.
    pub path: PathBuf,
    /// `pids.max`; `None` without a limit.
    pub pids_max: Option<u64>,
    /// `pids.current`.
    pub pids: Option<u64>,
    /// `memory.max` or `memory.limit_in_bytes`; `None` without a limit.
    pub memory_max: Option<u64>,
    /// `memory.current` or `memory.usage_in_bytes`.
    pub memory: Option<u64>,
    /// What of that is page cache, which the kernel can take back.
    pub memory_cache: Option<u64>,
    /// CPUs' worth of time, in thousandths: `cpu.max`, or
    /// `cpu.cfs_quota_us` ÷ `cpu.cfs_period_us`; `None` without a limit.
    pub cpu_max_millis: Option<u64>,
}

impl Group {
    /// Memory that it still allows, in bytes: page cache counts as free, for the
    /// kernel takes it back. `None` without a limit.
    pub fn memory_room(&self) -> Option<u64> {
        let cache = self.memory_cache.unwrap_or(0);
        let used = self.memory.unwrap_or(0).saturating_sub(cache);
        Some(self.memory_max?.saturating_sub(used))
    }
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// `kernel.pid_max`.
    pub pid_max: Option<u64>,
    /// `kernel.threads-max`.
    pub threads_max: Option<u64>,
    /// Threads now, on the whole host.
    pub threads: Option<u64>,
    /// `RLIMIT_NPROC`, hard, which binds users other than root; `None`
    /// without a limit.
    pub user_max: Option<u64>,
    /// Threads of this user now, which count against that; `None` for root.
    pub user_threads: Option<u64>,
    /// Whether sessions share CPU time as groups (`kernel.sched_autogroup_enabled`).
    pub autogroup: Option<bool>,
}

/// User ids for guests, of which root gives each one of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// Ids that this process's user namespace has, as users and as groups.
    pub mapped: u64,
    /// Most guests that a fleet can have under ids that no file gives to anybody
    /// else.
    pub guests: u64,
    /// Capabilities that this process lacks to run guests under them.
    pub missing: Vec<String>,
    /// Whether the user namespace denies setgroups(2).
    pub groups_denied: bool,
    /// What keeps users who are nobody else's from running QEMU, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu_barrier: Option<String>,
}

/// Open files and other tables of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// `RLIMIT_NOFILE`, hard; `None` without a limit.
    pub open_max: Option<u64>,
    /// Whether this process may raise that (`CAP_SYS_RESOURCE`).
    pub open_raisable: bool,
    /// `fs.nr_open`, above which not even root can raise that.
    pub nr_open: Option<u64>,
    /// `fs.file-max`, of all processes.
    pub file_max: Option<u64>,
    /// Open files of all processes now (`fs.file-nr`).
    pub open: Option<u64>,
    /// `vm.max_map_count`.
    pub max_map_count: Option<u64>,
    /// `fs.aio-max-nr`.
    pub aio_max: Option<u64>,
    /// `fs.aio-nr`.
    pub aio: Option<u64>,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: Option<u64>,
}

/// Network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `net.ipv4.ip_local_port_range`: first and last.
    pub ephemeral: Option<[u16; 2]>,
    /// TCP ports that somebody listens on.
    pub listening: Option<u64>,
    /// Whether `/dev/net/tun` is there.
    pub tun: bool,
    /// The addresses that guests' taps would have; `None` where that was not
    /// asked.
    pub taps: Option<Taps>,
    /// Whether a packet from one tap gets to another; `None` where that was not
    /// tried.
    pub forwards: Option<bool>,
    /// `net.ipv4.neigh.default.gc_thresh3`: most neighbours that are not
    /// permanent.
    pub neighbours_max: Option<u64>,
    /// `net.core.netdev_max_backlog`.
    pub backlog: Option<u64>,
}

/// Addresses for guests' taps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taps {
    /// The network, such as `10.213.0.0/16`.
    pub subnet: String,
    /// Guests that it has a link for.
    pub links: u64,
    /// The route that has a part of it, such as `10.213.0.0/24 through eth0`.
    pub overlaps: Option<String>,
}

/// What a fleet keeps in a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// Overlays and identities.
    State,
    /// Sockets.
    Runtime,
    /// `/dev/shm`, for a template's memory.
    Shm,
}

/// A file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// The folder, or its nearest ancestor that is there.
    pub path: PathBuf,
    /// Its type, such as `ext4`.
    pub kind: Option<String>,
    /// Size, in bytes.
    pub size: u64,
    /// Free for this user, in bytes.
    pub free: u64,
    /// Files that can still be made; `None` where they are not counted.
    pub files_free: Option<u64>,
}

/// QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Qemu {
    /// It is there.
    Found {
        /// Its absolute path; `None` in snapshots of before it was noted.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            with = "any_path::option"
        )]
        path: Option<PathBuf>,
        /// The first line of `--version`.
        version: String,
        /// Whether it has the machine type `microvm`.
        microvm: bool,
    },
    /// It is not installed.
    Missing,
    /// It does not work.
    Broken {
        /// What was tried, and what came of it.
        why: String,
    },
    /// The host was too busy for it to answer.
    Overdue {
        /// What was tried, and what came of it.
        why: String,
    },
}

#[cfg(test)]
mod tests;
