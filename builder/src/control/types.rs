//! The documents of the control interface, version 1.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::guest::{Desired, Phase};
use crate::units::{Duty, GuestIndex};

/// The version of the interface: the first part of every path.
pub const API_VERSION: u32 = 1;

/// `GET /v1/fleet`: the fleet and its guests; `imgbuild ps --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fleet {
    /// See [`API_VERSION`].
    pub api: u32,
    /// Its name.
    pub fleet: String,
    /// The host that it is on.
    #[serde(default)]
    pub host: String,
    /// Where it stands.
    pub stage: Stage,
    /// The process that supervises it; null where none does.
    pub supervisor: Option<Supervisor>,
    /// Guests wanted.
    pub wanted: u32,
    /// Guests in each state; states without any are left out.
    pub counts: BTreeMap<Phase, u32>,
    /// Why no more guests are started for now, if some are held back.
    pub held_back: Option<String>,
    /// What made the host not ready, where the launch was forced: ids of
    /// findings of `imgbuild check --json`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<String>,
    /// What happened to guests in all.
    #[serde(default)]
    pub totals: Totals,
    /// What its guests burn in sum, as each last reported.
    #[serde(default)]
    pub burn: BurnTotals,
    /// The guests, in order.
    pub guests: Vec<Guest>,
}

/// What happened to guests in all: to those too that went, under this
/// supervisor, with a smaller number of guests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// How often one was started again.
    pub restarts: u64,
    /// How often one was late with an answer.
    pub unresponsive: u64,
    /// How often a start of one was begun since the supervisor began.
    #[serde(default)]
    pub starts: u64,
    /// Rounds of work that they reported since the supervisor began.
    #[serde(default)]
    pub rounds: u64,
}

/// What the guests of a fleet burn in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BurnTotals {
    /// Guests whose duty is above 0.
    pub guests: u32,
    /// Rounds of work, each guest's since its last start.
    pub rounds: u64,
}

/// Where a fleet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Some guests have not been started yet, and are going to be.
    Starting,
    /// Every guest wanted was started.
    Up,
    /// No more guests fit: the rest are held back.
    Settled,
    /// It ends.
    Stopping,
    /// Its supervisor died; some guests live.
    Orphaned,
    /// Its supervisor died, and no guest lives: the host was restarted, or all
    /// were killed.
    Lost,
    /// It is another host's, and only that host knows more.
    Elsewhere,
}

/// The process that supervises a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Supervisor {
    /// Process id.
    pub pid: u32,
}

/// A guest, as `ps` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Guest {
    /// Its id, such as `g00007`.
    pub id: GuestIndex,
    /// Its state.
    pub state: Phase,
    /// Whether it is to be up; `down` once it was stopped.
    pub desired: Desired,
    /// Process id of its VMM.
    pub pid: Option<u32>,
    /// Seconds in this state.
    pub for_seconds: f64,
    /// Seconds from its last start to ready.
    pub ready_after: Option<f64>,
    /// How often it was started again.
    pub restarts: u32,
    /// How often it was late with an answer.
    pub unresponsive: u32,
    /// Why it is not ready, or why it was started again last.
    pub reason: Option<String>,
    /// `ADDRESS:PORT` of its SSH server.
    pub ssh: Option<String>,
    /// Its burn, as it last reported: at once when its duty is set, and whenever it
    /// gives a sign of life. The command `heartbeat` of `POST /v1/ask` has it report.
    pub burn: Option<Burn>,
}

/// A guest's burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Burn {
    /// Share of the time, in percent.
    pub duty: Duty,
    /// Threads.
    pub threads: u16,
    /// Rounds of work since its last start.
    pub rounds: u64,
    /// When it said so, in milliseconds of its own clock since its last start.
    #[serde(default)]
    pub ms: u64,
}

