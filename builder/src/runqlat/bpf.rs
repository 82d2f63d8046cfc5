//! The program in the kernel: loaded, attached, asked. It goes with this process,
//! however that ends.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Btf, BtfError, Ebpf, EbpfError, EbpfLoader};

use super::kernel::{self, CAUSES, CLASSES, Counted, FIRST, First, NAMED, NO_SLOT, Process};
use super::types::{Cause, Class};
use super::waits::Waits;
use crate::sample::processes;

include!(concat!(env!("OUT_DIR"), "/bpf.rs"));

/// The programs, and the tracepoints that they are for.
const PROBES: [(&str, &str); 3] = [
    ("on_wakeup", "sched_wakeup"),
    ("on_first_wakeup", "sched_wakeup_new"),
    ("on_switch", "sched_switch"),
];
/// Most threads and processes that are known at a time: in these tables, 8 MiB.
const THREADS: u32 = 65_536;
const PROCESSES: u32 = 32_768;
/// Threads of a guest's process, and of one that starts.
const A_GUEST: u32 = 3;

#[derive(Debug, thiserror::Error)]
pub(super) enum BpfError {
    #[error("this imgbuild was built without it: {NO_PROGRAM}")]
    NotBuilt,
    #[error(
        "this is a PID namespace of its own, in which processes have other numbers than the \
         kernel has for them: run imgbuild outside of the container, or have that share the \
         host's (docker run --pid=host)"
    )]
    Namespace,
    #[error("the kernel does not describe its types (/sys/kernel/btf/vmlinux): {0}")]
    Types(#[from] BtfError),
    #[error("{}", said(.0))]
    Load(#[from] EbpfError),
    #[error("{}", said(.0))]
    Attach(#[from] ProgramError),
    #[error("{}", said(.0))]
    Map(#[from] MapError),
    /// The program in this imgbuild lacks a part, which the build is to blame for.
    #[error("its program has no {0}")]
    Lacks(&'static str),
}

/// What failed, down to its first cause, in one line.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    let line = text
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches([':', ' ']);
    let hint = if text.contains("Operation not permitted") || text.contains("Permission denied") {
        " (it takes root, or CAP_BPF and CAP_PERFMON)"
    } else {
        ""
    };
    format!("{line}{hint}")
}

/// What the program is to do.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the program"
)]
pub(super) struct Choice {
    /// Whether the waits of all groups are counted, or only of the first named one.
    pub all: bool,
    /// In nanoseconds.
    pub threshold: u64,
    pub causes: bool,
    pub guests: bool,
    /// Whether the first wait above the threshold is kept.
    pub first: bool,
    /// Guests that there are, or may be.
    pub expected: u32,
}

/// The program, attached.
pub(super) struct Program {
    waits: PerCpuArray<MapData, Counted>,
    guests: Array<MapData, Counted>,
    first: Array<MapData, First>,
    state: Array<MapData, u64>,
    groups: Range<u32>,
    /// Last, so that all of it goes when this does.
    loaded: Ebpf,
}

/// The kernel's table of processes.
pub(super) struct Table {
    processes: HashMap<MapData, u32, Process>,
    generation: Array<MapData, u32>,
    now: u32,
    known: BTreeMap<u32, Process>,
}

impl Table {
    /// Has the table hold these.
    pub(super) fn put(&mut self, wanted: &BTreeMap<u32, Process>) -> Result<(), MapError> {
        let gone = self.known.keys().filter(|pid| !wanted.contains_key(pid));
        let gone: Vec<u32> = gone.copied().collect();
        for pid in gone {
            self.processes.remove(&pid)?;
            self.known.remove(&pid);
        }
        for (pid, process) in wanted {
            if self.known.get(pid) != Some(process) {
                self.processes.insert(pid, process, 0)?;
                self.known.insert(*pid, *process);
            }
        }
        self.now = self.now.wrapping_add(1);
        self.generation.set(0, self.now, 0)
    }
}

/// Loads the program: what it counts begins with [`attach`](Program::attach).
pub(super) fn load(choice: Choice) -> Result<(Program, Table), BpfError> {
    let program = PROGRAM.ok_or(BpfError::NotBuilt)?;
    if !processes::are_all_seen(Path::new("/")) {
        return Err(BpfError::Namespace);
    }
    let types = Btf::from_sys_fs()?;
    let groups = if choice.all {
        0..FIRST + NAMED
    } else {
        FIRST..FIRST + 1
    };
    let each = u32::try_from(CLASSES.len() * CAUSES.len()).unwrap_or(u32::MAX);
    let entries = (groups.end - groups.start) * each;
    let threads = (threads_of_host() + choice.expected.saturating_mul(A_GUEST))
        .saturating_mul(2)
        .next_power_of_two()
        .min(THREADS);
    let processes = choice.expected.saturating_mul(2).clamp(1024, PROCESSES);
    let guests = if choice.guests { processes } else { 1 };
    let flags = [choice.causes, choice.guests, choice.first].map(u8::from);
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(&types))
        .override_global("from_group", &groups.start, true)
        .override_global("to_group", &groups.end, true)
        .override_global("threshold", &choice.threshold, true)
        .override_global("with_causes", &flags[0], true)
        .override_global("with_guests", &flags[1], true)
        .override_global("with_first", &flags[2], true)
        .map_max_entries("threads", threads)
        .map_max_entries("processes", processes)
        .map_max_entries("guests", guests)
        .map_max_entries("waits", entries);
    let mut kept = loader.load(program)?;
    let lacks = BpfError::Lacks;
    let mut map = |name| kept.take_map(name).ok_or(lacks(name));
    let table = Table {
        processes: map("processes")?.try_into()?,
        generation: map("generation")?.try_into()?,
        now: 0,
        known: BTreeMap::new(),
    };
    let (waits, guests) = (map("waits")?.try_into()?, map("guests")?.try_into()?);
    let (first, state) = (map("first")?.try_into()?, map("state")?.try_into()?);
    for (name, tracepoint) in PROBES {
        let program = kept.program_mut(name).ok_or(lacks(name))?;
        let program: &mut BtfTracePoint = program.try_into()?;
        program.load(tracepoint, &types)?;
    }
    let program = Program {
        waits,
        guests,
        first,
        state,
        groups,
        loaded: kept,
    };
    Ok((program, table))
}

