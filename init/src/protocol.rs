//! The console protocol: one JSON object a line from the guest, one command a
//! line to it (see [`crate::command`]).
//!
//! A line that is not JSON is kernel or shell text, and is kept as log.

use core::fmt;

use serde::Serialize;

use crate::json::{Object, prefix_that_fits};

/// Longest line a guest writes, in bytes, its line feed included.
///
/// The host keeps up to 4,096 bytes of a line, whoever wrote it.
pub const LINE_MAX: usize = 1024;

/// More than a reply has besides its output: names, an id of 16 bytes and
/// every number at its longest.
const REPLY_FRAME: usize = 200;

/// What a guest replies that does not know yet who it is.
pub const NOT_IDENTIFIED: &str = "not identified yet: `identify` first";

/// One message from a guest.
///
/// `S` is the string type: `&str` in the guest, `String` on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    any(test, feature = "host"),
    derive(serde::Deserialize, serde::Serialize)
)]
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
    /// All is done that does not depend on the identity; the guest sleeps until
    /// `identify` (see [`crate::parameters::Goal::Poised`]).
    Poised {
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
    /// A sign of life, sent when asked for, and when the duty of the burn was set:
    /// whoever set it, the host gives it to the guest's next life too.
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
        #[cfg_attr(
            any(test, feature = "host"),
            serde(default, skip_serializing_if = "Option::is_none")
        )]
        tag: Option<u32>,
        /// Exit code: 0 done, 1 failed, 2 usage, 127 unknown command.
        code: u8,
        /// What the command prints, or why it failed.
        output: S,
        /// Whether this is only the first or next part of the output, and
        /// `code` not known yet; the last part follows.
        #[cfg_attr(
            any(test, feature = "host"),
            serde(default, skip_serializing_if = "core::ops::Not::not")
        )]
        more: bool,
    },
    /// The guest was asked to power off, and ends. Its machine ends as by a reset
    /// either way, since it has no power to switch off.
    PowerOff {
        /// Who says so, and when.
        #[cfg_attr(any(test, feature = "host"), serde(flatten))]
        stamp: Stamp<S>,
    },
    /// The guest was asked to restart, and ends: its host starts it again.
    Reboot {
        /// Who says so, and when.
        #[cfg_attr(any(test, feature = "host"), serde(flatten))]
        stamp: Stamp<S>,
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
#[cfg_attr(
    any(test, feature = "host"),
    derive(serde::Deserialize, serde::Serialize)
)]
pub struct Stamp<S> {
    /// The guest's id from its identity; empty before it has one.
    pub id: S,
    /// Milliseconds since the guest's kernel started (`CLOCK_BOOTTIME`); in a clone,
    /// since it was told to take its identity.
    pub ms: u64,
    /// Counts the guest's messages, from 0; a gap means that lines were lost. A
    /// clone's first is 0 too.
    pub seq: u64,
}

/// What a guest found and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    any(test, feature = "host"),
    derive(serde::Deserialize, serde::Serialize)
)]
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
    /// Not there; never waited for, but for an SSH server of the image's, which is so
    /// until it listens or is waited for no longer.
    Absent,
    /// There, but unusable; a console line before says why. So is an `eth0`
    /// for which the identity holds no address, or that has no identity.
    Failed,
}

impl DeviceState {
    /// The state as it stands in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Absent => "absent",
            Self::Failed => "failed",
        }
    }
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
            | Self::Poised { stamp }
            | Self::Ready { stamp, .. }
            | Self::Heartbeat { stamp, .. }
            | Self::Reply { stamp, .. }
            | Self::PowerOff { stamp }
            | Self::Reboot { stamp }
            | Self::Fatal { stamp, .. } => stamp,
        }
    }

    fn event(&self) -> &'static str {
        match self {
            Self::Parked { .. } => "parked",
            Self::Poised { .. } => "poised",
            Self::Ready { .. } => "ready",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Reply { .. } => "reply",
            Self::PowerOff { .. } => "poweroff",
            Self::Reboot { .. } => "reboot",
            Self::Fatal { .. } => "fatal",
        }
    }
}

impl Message<&str> {
    /// Writes the message as one line, line feed included.
    ///
    /// An output or reason that would not fit into the line is cut short: a
    /// command's sender must get its reply. `None` only if the id alone is too
    /// long for the line.
    pub fn encode(mut self, line: &mut Line) -> Option<&[u8]> {
        line.length = 0;
        if self.write(line).is_err() {
            let text = core::mem::take(self.text()?);
            line.length = 0;
            self.write(line).ok()?;
            *self.text()? = prefix_that_fits(text, line.room());
            line.length = 0;
            self.write(line).ok()?;
        }
        line.bytes[line.length] = b'\n';
        line.bytes.get(..=line.length)
    }

    fn write(&self, line: &mut Line) -> fmt::Result {
        Object::write(line, &|object| {
            object.text("event", self.event())?;
            let stamp = self.stamp();
            object.text("id", stamp.id)?;
            object.number("ms", stamp.ms)?;
            object.number("seq", stamp.seq)?;
            match self {
                Self::Parked { .. }
                | Self::Poised { .. }
                | Self::PowerOff { .. }
                | Self::Reboot { .. } => Ok(()),
                Self::Ready { status, .. } | Self::Heartbeat { status, .. } => {
                    object.text("identity", status.identity.as_str())?;
                    object.text("disk", status.disk.as_str())?;
                    object.text("net", status.net.as_str())?;
                    object.text("ssh", status.ssh.as_str())?;
                    object.object("burn", &|burn| {
                        burn.number("duty", status.burn.duty.into())?;
                        burn.number("threads", status.burn.threads.into())?;
                        burn.number("rounds", status.burn.rounds)
                    })
                }
                Self::Reply {
                    tag,
                    code,
                    output,
                    more,
                    ..
                } => {
                    if let Some(tag) = tag {
                        object.number("tag", (*tag).into())?;
                    }
                    object.number("code", (*code).into())?;
                    object.text("output", output)?;
                    if *more {
                        object.flag("more")?;
                    }
                    Ok(())
                }
                Self::Fatal { reason, .. } => object.text("reason", reason),
            }
        })
    }
}

impl<'a> Message<&'a str> {
    /// The text of free length, if the message has one.
    fn text(&mut self) -> Option<&mut &'a str> {
        match self {
            Self::Reply { output: text, .. } | Self::Fatal { reason: text, .. } => Some(text),
            _ => None,
        }
    }
}

/// Room for one line from a guest.
pub struct Line {
    bytes: [u8; LINE_MAX],
    length: usize,
}

impl Line {
    /// Without anything in it.
    pub const fn new() -> Self {
        Self {
            bytes: [0; LINE_MAX],
            length: 0,
        }
    }

    /// Bytes that it still takes before its line feed.
    fn room(&self) -> usize {
        LINE_MAX - 1 - self.length
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let bytes = text.as_bytes();
        let end = self.length + bytes.len();
        match self.bytes[..LINE_MAX - 1].get_mut(self.length..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.length = end;
                Ok(())
            }
            None => Err(fmt::Error),
        }
    }
}

/// The longest prefix of an output that a reply surely takes whole.
pub fn reply_part(output: &str) -> &str {
    prefix_that_fits(output, LINE_MAX - REPLY_FRAME)
}

#[cfg(test)]
mod tests;