/// `GET /v1/memory`: what the fleet costs its host in memory now, in bytes;
/// `imgbuild ps --memory --json`. `docs/density.md` defines each figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// See [`API_VERSION`].
    pub api: u32,
    /// The fleet's name.
    pub fleet: String,
    /// The sum of the parts.
    pub bytes: u64,
    /// Guests that have a process.
    pub count: u32,
    /// The sum divided by that number; null without any.
    pub bytes_a_guest: Option<u64>,
    /// What it consists of.
    pub parts: MemoryParts,
    /// Page tables of all guests' processes, as far as `VmPTE` counts them.
    pub page_tables: u64,
    /// Kernel stacks of all guests' threads.
    pub kernel_stacks: u64,
    /// The supervisor's process, which is a part of `shared_by_all`.
    pub supervisor: u64,
    /// The files in memory that guests are handed: the template, and copies of
    /// artifacts; a part of `shared_by_all`.
    #[serde(default)]
    pub handed: u64,
    /// What the fleet's control group counts; null where it has none with a memory
    /// controller.
    pub cgroup: Option<CgroupMemory>,
    /// `MemAvailable` of the host.
    pub host_available: Option<u64>,
    /// How far KSM has come; null where that is not known, as without a supervisor.
    #[serde(default)]
    pub ksm: Option<KsmState>,
    /// The guests that have a process, in order; `imgbuild ps --memory GUESTS` leaves
    /// out the others.
    pub guests: Vec<GuestMemory>,
}

/// How far KSM has come with the memory of a fleet and of others on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KsmState {
    /// It does not run.
    Stopped,
    /// It may merge more, so that the fleet is going to take less.
    Merging,
    /// Its last three passes over all memory found nothing more to merge.
    Settled,
}

/// What a fleet's memory consists of, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryParts {
    /// Pages that a guest has for itself, swapped ones included.
    pub cannot_merge: u64,
    /// The fleet's part of merged pages and of files, and the supervisor.
    pub shared_by_all: u64,
    /// Page tables, kernel stacks and kernel objects.
    pub kernel: u64,
    /// What KSM keeps about guests' pages.
    pub ksm: u64,
}

/// The memory of a control group, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CgroupMemory {
    /// All that is charged to it.
    pub charged: u64,
    /// What of that is page cache.
    pub page_cache: u64,
    /// What of that is the kernel's; null where it is not counted (cgroup v2 before
    /// Linux 5.18).
    pub kernel: Option<u64>,
}

/// The memory of a guest's process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuestMemory {
    /// The guest.
    pub id: GuestIndex,
    /// Process id of its VMM.
    pub pid: u32,
    /// Pages of no file, merged ones included.
    pub anonymous: u64,
    /// What of that KSM has merged with other pages.
    pub merged: u64,
    /// What KSM has replaced by the kernel's zero page.
    pub zero: u64,
    /// What is swapped out.
    pub swap: u64,
}

/// Which guests a request is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Selection {
    /// Every guest of the fleet.
    All,
    /// Those of these ids.
    These(Vec<GuestIndex>),
}

/// `POST /v1/stop`, `/v1/kill`, `/v1/restart`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActRequest {
    /// The guests.
    pub guests: Selection,
    /// Seconds until a guest that does not power off is ended by force; 10
    /// without.
    #[serde(default)]
    pub grace_seconds: Option<f64>,
}

/// The answer to an [`ActRequest`], once it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActAnswer {
    /// Guests for which the request was done.
    pub done: Vec<GuestIndex>,
    /// Guests for which it was refused, and why.
    pub refused: Vec<Refusal>,
}

/// A guest for which a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The guest.
    pub id: GuestIndex,
    /// Why.
    pub reason: String,
}

/// `POST /v1/scale`; the answer is an [`ActAnswer`] of the guests that came or
/// went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// Guests wanted.
    pub count: u32,
}

/// `POST /v1/ask`: a console command for guests. The answer is a stream of
/// [`Answer`]s, one a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskRequest {
    /// The guests.
    pub guests: Selection,
    /// The command, such as `status --json`.
    pub command: String,
    /// Seconds within which an answer counts; by the number of guests without.
    #[serde(default)]
    pub within_seconds: Option<f64>,
}

/// The answer to `POST /v1/guests/ID/console`, of which each line is typed on the
/// guest's console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Typed {
    /// Lines that were taken, from the first on.
    pub taken: u32,
    /// The rest: more than may wait for the guest to read. To be sent again.
    pub refused: u32,
}

