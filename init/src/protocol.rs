//! The console protocol: one JSON object a line from the guest, one command a
//! line to it (see [`crate::command`]).
//!
//! A line that is not JSON is kernel or shell text, and is kept as log.

use serde::Serialize;

/// Longest line a guest writes, in bytes, its line feed included.
///
/// The host keeps no more than this of a line that does not end.
pub const LINE_MAX: usize = 1024;

/// One message from a guest.
///
/// `S` is the string type: `&str` in the guest, `String` on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Message<S> {
    /// The kernel is up and the console open; nothing else is started.
    Parked {
        /// Who says so, and when.
        #[serde(flatten)]
        stamp: Stamp<S>,
    },
    /// The guest took its identity (or goes on without one) and does its work.
    Ready {
        /// Who says so, and when.
        #[serde(flatten)]
        stamp: Stamp<S>,
        /// What the guest found and does.
        #[serde(flatten)]
        status: Status,
    },
    /// A sign of life, sent when asked for.
    Heartbeat {
        /// Who says so, and when.
        #[serde(flatten)]
        stamp: Stamp<S>,
        /// What the guest found and does.
        #[serde(flatten)]
        status: Status,
    },
    /// The answer to one command.
    Reply {
        /// Who says so, and when.
        #[serde(flatten)]
        stamp: Stamp<S>,
        /// The tag that the command carried, if any.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        tag: Option<u32>,
        /// Exit code: 0 done, 1 failed, 2 usage, 127 unknown command.
        code: u8,
        /// What the command prints, or why it failed.
        output: S,
    },
    /// The guest cannot go on; it powers off next.
    Fatal {
        /// Who says so, and when.
        #[serde(flatten)]
        stamp: Stamp<S>,
        /// What failed, on what, and why.
        reason: S,
    },
}

/// Who sent a message, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
pub struct Stamp<S> {
    /// The guest's id from its identity; empty before it has one.
    pub id: S,
    /// Milliseconds since the guest's kernel started (`CLOCK_BOOTTIME`).
    pub ms: u64,
    /// Counts the guest's messages, from 0; a gap means that lines were lost.
    pub seq: u64,
}

/// What a guest found and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
pub struct Status {
    /// The identity given by the host.
    pub identity: IdentityState,
    /// The overlay disk, `/dev/vda` on `/disk`.
    pub disk: DeviceState,
    /// The network interface, `eth0`.
    pub net: DeviceState,
    /// The CPU burn.
    pub burn: Burn,
}

/// What became of the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
#[serde(rename_all = "lowercase")]
pub enum IdentityState {
    /// Taken, and its entropy credited to the kernel.
    Applied,
    /// The host gave none, or the kernel cannot read `fw_cfg`.
    Missing,
    /// Truncated or garbled.
    Malformed,
    /// Of a version that this guest does not know.
    Unsupported,
}

/// What became of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// In use.
    Up,
    /// Not there; never waited for.
    Absent,
    /// There, but unusable; a console line before says why.
    Failed,
}

/// The CPU burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
pub struct Burn {
    /// Share of the time that each thread burns, in percent; 0 is asleep.
    pub duty: u8,
    /// Number of threads.
    pub threads: u16,
    /// Rounds of work done by all threads together since the start.
    pub rounds: u64,
}

impl<S> Message<S> {
    /// Who sent it, and when.
    pub fn stamp(&self) -> &Stamp<S> {
        match self {
            Self::Parked { stamp }
            | Self::Ready { stamp, .. }
            | Self::Heartbeat { stamp, .. }
            | Self::Reply { stamp, .. }
            | Self::Fatal { stamp, .. } => stamp,
        }
    }
}
