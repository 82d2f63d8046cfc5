//! Who supervises a fleet, and how it ended.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::store::folder::FolderError;
use crate::store::journal::JournalError;
use crate::system::SystemError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// This process, which ends once none of its guests is to be up any more.
    Foreground {
        /// It ends as well when the start has gone no further for so long; never
        /// without.
        patience: Option<Duration>,
    },
    /// A process of its own, which outlives this one.
    Detached,
    /// This process, which is such a one, and stays.
    Background,
}

/// A fleet that could not be supervised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuperviseError {
    /// Prometheus cannot be answered where it was to be.
    #[error("cannot listen on {address} for --metrics: {source}; choose another address")]
    Metrics {
        address: SocketAddr,
        source: io::Error,
    },
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The spec cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The system refused what a supervisor needs.
    #[error(transparent)]
    System(#[from] SystemError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Ending {
    /// The user interrupted its supervisor.
    Interrupted,
    Over,
    Stopped,
    /// Its guests all ended, and none is to be started again.
    Empty,
    /// Its start went no further for as long as its launch was to wait.
    Stuck,
}

/// How a fleet stood when it ended, before its guests were stopped.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Tally {
    /// Guests wanted.
    pub count: usize,
    /// Guests that were ready.
    pub ready: usize,
    /// Guests whose burn counter advanced.
    pub burning: usize,
    /// Guests that were given up.
    pub failed: usize,
    /// Guests that had ended by themselves and were not to be started again.
    pub exited: usize,
    /// Guests that the user had stopped.
    pub stopped: usize,
    /// Guests that were never started, since no more fit, the first ones all
    /// failed, or the user ended the launch.
    pub planned: usize,
    /// Guests that did not answer in the end, or in time.
    pub silent: usize,
    /// Starts beyond each guest's first.
    pub restarts: u64,
    /// Seconds until the initial start was done.
    pub start_seconds: f64,
    /// Why no more guests were started, if some were held back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
}
