//! `run.json`, version 1: one run of the experiment, with every sample.
//!
//! Times are seconds since the run began, memory is in bytes. No value names a user
//! or a folder of the host: files are named by their last part and their digest.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::control::types::{KsmState, MemoryParts};
use crate::digest::Sha256;
use crate::units::GuestIndex;

/// The version of the document that this program writes and reads.
pub const RUN_VERSION: u32 = 1;

/// A run of the experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// See [`RUN_VERSION`].
    pub run_version: u32,
    /// The imgbuild that wrote it.
    pub imgbuild: String,
    /// Name of the fleet. Runs of one name, recipe and conditions whose guests have
    /// different numbers are shards of one fleet.
    pub fleet: String,
    /// What was asked for.
    pub plan: Plan,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// How long it took, in seconds.
    pub lasted: f64,
    /// How it ended.
    pub outcome: Outcome,
    /// The figures that are quoted first; `imgbuild verify` computes them again.
    pub headline: Headline,
    /// What it ran on and with.
    pub conditions: Conditions,
    /// The stages that were reached, in order.
    pub stages: Vec<Stage>,
    /// The reference experiment's way, measured in the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// The time for which the full fleet was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The kill of a part of the fleet and of its supervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storm: Option<Storm>,
    /// The host and the fleet over time.
    pub series: Vec<Moment>,
    /// What happened, in order.
    pub events: Vec<Happening>,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The command, in words; folders are left out.
    pub command: Vec<String>,
    /// How far the fleet was to grow.
    pub goal: Goal,
    /// The numbers of guests at which it was to be measured, in order.
    pub stages: Vec<u32>,
    /// Number of the first guest.
    pub first: GuestIndex,
    /// Chooses guests where not all are asked, and those that a storm kills.
    pub seed: u64,
    /// How many guests are asked at most at a stage; all without.
    pub sample: Option<u32>,
    /// For how long the last stage was to be kept, in seconds.
    pub hold: Option<f64>,
    /// The share of the guests that was to be killed, in percent.
    pub storm: Option<u8>,
    /// How long KSM may take to settle at a stage, in seconds.
    pub settle: f64,
    /// Memory of the host that was to stay free.
    pub keep_free: u64,
}

/// How far a fleet was to grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// To a number of guests.
    Count,
    /// Until no more fit.
    Fill,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "as", content = "why")]
pub enum Outcome {
    /// It has not: this was written meanwhile.
    Running,
    /// It did all that was asked for.
    Complete,
    /// No more guests fitted: which limit was met, with its value.
    Full(String),
    /// The user interrupted it.
    Interrupted,
    /// It failed.
    Failed(String),
}

/// The figures that are quoted first, at the last stage unless another is named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Headline {
    /// Guests of the fleet.
    pub guests: u32,
    /// Guests that were ready.
    pub ready: u32,
    /// Guests that were asked for their status.
    pub asked: u32,
    /// Those that answered within the deadline.
    pub answered: u32,
    /// The latest of those answers, in seconds.
    pub answered_within: Option<f64>,
    /// Guests that were logged in to by SSH.
    pub tried: u32,
    /// Those in which a command was done.
    pub reached: u32,
    /// Host memory a guest.
    pub bytes_a_guest: Option<u64>,
    /// Guests in a GiB of it.
    pub guests_a_gib: Option<f64>,
    /// Most host memory a guest of the whole fleet at any time, divided by that at
    /// the end.
    pub peak: Option<f64>,
    /// Seconds in which the fleet grew, without the measurements in between.
    pub growing: f64,
    /// Jain's index of fairness of the burn: 1 where all guests got the same.
    pub fairness: Option<f64>,
    /// Least burn of a guest, divided by the median.
    pub least_burn: Option<f64>,
    /// Least CPU of a guest's vCPUs, in CPU seconds a second.
    pub least_cpu: Option<f64>,
    /// The baseline's memory a guest, divided by the fleet's at as many guests.
    pub baseline_ratio: Option<f64>,
}

