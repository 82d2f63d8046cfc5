//! What processes that run guests cost their host in memory, as the kernel accounts
//! for it.

use std::io;
use std::path::{Path, PathBuf};

use super::cgroup::Hierarchy;
use super::footprint::PAGE;
use super::processes::{bytes, field, is_gone, sizes};
use super::source::Source;
use super::{ksm, meminfo};

/// What a thread has for its stack in the kernel, on x86-64 (Linux's `THREAD_SIZE`).
const KERNEL_STACK: u64 = 16 << 10;

/// A process's memory, in bytes (`proc_pid_smaps(5)`, kernel document
/// admin-guide/mm/ksm).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Process {
    /// Pages of no file, those that KSM has merged included.
    pub anonymous: u64,
    /// What of that KSM has merged with other pages.
    pub merged: u64,
    /// What KSM has replaced by the kernel's zero page, which costs nothing.
    pub zero: u64,
    /// What is swapped out.
    pub swap: u64,
    /// Its part of all pages that it maps: of one that N map, an Nth.
    pub proportional: u64,
    /// What of that is of files in memory, such as a template's.
    pub in_memory: u64,
    /// All pages that it maps, whoever else does.
    pub resident: u64,
    pub page_tables: u64,
    pub kernel_stacks: u64,
    /// What KSM keeps about its pages.
    pub ksm: u64,
}

impl Process {
    /// What the process `pid` has now; `None` if it has ended.
    pub(crate) fn of(root: &Path, pid: u32) -> io::Result<Option<Self>> {
        match Self::read(&root.join(format!("proc/{pid}"))) {
            Err(error) if is_gone(&error) => Ok(None),
            read => read,
        }
    }

    fn read(process: &Path) -> io::Result<Option<Self>> {
        // Each reading of this file walks all of the process's page tables.
        let fields = ["Anonymous", "SwapPss", "Pss", "Pss_Shmem", "Rss"];
        let [anonymous, swap, proportional, in_memory, resident] =
            sizes(process, "smaps_rollup", fields)?;
        let threads: u64 = match field(process, "status", "Threads")?.parse() {
            Ok(threads) => threads,
            Err(error) => return Err(io::Error::other(error)),
        };
        // An older kernel does not say what it has merged.
        let ksm = ksm::share(process).unwrap_or_default();
        let pages = |pages: u64| pages.saturating_mul(PAGE as u64);
        Ok(Some(Self {
            anonymous,
            merged: pages(ksm.merged),
            zero: pages(ksm.zero),
            swap,
            proportional,
            in_memory,
            resident,
            page_tables: bytes(process, "status", &["VmPTE"])?,
            kernel_stacks: threads.saturating_mul(KERNEL_STACK),
            ksm: ksm.items.saturating_mul(ksm::ITEM),
        }))
    }

    /// Pages that it has for itself alone.
    pub(crate) fn own(&self) -> u64 {
        self.anonymous.saturating_sub(self.merged)
    }
}

/// A control group's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// All that is charged to it.
    pub charged: u64,
    /// What of that is page cache.
    pub cache: u64,
    /// What of that the kernel has for its processes: page tables, stacks, objects;
    /// `None` where that is not counted (cgroup v2 before Linux 5.18).
    pub kernel: Option<u64>,
}

impl Group {
    /// What the group with this folder has now; `None` where that is not counted.
    pub(crate) fn of(hierarchy: Hierarchy, folder: &Path) -> Option<Self> {
        let mut unseen = Vec::new();
        let mut source = Source::new(Path::new("/"), &mut unseen);
        Some(Self {
            charged: hierarchy.memory(&mut source, folder)?,
            cache: hierarchy.memory_cache(&mut source, folder)?,
            kernel: hierarchy.kernel_memory(&mut source, folder),
        })
    }
}

/// Where the memory of a fleet's guests is charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Charged {
    pub hierarchy: Hierarchy,
    pub folder: PathBuf,
}

/// Memory that this host's kernel could give to processes, in bytes.
pub(crate) fn available() -> Option<u64> {
    meminfo::available(&mut Source::new(Path::new("/"), &mut Vec::new()))
}
