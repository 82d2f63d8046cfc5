//! The console protocol: one JSON object a line from the guest, one command a
//! line to it (see [`crate::command`]).
//!
//! A line that is not JSON is kernel or shell text, and is kept as log.

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// Longest line a guest writes, in bytes, its line feed included.
///
/// The host keeps no more than this of a line that does not end.
pub const LINE_MAX: usize = 1024;

/// More than a reply has besides its output: names, an id of 16 bytes and
/// every number at its longest.
const REPLY_FRAME: usize = 200;

/// One message from a guest.
///
/// `S` is the string type: `&str` in the guest, `String` on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
#[cfg_attr(
    any(test, feature = "host"),
    serde(tag = "event", rename_all = "lowercase")
)]
pub enum Message<S> {
    /// The kernel is up and the console open; nothing else is started.
    Parked {
        /// Who says so, and when.
        #[cfg_attr(any(test, feature = "host"), serde(flatten))]
        stamp: Stamp<S>,
    },
    /// The guest took its identity (or goes on without one) and does its work.
    Ready {
        /// Who says so, and when.
        #[cfg_attr(any(test, feature = "host"), serde(flatten))]
        stamp: Stamp<S>,
        /// What the guest found and does.
        #[cfg_attr(any(test, feature = "host"), serde(flatten))]
        status: Status,
    },
    /// A sign of life, sent when asked for.
    Heartbeat {
        /// Who says so, and when.
        #[cfg_attr(any(test, feature = "host"), serde(flatten))]
        stamp: Stamp<S>,
        /// What the guest found and does.
        #[cfg_attr(any(test, feature = "host"), serde(flatten))]
        status: Status,
    },
    /// The answer to one command.
    Reply {
        /// Who says so, and when.
        #[cfg_attr(any(test, feature = "host"), serde(flatten))]
        stamp: Stamp<S>,
        /// The tag that the command carried, if any.
        #[cfg_attr(any(test, feature = "host"), serde(default))]
        tag: Option<u32>,
        /// Exit code: 0 done, 1 failed, 2 usage, 127 unknown command.
        code: u8,
        /// What the command prints, or why it failed.
        output: S,
        /// Whether this is only the first or next part of the output, and
        /// `code` not known yet; the last part follows.
        #[cfg_attr(any(test, feature = "host"), serde(default))]
        more: bool,
    },
    /// The guest cannot go on; it powers off next.
    Fatal {
        /// Who says so, and when.
        #[cfg_attr(any(test, feature = "host"), serde(flatten))]
        stamp: Stamp<S>,
        /// What failed, on what, and why.
        reason: S,
    },
}

/// Who sent a message, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
pub struct Status {
    /// The identity given by the host.
    pub identity: IdentityState,
    /// The overlay disk, `/dev/vda` on `/disk`.
    pub disk: DeviceState,
    /// The network interface, `eth0`.
    pub net: DeviceState,
    /// The SSH server: `absent` without an identity that lets somebody in.
    pub ssh: DeviceState,
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
    /// Sound, but its entropy could not be credited; a console line before
    /// says why.
    Failed,
}

impl IdentityState {
    /// The state as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
        }
    }
}

/// What became of a device, or of the SSH server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// In use.
    Up,
    /// Not there; never waited for.
    Absent,
    /// There, but unusable; a console line before says why. So is an `eth0`
    /// for which the identity holds no address, or that has no identity.
    Failed,
}

impl DeviceState {
    /// The state as it stands in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Absent => "absent",
            Self::Failed => "failed",
        }
    }
}

/// The CPU burn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
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

    fn event(&self) -> &'static str {
        match self {
            Self::Parked { .. } => "parked",
            Self::Ready { .. } => "ready",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Reply { .. } => "reply",
            Self::Fatal { .. } => "fatal",
        }
    }
}

impl<'a> Message<&'a str> {
    /// Writes the message as one line, line feed included.
    ///
    /// An output or reason that would not fit into the line is cut short: a
    /// command's sender must get its reply. `None` only if the id alone is too
    /// long for the line.
    pub fn encode(mut self, line: &mut [u8; LINE_MAX]) -> Option<&[u8]> {
        let room = LINE_MAX - 1;
        let length = if let Ok(length) = serde_json_core::to_slice(&self, &mut line[..room]) {
            length
        } else {
            let text = core::mem::take(self.text()?);
            let rest = serde_json_core::to_slice(&self, &mut line[..room]).ok()?;
            *self.text()? = prefix_that_fits(text, room - rest);
            serde_json_core::to_slice(&self, &mut line[..room]).ok()?
        };
        line[length] = b'\n';
        Some(&line[..=length])
    }

    /// The text of free length, if the message has one.
    fn text(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::Reply { output: text, .. } | Self::Fatal { reason: text, .. } => Some(text),
            _ => None,
        }
    }
}

/// The longest prefix of an output that a reply surely takes whole.
#[must_use]
pub fn reply_part(output: &str) -> &str {
    prefix_that_fits(output, LINE_MAX - REPLY_FRAME)
}

/// The longest prefix whose JSON form takes no more than `room` bytes.
fn prefix_that_fits(text: &str, mut room: usize) -> &str {
    for (at, character) in text.char_indices() {
        let width = match character {
            '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => 2,
            '\0'..='\u{1f}' => "\\u0000".len(),
            _ => character.len_utf8(),
        };
        match room.checked_sub(width) {
            Some(rest) => room = rest,
            None => return text.get(..at).unwrap_or_default(),
        }
    }
    text
}

// Written by hand because what serde derives for a flattened field needs an
// allocator, which PID 1 has not.
impl<S: Serialize> Serialize for Message<S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        let mut object = serializer.serialize_struct("Message", 9)?;
        object.serialize_field("event", self.event())?;
        let stamp = self.stamp();
        object.serialize_field("id", &stamp.id)?;
        object.serialize_field("ms", &stamp.ms)?;
        object.serialize_field("seq", &stamp.seq)?;
        match self {
            Self::Parked { .. } => {}
            Self::Ready { status, .. } | Self::Heartbeat { status, .. } => {
                object.serialize_field("identity", &status.identity)?;
                object.serialize_field("disk", &status.disk)?;
                object.serialize_field("net", &status.net)?;
                object.serialize_field("ssh", &status.ssh)?;
                object.serialize_field("burn", &status.burn)?;
            }
            Self::Reply {
                tag,
                code,
                output,
                more,
                ..
            } => {
                if let Some(tag) = tag {
                    object.serialize_field("tag", tag)?;
                }
                object.serialize_field("code", code)?;
                object.serialize_field("output", output)?;
                if *more {
                    object.serialize_field("more", more)?;
                }
            }
            Self::Fatal { reason, .. } => object.serialize_field("reason", reason)?,
        }
        object.end()
    }
}

#[cfg(test)]
mod tests;
