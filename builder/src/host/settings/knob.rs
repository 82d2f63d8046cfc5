//! The settings that imgbuild may write: their files, ranges and order.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Most that the kernel keeps in an `int`.
const INT: i64 = i32::MAX as i64;
/// Most that the kernel keeps in an `unsigned int`.
const UNSIGNED: i64 = u32::MAX as i64;
/// Most that the kernel keeps in a `long`.
const LONG: i64 = i64::MAX;

/// A setting that imgbuild may write; no other ever is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Knob {
    PidMax,
    ThreadsMax,
    OvercommitMemory,
    FileMax,
    KvmHaltPollNs,
    KsmMaxPageSharing,
    KsmUseZeroPages,
    KsmMergeAcrossNodes,
    KsmSmartScan,
    KsmPagesToScan,
    KsmSleepMillisecs,
    KsmRun,
    KsmdNice,
}

impl Knob {
    /// Its file below the root; the nice value of ksmd is none of a file.
    pub fn file(self) -> Option<&'static str> {
        let file = match self {
            Self::PidMax => "proc/sys/kernel/pid_max",
            Self::ThreadsMax => "proc/sys/kernel/threads-max",
            Self::OvercommitMemory => "proc/sys/vm/overcommit_memory",
            Self::FileMax => "proc/sys/fs/file-max",
            Self::KvmHaltPollNs => "sys/module/kvm/parameters/halt_poll_ns",
            Self::KsmMaxPageSharing => "sys/kernel/mm/ksm/max_page_sharing",
            Self::KsmUseZeroPages => "sys/kernel/mm/ksm/use_zero_pages",
            Self::KsmMergeAcrossNodes => "sys/kernel/mm/ksm/merge_across_nodes",
            Self::KsmSmartScan => "sys/kernel/mm/ksm/smart_scan",
            Self::KsmPagesToScan => "sys/kernel/mm/ksm/pages_to_scan",
            Self::KsmSleepMillisecs => "sys/kernel/mm/ksm/sleep_millisecs",
            Self::KsmRun => "sys/kernel/mm/ksm/run",
            Self::KsmdNice => return None,
        };
        Some(file)
    }

    /// What it is, in a few words.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::PidMax => "greatest process number; every thread takes one",
            Self::ThreadsMax => "most threads of the host",
            Self::OvercommitMemory => "whether memory may be promised that is not there",
            Self::FileMax => "most open files of the host",
            Self::KvmHaltPollNs => "nanoseconds that a sleeping guest keeps its CPU",
            Self::KsmMaxPageSharing => "most mappings of one merged page",
            Self::KsmUseZeroPages => "whether empty pages become the zero page",
            Self::KsmMergeAcrossNodes => "whether pages of different NUMA nodes merge",
            Self::KsmSmartScan => "whether pages that did not merge are passed over",
            Self::KsmPagesToScan => "pages a turn of ksmd",
            Self::KsmSleepMillisecs => "milliseconds between turns of ksmd",
            Self::KsmRun => "whether ksmd merges: 0 stopped, 1 running, 2 unmerged",
            Self::KsmdNice => "how much CPU ksmd leaves to others; the least number leaves least",
        }
    }

    /// Whether it is a limit: more than what was asked for serves as well, and
    /// it is never lowered for anybody.
    pub fn is_limit(self) -> bool {
        match self {
            Self::PidMax | Self::ThreadsMax | Self::FileMax => true,
            Self::OvercommitMemory
            | Self::KvmHaltPollNs
            | Self::KsmMaxPageSharing
            | Self::KsmUseZeroPages
            | Self::KsmMergeAcrossNodes
            | Self::KsmSmartScan
            | Self::KsmPagesToScan
            | Self::KsmSleepMillisecs
            | Self::KsmRun
            | Self::KsmdNice => false,
        }
    }

    /// Whether it is a part of ksmd's rate, which fleets set as they need it: whoever
    /// holds it needs that it is set, and not one value.
    pub(crate) fn is_rate(self) -> bool {
        matches!(self, Self::KsmPagesToScan | Self::KsmSleepMillisecs)
    }

    /// The values it can have: what Linux's sysctls, mm/ksm.c and
    /// virt/kvm/kvm_main.c take.
    pub(crate) fn range(self) -> RangeInclusive<i64> {
        match self {
            // RESERVED_PIDS + 1, and PID_MAX_LIMIT.
            Self::PidMax => 301..=4_194_304,
            // 1, and FUTEX_TID_MASK.
            Self::ThreadsMax => 1..=0x3fff_ffff,
            Self::FileMax => 0..=LONG,
            Self::KsmMaxPageSharing => 2..=INT,
            Self::KvmHaltPollNs | Self::KsmPagesToScan | Self::KsmSleepMillisecs => 0..=UNSIGNED,
            Self::OvercommitMemory | Self::KsmRun => 0..=2,
            Self::KsmUseZeroPages | Self::KsmMergeAcrossNodes | Self::KsmSmartScan => 0..=1,
            // MIN_NICE and MAX_NICE.
            Self::KsmdNice => -20..=19,
        }
    }

    /// The values that may be asked for. KSM's `run=2` unmerges every process's
    /// pages, and is not a state to stay in.
    pub(crate) fn settable(self) -> RangeInclusive<i64> {
        match self {
            Self::KsmRun => 0..=1,
            _ => self.range(),
        }
    }

    /// What to write so that it is as it was at `old`: KSM that was stopped and
    /// unmerged stays stopped, and nobody's pages are unmerged a second time.
    pub(crate) fn back_to(self, old: i64) -> i64 {
        match (self, old) {
            (Self::KsmRun, 2) => 0,
            _ => old,
        }
    }

    /// Whether it is one of KSM's files.
    pub(crate) fn is_ksm(self) -> bool {
        self.file()
            .is_some_and(|file| file.starts_with("sys/kernel/mm/ksm/"))
    }

    /// Whether the kernel takes it only while no pages are merged (kernel
    /// document admin-guide/mm/ksm).
    pub(crate) fn needs_nothing_merged(self) -> bool {
        matches!(self, Self::KsmMaxPageSharing | Self::KsmMergeAcrossNodes)
    }

    /// When it is written, among others; restoring goes the other way.
    pub(crate) fn turn(self) -> u8 {
        match self {
            Self::KsmRun => 3,
            _ if self.needs_nothing_merged() => 1,
            _ if self.is_ksm() => 2,
            _ => 0,
        }
    }

    /// Its name as sysctl(8) has it, if it is one of them.
    pub(crate) fn sysctl(self) -> Option<String> {
        let path = self.file()?.strip_prefix("proc/sys/")?;
        Some(path.replace('/', "."))
    }
}

impl fmt::Display for Knob {
    /// As sysctl(8) names it, or its path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.sysctl(), self.file()) {
            (Some(name), _) => f.write_str(&name),
            (None, Some(file)) => write!(f, "/{file}"),
            (None, None) => f.write_str("the nice value of ksmd"),
        }
    }
}
