//! What a launch reports as it goes.

use std::path::PathBuf;

use serde::Serialize;

use crate::any_path;
use crate::control::types::Event;
use crate::fleet::supervise::{Ending, Tally};
use crate::trial::readiness::Report;
use crate::vmm::Machine;

/// What a launch tells as it goes.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum LaunchEvent {
    /// What happens before the first guest is started, and in the end.
    Launch(Milestone),
    /// A guest's state changed, or the fleet's stage.
    Fleet(Event),
}

/// A step of a launch.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Milestone {
    Check(Box<Report>),
    /// The fleet's folder is written; guests are about to start.
    Fleet {
        fleet: String,
        #[serde(serialize_with = "any_path::lossy")]
        folder: PathBuf,
        /// Its configuration of ssh(1), if its guests have a network.
        #[serde(
            serialize_with = "any_path::option::lossy",
            skip_serializing_if = "Option::is_none"
        )]
        ssh_config: Option<PathBuf>,
    },
    /// A supervisor of its own goes on with the fleet.
    Detached {
        fleet: String,
        pid: u32,
        #[serde(serialize_with = "any_path::lossy")]
        log: PathBuf,
    },
    Summary(Box<Summary>),
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// The fleet.
    pub fleet: String,
    /// How it stood before its guests were stopped.
    #[serde(flatten)]
    pub tally: Tally,
    /// What a guest ran on.
    #[serde(flatten)]
    pub machine: Machine,
    /// How guests got their share of the CPU.
    pub cpu: String,
    /// Why it ended.
    pub ending: Ending,
    /// What made the host not ready, where the launch was forced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Launched {
    Over(Box<Summary>),
    /// A supervisor of its own goes on with it.
    Detached,
}