/// What a run ran on and with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Facts that were the same all the time, by name: see `docs/density.md`.
    pub host: BTreeMap<String, String>,
    /// The same of the VMM and of how guests run on it.
    pub guest: BTreeMap<String, String>,
    /// A guest's command line, without the folders.
    pub argv: Vec<String>,
    /// Digests of the artifacts, by the file's name.
    pub artifacts: BTreeMap<String, Sha256>,
    /// Host settings.
    pub settings: Vec<Setting>,
    /// What `imgbuild check` found that was not as it should be: ids of findings.
    pub findings: Vec<String>,
    /// Host memory, `MemTotal`.
    pub memory: u64,
    /// CPUs that guests could run on.
    pub cpus: u32,
    /// RAM of a guest.
    pub guest_memory: u64,
    /// Size of a guest's disk.
    pub guest_disk: u64,
    /// CPU seconds a second that others used before the first guest.
    pub load: f64,
    /// `MemAvailable` before the first guest.
    pub available: u64,
}

/// A host setting before, during and after a run; null where it could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Its name, such as `ksm.pages_to_scan`.
    pub name: String,
    /// Before the first guest.
    pub before: Option<String>,
    /// At the last stage.
    pub during: Option<String>,
    /// After the last guest.
    pub after: Option<String>,
}

/// A number of guests, and what was measured there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Guests wanted.
    pub guests: u32,
    /// Guests that were ready when all was measured.
    pub ready: u32,
    /// When the fleet began to grow to it.
    pub began: f64,
    /// When its guests were ready, or held back.
    pub grown: f64,
    /// When KSM had settled, or its time was over.
    pub settled: f64,
    /// When all was measured.
    pub ended: f64,
    /// How far KSM had come when memory was measured.
    pub ksm_state: Option<KsmState>,
    /// Memory, after guests were asked for their status and before they were logged in to.
    pub memory: MemoryFigures,
    /// KSM's counters at that time, by file name.
    pub ksm: BTreeMap<String, u64>,
    /// How the guests that this stage added came up.
    pub starts: Vec<GuestStart>,
    /// Answers to `status`.
    pub answers: Vec<GuestReply>,
    /// Seconds that an answer could take.
    pub deadline: Option<f64>,
    /// Commands done over SSH.
    pub logins: Vec<GuestReply>,
    /// Each guest's burn and CPU over the same time.
    pub burns: Vec<GuestBurn>,
    /// CPU seconds a second over that time, by class.
    pub cpu: BTreeMap<CpuClass, f64>,
    /// Context switches of guests' processes a second over that time.
    pub wakeups: Option<f64>,
    /// Pressure (PSI) over that time, in percent: `cpu.some`, `memory.full`, …
    pub pressure: BTreeMap<String, f64>,
    /// What is configured, divided by what the host has.
    pub over_commit: OverCommit,
    /// What `imgbuild check` predicted that a guest costs, in bytes.
    pub predicted: Option<u64>,
    /// How long guests that could run waited for a CPU.
    pub run_queue: Vec<RunQueue>,
}

/// A fleet's memory at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryFigures {
    /// All that the fleet costs.
    pub bytes: u64,
    /// Guests with a process.
    pub count: u32,
    /// What it consists of.
    pub parts: MemoryParts,
    /// `MemAvailable`.
    pub available: Option<u64>,
    /// What the fleet's control group is charged.
    pub charged: Option<u64>,
}

/// How a guest came up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestStart {
    /// The guest.
    pub guest: GuestIndex,
    /// When its process was started.
    pub process: f64,
    /// Seconds from there to its kernel's first word, or a clone's first.
    pub spoke: Option<f64>,
    /// Seconds from there to ready.
    pub ready: Option<f64>,
}

/// A reply that was waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestReply {
    /// The guest.
    pub guest: GuestIndex,
    /// Seconds until it came, or was waited for no more.
    pub seconds: f64,
    /// Why it does not count; null where it does.
    pub failed: Option<String>,
}

