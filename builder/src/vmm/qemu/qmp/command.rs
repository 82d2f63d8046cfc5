//! Commands of QEMU's monitor, each with its answer (QEMU's qapi/*.json). Each
//! command is a type.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::QmpError;

/// A command; its fields are its arguments.
pub(crate) trait Command: Serialize {
    /// Its name.
    const NAME: &'static str;
    /// What comes back of it.
    type Answer: DeserializeOwned;

    /// As it is sent, in one line.
    fn line(&self) -> String {
        let request = Request {
            execute: Self::NAME,
            arguments: self,
        };
        serde_json::to_string(&request).expect("arguments have names") + "\n"
    }

    /// What QEMU answers to it.
    fn read(answer: Answer) -> Result<Self::Answer, QmpError> {
        let Answer { value, line } = answer;
        serde_json::from_value(value).map_err(|_| QmpError::garbage(&line))
    }
}

#[derive(Serialize)]
struct Request<'a, C: ?Sized> {
    execute: &'static str,
    arguments: &'a C,
}

/// An answer to a command, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(super) value: Value,
    /// The whole message, to be quoted.
    pub(super) line: Vec<u8>,
}

/// Ends the negotiation that a connection begins with; before it QEMU takes no
/// other command.
#[derive(Debug, Serialize)]
pub(crate) struct QmpCapabilities {}

impl Command for QmpCapabilities {
    const NAME: &'static str = "qmp_capabilities";
    type Answer = Value;
}

/// Asks how the machine is.
#[derive(Debug, Serialize)]
pub(crate) struct QueryStatus {}

/// What comes of [`QueryStatus`].
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    /// How it is.
    pub(crate) status: RunState,
}

/// How a machine is (QEMU's qapi/run-state.json), as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RunState {
    Running,
    /// It waits for the state that it is to be restored from.
    Inmigrate,
    /// Paused by a failed access to a disk.
    IoError,
    InternalError,
    GuestPanicked,
    Shutdown,
    /// Paused for any other reason, or in a way that later versions know.
    #[serde(other)]
    Other,
}

impl Command for QueryStatus {
    const NAME: &'static str = "query-status";
    type Answer = Status;
}

/// Has a paused machine go on.
#[derive(Debug, Serialize)]
pub(crate) struct Cont {}

impl Command for Cont {
    const NAME: &'static str = "cont";
    type Answer = Value;
}

/// Leaves RAM that is a file out of a migration (QEMU's qapi/migration.json): who
/// restores the state has the file already.
#[derive(Debug, Serialize)]
pub(crate) struct MigrateSetCapabilities {
    capabilities: [Capability; 1],
}

#[derive(Debug, Serialize)]
struct Capability {
    capability: &'static str,
    state: bool,
}

impl MigrateSetCapabilities {
    pub(crate) const IGNORE_SHARED: Self = Self {
        capabilities: [Capability {
            capability: "x-ignore-shared",
            state: true,
        }],
    };
}

impl Command for MigrateSetCapabilities {
    const NAME: &'static str = "migrate-set-capabilities";
    type Answer = Value;
}

/// Has QEMU announce no NIC of a restored machine to its network (by RARP, five times
/// within a second): the other end of its link is the host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct MigrateSetParameters {
    announce_rounds: u32,
}

impl MigrateSetParameters {
    pub(crate) const UNANNOUNCED: Self = Self { announce_rounds: 0 };
}

impl Command for MigrateSetParameters {
    const NAME: &'static str = "migrate-set-parameters";
    type Answer = Value;
}

/// Has the machine be restored from what comes by this URI; it runs once it is.
#[derive(Debug, Serialize)]
pub(crate) struct MigrateIncoming {
    pub(crate) uri: String,
}

impl Command for MigrateIncoming {
    const NAME: &'static str = "migrate-incoming";
    type Answer = Value;
}

/// Has the state of the machine, which stops for it, sent to this URI.
#[derive(Debug, Serialize)]
pub(crate) struct Migrate {
    pub(crate) uri: String,
}

impl Command for Migrate {
    const NAME: &'static str = "migrate";
    type Answer = Value;
}

/// Asks how far [`Migrate`] has come.
#[derive(Debug, Serialize)]
pub(crate) struct QueryMigrate {}

/// What comes of [`QueryMigrate`].
#[derive(Debug, Deserialize)]
pub(crate) struct Migration {
    /// How far; absent before it began.
    pub(crate) status: Option<MigrationStatus>,
    /// Why it failed.
    #[serde(rename = "error-desc")]
    pub(crate) error: Option<String>,
}

/// How far a migration has come, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MigrationStatus {
    Completed,
    Failed,
    Cancelled,
    /// It is under way.
    #[serde(other)]
    Other,
}

impl Command for QueryMigrate {
    const NAME: &'static str = "query-migrate";
    type Answer = Migration;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct MigrateSetSpeed {
        max_bandwidth: u64,
    }

    impl Command for MigrateSetSpeed {
        const NAME: &'static str = "migrate-set-speed";
        type Answer = Value;
    }

    #[test]
    fn a_command_is_a_line_with_its_arguments() {
        let command = MigrateSetSpeed { max_bandwidth: 7 };
        assert_eq!(
            command.line(),
            "{\"execute\":\"migrate-set-speed\",\"arguments\":{\"max-bandwidth\":7}}\n"
        );
        assert_eq!(Cont {}.line(), "{\"execute\":\"cont\",\"arguments\":{}}\n");
    }

    #[test]
    fn memory_that_is_a_file_is_left_out_of_a_migration() {
        assert_eq!(
            MigrateSetCapabilities::IGNORE_SHARED.line(),
            "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":\
             [{\"capability\":\"x-ignore-shared\",\"state\":true}]}}\n"
        );
    }

    #[test]
    fn a_state_that_later_versions_know_is_another() {
        for (name, state) in [
            ("running", RunState::Running),
            ("inmigrate", RunState::Inmigrate),
            ("io-error", RunState::IoError),
            ("what comes in ten years", RunState::Other),
        ] {
            let status: Status = serde_json::from_value(json!({ "status": name })).unwrap();
            assert_eq!(status.status, state, "{name}");
        }
        assert!(serde_json::from_value::<Status>(json!({ "status": 7 })).is_err());
    }
}
