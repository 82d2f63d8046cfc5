//! Who needs a setting, and whether that process is still alive.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SettingsError;
use crate::sample::processes::{is_gone, stat};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Holder {
    /// The person who ran `imgbuild check --fix`; holds until
    /// `imgbuild check --restore`.
    User,
    /// A fleet; holds for as long as its process lives.
    Fleet {
        name: String,
        /// The process that supervises it.
        pid: u32,
        /// When that started, in clock ticks since boot: a process of that
        /// number with another start is another one.
        start: u64,
    },
}

impl Holder {
    /// The fleet `name`, supervised by this process.
    pub(crate) fn this_process(name: &str) -> Result<Self, SettingsError> {
        let stat = stat(Path::new("/proc/self")).map_err(SettingsError::Process)?;
        Ok(Self::Fleet {
            name: name.to_owned(),
            pid: std::process::id(),
            start: stat.start_time,
        })
    }

    /// The name of the fleet that it is.
    pub(crate) fn fleet(&self) -> Option<&str> {
        match self {
            Self::User => None,
            Self::Fleet { name, .. } => Some(name),
        }
    }

    /// Whether it is still there. One of whom that is not known is, since its
    /// settings must not be taken from it.
    pub(crate) fn lives(&self, root: &Path) -> bool {
        let Self::Fleet { pid, start, .. } = self else {
            return true;
        };
        match stat(&root.join(format!("proc/{pid}"))) {
            Ok(stat) => stat.start_time == *start && stat.runs(),
            Err(error) => !is_gone(&error),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("imgbuild check --fix"),
            Self::Fleet { name, pid, .. } => write!(f, "the fleet {name} (process {pid})"),
        }
    }
}