/// What a guest got done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestBurn {
    /// The guest.
    pub guest: GuestIndex,
    /// Rounds of work a second; null where it does not burn, or did not say.
    pub rounds: Option<f64>,
    /// CPU seconds a second of its process.
    pub cpu: Option<f64>,
}

/// Who used a CPU.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum CpuClass {
    /// The guests' processes.
    Guests,
    /// The supervisor.
    Supervisor,
    /// ksmd.
    Ksm,
    /// All others.
    Others,
    /// Nobody.
    Idle,
}

/// What is configured, divided by what the host has.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OverCommit {
    /// vCPUs ÷ CPUs.
    pub cpu: f64,
    /// Guests' RAM ÷ host memory.
    pub memory: f64,
    /// Guests' disks ÷ what they take on the host's.
    pub disk: Option<f64>,
}

/// A histogram of how long threads that could run waited for a CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunQueue {
    /// How it was measured: `bpf` or `schedstat`.
    pub source: String,
    /// Whose threads: `vcpu`, `vmm`, `io`, `other`, or `all`.
    pub class: String,
    /// Who had the CPU longest meanwhile: `same` (the fleet), `other_guest`, `host`,
    /// `quota` or `nobody` (the CPU was woken); null where all causes are in one.
    pub cause: Option<String>,
    /// Waits of 2^N to 2^(N+1) microseconds, N from 0; the first has shorter ones
    /// too.
    pub buckets: Vec<u64>,
}

/// The reference experiment's way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Guests.
    pub guests: u32,
    /// Those that were ready.
    pub ready: u32,
    /// Seconds until they were.
    pub growing: f64,
    /// What a guest is made of, by name.
    pub made_of: BTreeMap<String, String>,
    /// A guest's command line, without the folders.
    pub argv: Vec<String>,
    /// Memory, once KSM had settled or its time was over.
    pub memory: MemoryFigures,
    /// How far KSM had come by then.
    pub ksm_state: Option<KsmState>,
    /// Most host memory at any time.
    pub peak: u64,
    /// Commands done over SSH.
    pub logins: Vec<GuestReply>,
}

/// The time for which the full fleet was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// When it began.
    pub began: f64,
    /// When it ended.
    pub ended: f64,
    /// Memory at its begin and at its end.
    pub memory: [MemoryFigures; 2],
    /// Answers to `status` at its end.
    pub answers: Vec<GuestReply>,
    /// Guests that somebody stopped meanwhile, and that were started again.
    pub replaced: u32,
    /// Restarts meanwhile of guests that ended or were late.
    pub restarts: u64,
}

/// The kill of a part of the fleet and of its supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// When the kill was done.
    pub began: f64,
    /// When all were back, or were waited for no more.
    pub ended: f64,
    /// Guests of the fleet.
    pub guests: u32,
    /// The guests that were killed.
    pub killed: Vec<GuestIndex>,
    /// Seconds until a supervisor was there again.
    pub resumed: Option<f64>,
    /// Seconds until each of the killed was ready again.
    pub back: Vec<GuestReply>,
    /// Guests that were not killed and whose process ended anyway.
    pub lost: Vec<GuestIndex>,
}

/// The host and the fleet at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// When.
    pub at: f64,
    /// Guests that are ready.
    pub ready: u32,
    /// Guests that have a process.
    pub alive: u32,
    /// `MemAvailable`.
    pub available: Option<u64>,
    /// Memory that KSM could still merge: pages that it watches and has not merged.
    pub unmerged: Option<u64>,
    /// Memory that KSM has saved.
    pub saved: Option<u64>,
    /// ksmd's CPU seconds so far.
    pub ksmd: Option<f64>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Happening {
    /// When, in milliseconds since the run began.
    pub at_ms: u64,
    /// What, in a sentence.
    pub what: String,
}