/// `POST /v1/attend`: the guests are `urgent` for as long as the answer, which
/// says nothing, is left open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttendRequest {
    /// The guests.
    pub guests: Selection,
}

/// What a guest answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The guest.
    pub id: GuestIndex,
    /// Exit code of the command; null where none came.
    pub code: Option<u8>,
    /// What it printed, or why there is no answer.
    pub output: String,
    /// Seconds until the answer.
    pub seconds: f64,
}

/// `GET /v1/events`: how the fleet stands, and then one line for each change of a guest,
/// as it happens; also what `launch --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The whole fleet: first, and again whenever it is of another number of guests.
    Snapshot(Box<Fleet>),
    /// A guest's state changed.
    Guest(Guest),
    /// The fleet's stage changed.
    Stage {
        /// The new stage.
        stage: Stage,
        /// Why no more guests are started, if some are held back.
        held_back: Option<String>,
    },
    /// Events were lost, since the reader was too slow.
    Lost {
        /// How many.
        events: u64,
    },
}

/// Every answer with a status of 400 or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Error {
    /// What failed, on what, why, and what next.
    pub error: String,
    /// The versions of the interface that are spoken, where another was asked
    /// for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Vec<u32>>,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    /// Holds a document to the text that version 1 has for it, both ways.
    fn is_written<T>(document: &T, text: &str)
    where
        T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        assert_eq!(serde_json::to_string(document).unwrap(), text);
        assert_eq!(serde_json::from_str::<T>(text).unwrap(), *document);
    }

    #[test]
    fn documents_are_written_as_version_1_has_them() {
        let seven = GuestIndex::new(7).unwrap();
        let guest = Guest {
            id: seven,
            state: Phase::Ready,
            desired: Desired::Up,
            pid: Some(77),
            for_seconds: 1.5,
            ready_after: None,
            restarts: 3,
            unresponsive: 2,
            reason: None,
            ssh: Some("127.0.0.1:2222".to_owned()),
            burn: Some(Burn {
                duty: Duty::WHOLE,
                threads: 1,
                rounds: 9,
                ms: 7,
            }),
        };
        is_written(
            &Event::Guest(guest),
            concat!(
                r#"{"event":"guest","id":"g00007","state":"ready","desired":"up","pid":77,"#,
                r#""for_seconds":1.5,"ready_after":null,"restarts":3,"unresponsive":2,"#,
                r#""reason":null,"ssh":"127.0.0.1:2222","#,
                r#""burn":{"duty":100,"threads":1,"rounds":9,"ms":7}}"#
            ),
        );
        is_written(
            &ActRequest {
                guests: Selection::These(vec![seven]),
                grace_seconds: None,
            },
            r#"{"guests":{"these":["g00007"]},"grace_seconds":null}"#,
        );
        is_written(
            &AttendRequest {
                guests: Selection::All,
            },
            r#"{"guests":"all"}"#,
        );
        let refusal = Refusal {
            id: seven,
            reason: "no".to_owned(),
        };
        is_written(
            &ActAnswer {
                done: vec![seven],
                refused: vec![refusal],
            },
            r#"{"done":["g00007"],"refused":[{"id":"g00007","reason":"no"}]}"#,
        );
        is_written(
            &Answer {
                id: seven,
                code: Some(0),
                output: "up".to_owned(),
                seconds: 0.25,
            },
            r#"{"id":"g00007","code":0,"output":"up","seconds":0.25}"#,
        );
    }

    #[test]
    fn what_names_no_guest_and_no_share_of_the_time_is_refused() {
        let selection = serde_json::from_str::<Selection>(r#"{"these":["7"]}"#);
        let error = selection.unwrap_err().to_string();
        assert!(error.contains("five digits"), "{error}");
        let burn = serde_json::from_str::<Burn>(r#"{"duty":101,"threads":1,"rounds":0}"#);
        assert!(burn.unwrap_err().to_string().contains("0 to 100"));
    }
}
