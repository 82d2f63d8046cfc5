//! Host settings that imgbuild may write, and their one owner.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A setting that imgbuild may write; no other ever is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Knob {
    /// `kernel.pid_max`
    PidMax,
    /// `kernel.threads-max`
    ThreadsMax,
    /// `vm.max_map_count`
    MaxMapCount,
    /// `vm.overcommit_memory`
    OvercommitMemory,
    /// `fs.file-max`
    FileMax,
    /// `fs.nr_open`
    NrOpen,
    /// `fs.aio-max-nr`
    AioMaxNr,
    /// `fs.inotify.max_user_instances`
    InotifyInstances,
    /// `net.ipv4.neigh.default.gc_thresh2`
    NeighbourThreshold2,
    /// `net.ipv4.neigh.default.gc_thresh3`
    NeighbourThreshold3,
    /// `net.core.netdev_max_backlog`
    NetdevBacklog,
    /// `/sys/kernel/mm/ksm/max_page_sharing`
    KsmMaxPageSharing,
    /// `/sys/kernel/mm/ksm/use_zero_pages`
    KsmUseZeroPages,
    /// `/sys/kernel/mm/ksm/merge_across_nodes`
    KsmMergeAcrossNodes,
    /// `/sys/kernel/mm/ksm/smart_scan`
    KsmSmartScan,
    /// `/sys/kernel/mm/ksm/pages_to_scan`
    KsmPagesToScan,
    /// `/sys/kernel/mm/ksm/sleep_millisecs`
    KsmSleepMillisecs,
    /// `/sys/kernel/mm/ksm/run`
    KsmRun,
}

/// A value for a knob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// What to write.
    pub knob: Knob,
    /// The value.
    pub value: u64,
}

impl Knob {
    /// Its file below the root.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::PidMax => "proc/sys/kernel/pid_max",
            Self::ThreadsMax => "proc/sys/kernel/threads-max",
            Self::MaxMapCount => "proc/sys/vm/max_map_count",
            Self::OvercommitMemory => "proc/sys/vm/overcommit_memory",
            Self::FileMax => "proc/sys/fs/file-max",
            Self::NrOpen => "proc/sys/fs/nr_open",
            Self::AioMaxNr => "proc/sys/fs/aio-max-nr",
            Self::InotifyInstances => "proc/sys/fs/inotify/max_user_instances",
            Self::NeighbourThreshold2 => "proc/sys/net/ipv4/neigh/default/gc_thresh2",
            Self::NeighbourThreshold3 => "proc/sys/net/ipv4/neigh/default/gc_thresh3",
            Self::NetdevBacklog => "proc/sys/net/core/netdev_max_backlog",
            Self::KsmMaxPageSharing => "sys/kernel/mm/ksm/max_page_sharing",
            Self::KsmUseZeroPages => "sys/kernel/mm/ksm/use_zero_pages",
            Self::KsmMergeAcrossNodes => "sys/kernel/mm/ksm/merge_across_nodes",
            Self::KsmSmartScan => "sys/kernel/mm/ksm/smart_scan",
            Self::KsmPagesToScan => "sys/kernel/mm/ksm/pages_to_scan",
            Self::KsmSleepMillisecs => "sys/kernel/mm/ksm/sleep_millisecs",
            Self::KsmRun => "sys/kernel/mm/ksm/run",
        }
    }
}

impl fmt::Display for Knob {
    /// As sysctl(8) names it, or its path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path().strip_prefix("proc/sys/") {
            Some(path) => f.write_str(&path.replace('/', ".")),
            None => write!(f, "/{}", self.path()),
        }
    }
}