/// Threads that the host has now (`/proc/loadavg`, proc_loadavg(5)).
fn threads_of_host() -> u32 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let all = text.split(' ').nth(3).and_then(|both| both.split_once('/'));
    all.and_then(|(_, all)| all.parse().ok()).unwrap_or(1024)
}

impl Program {
    pub(super) fn attach(&mut self) -> Result<(), BpfError> {
        for (name, _) in PROBES {
            let program = self.loaded.program_mut(name).ok_or(BpfError::Lacks(name))?;
            let program: &mut BtfTracePoint = program.try_into()?;
            program.attach()?;
        }
        Ok(())
    }

    /// What was counted until now, by group.
    pub(super) fn waits(&self) -> Result<BTreeMap<(u32, Class, Cause), Waits>, BpfError> {
        let mut sums: BTreeMap<(u32, Class, Cause), Waits> = BTreeMap::new();
        let mut key = 0;
        for group in self.groups.clone() {
            for class in CLASSES {
                for cause in CAUSES {
                    let sum = sums.entry((group, class, cause)).or_default();
                    for counted in self.waits.get(&key, 0)?.iter() {
                        sum.add(&kernel::waits(counted));
                    }
                    key += 1;
                }
            }
        }
        Ok(sums)
    }

    /// The same of each of the first guests by their slots.
    pub(super) fn guests(&self, slots: usize) -> Result<Vec<Waits>, BpfError> {
        let slots = u32::try_from(slots)
            .unwrap_or(NO_SLOT)
            .min(self.guests.len());
        let waits = |slot| Ok(kernel::waits(&self.guests.get(&slot, 0)?));
        (0..slots).map(waits).collect()
    }

    pub(super) fn first(&self) -> Result<Option<kernel::Long>, BpfError> {
        Ok(kernel::first(&self.first.get(&0, 0)?))
    }

    pub(super) fn lost(&self) -> Result<u64, BpfError> {
        Ok(self.state.get(&0, 0)?)
    }
}
