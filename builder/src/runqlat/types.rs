//! The document of `imgbuild runqlat --json`.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::units::GuestIndex;

/// Version of the document: another one where readers of this one would err.
pub(crate) const RUNQLAT_VERSION: u32 = 1;

/// How long threads waited for a CPU during some time. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measured {
    /// Version of the document.
    pub runqlat_version: u32,
    /// How it was measured.
    pub source: Source,
    /// Why not by BPF; null where it was.
    pub instead: Option<String>,
    /// Whose threads, in words.
    pub of: String,
    /// When the time began, since the measurement did.
    pub at: f64,
    /// How long it was.
    pub seconds: f64,
    /// Waits longer than this are counted as `above`.
    pub threshold: f64,
    /// Waits that were not counted, for want of room in the kernel's maps.
    pub lost: u64,
    /// By class and cause, or as `--by` says; without those that had no wait.
    pub rows: Vec<Row>,
    /// The wait that ended it, with `--stop-above`.
    pub stopped: Option<Stopped>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// Each wait, by BPF in the kernel's scheduler.
    Bpf,
    /// The kernel's counters of each thread (/proc/PID/task/TID/schedstat): a thread's
    /// waits all count as their mean.
    Schedstat,
}

/// What a thread does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    /// Runs a guest.
    Vcpu,
    /// Is the VMM's main loop.
    Vmm,
    /// Does a VMM's input and output, and the rest of its work.
    Io,
    /// Is of no VMM.
    Other,
}

/// Who had the CPU longest while a thread waited for it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// A guest of the same fleet, or a process of the same choice.
    Same,
    /// Another guest.
    OtherGuest,
    /// Something else of the host.
    Host,
    /// Its control group had used up its share of CPU time.
    Quota,
    /// Nobody: the CPU was woken for it.
    Nobody,
}

/// Waits of some threads for some cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// The fleet of the threads, with `--all`; null for all, or threads of none.
    pub fleet: Option<String>,
    /// The threads; null for all.
    pub class: Option<Class>,
    /// The cause; null for all, or where it is not known.
    pub cause: Option<Cause>,
    /// The guest; null for all.
    pub guest: Option<GuestIndex>,
    /// The process that was chosen by its number; null for all.
    pub pid: Option<u32>,
    /// Waits.
    pub count: u64,
    /// Time that was waited in all.
    pub total: f64,
    /// Half of the waits were no longer, by their buckets; true to a factor of 2, as
    /// are the other percentiles.
    pub p50: f64,
    /// 90 % of the waits were no longer.
    pub p90: f64,
    /// 99 % of the waits were no longer.
    pub p99: f64,
    /// 99.9 % of the waits were no longer.
    pub p999: f64,
    /// The longest wait; of an interval, by its bucket.
    pub longest: f64,
    /// Waits longer than the threshold; null where it is not known.
    pub above: Option<u64>,
    /// Waits of 2^N to 2^(N+1) microseconds, N from 0; the first has shorter ones too,
    /// and the last longer ones.
    pub buckets: Vec<u64>,
}

/// A wait longer than `--stop-above`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stopped {
    /// How long it was.
    pub wait: f64,
    /// The CPU that the thread got.
    pub cpu: u32,
    /// Who waited.
    pub waited: Thread,
    /// Who had the CPU longest meanwhile.
    pub cause: Cause,
    /// The thread that had it last.
    pub behind: Thread,
}

/// A thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Thread {
    /// Its number.
    pub id: u32,
    /// Its process.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// The guest that it is of.
    pub guest: Option<GuestIndex>,
}

/// The JSON Schema (draft 2020-12) of [`Measured`].
pub(crate) fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<Measured>().to_value()
}
