//! Why a request to a supervisor failed.

use std::io;
use std::path::PathBuf;

use crate::control::types::API_VERSION;
use crate::store::folder::Remains;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens on the fleet's control socket.
    #[error("nothing supervises the fleet {fleet}: {}", remains.next_step(fleet))]
    NotSupervised { fleet: String, remains: Remains },
    /// A process supervises the fleet, and nobody listens on its control socket.
    #[error(
        "process {pid} supervises the fleet {fleet}, but does not listen at {}: it makes a \
         missing socket again within a second, so try again; if that fails, look whether the \
         process is suspended (state T in ps)",
        control.display()
    )]
    Deaf {
        fleet: String,
        pid: String,
        control: PathBuf,
    },
    /// The control socket could not be connected to.
    #[error("cannot connect to {}: {source}; is the fleet another user's?", control.display())]
    Unreachable { control: PathBuf, source: io::Error },
    /// The supervisor is of another version of imgbuild.
    #[error(
        "the supervisor of fleet {fleet} speaks version {} of the control interface, and this \
         imgbuild version {API_VERSION}; use the imgbuild that launched it",
        listed(versions)
    )]
    Version {
        fleet: String,
        /// The versions that it speaks.
        versions: Vec<u32>,
    },
    /// The supervisor says: not now.
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Refused(String),
    #[error(
        "lost the supervisor of fleet {fleet}: {source}; `imgbuild ps --fleet {fleet}` says \
         whether it lives"
    )]
    Lost { fleet: String, source: io::Error },
    /// What came is not an answer of the interface.
    #[error("the supervisor of fleet {fleet} sent a malformed answer: {reason}")]
    Garbled {
        fleet: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The fleet ended before it answered.
    #[error("the fleet {fleet} has ended")]
    Ended { fleet: String },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

pub(super) fn listed(versions: &[u32]) -> String {
    let versions: Vec<_> = versions.iter().map(u32::to_string).collect();
    versions.join(", ")
}
