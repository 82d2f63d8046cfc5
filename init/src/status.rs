//! The guest's report about itself.

use core::ffi::CStr;
use core::fmt;

use rustix::fs::{Mode, OFlags};
use tty_init::protocol::{DeviceState, IdentityState, Status};
use tty_init::report::{BurnReport, Memory, Report, steal_ticks};

use crate::sys::clock;
use crate::{burn, console};

/// Milliseconds of a tick of /proc/stat (`USER_HZ` is 100).
const TICK_MS: u64 = 10;

/// What `identify` found.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub identity: IdentityState,
    pub disk: DeviceState,
    pub net: DeviceState,
    pub ssh: DeviceState,
}

/// How far the guest has come.
#[derive(Clone, Copy)]
pub(crate) enum Phase {
    /// The console is open.
    Parked,
    /// All is done that does not depend on the identity.
    Poised,
    /// `identify` is done.
    Ready(Found),
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Poised => "poised",
            Self::Ready(_) => "ready",
        }
    }

    /// What `identify` found, once it is done.
    pub(crate) fn found(self) -> Option<Found> {
        match self {
            Self::Parked | Self::Poised => None,
            Self::Ready(found) => Some(found),
        }
    }
}

impl Found {
    /// With what the guest does.
    pub(crate) fn status(self) -> Status {
        Status {
            identity: self.identity,
            disk: self.disk,
            net: self.net,
            ssh: self.ssh,
            burn: burn::status(),
        }
    }
}

/// Writes what the guest found and does, as JSON, if so, or as words.
pub(crate) fn write_report(phase: Phase, json: bool, out: &mut dyn fmt::Write) -> fmt::Result {
    let found = phase.found();
    let id = console::id();
    let burn = burn::status();
    let mut buffer = [0; 2048];
    let memory = Memory::parse(read(c"/proc/meminfo", &mut buffer));
    let steal_ms = steal_ticks(read(c"/proc/stat", &mut buffer)) * TICK_MS;
    let report = Report {
        id: id.as_ref().map_or("", |id| id.as_str()),
        phase: phase.as_str(),
        uptime_ms: clock::age_ms(),
        identity: found.map(|found| found.identity),
        disk: found.map(|found| found.disk),
        net: found.map(|found| found.net),
        ssh: found.map(|found| found.ssh),
        burn: BurnReport {
            duty: burn.duty,
            threads: burn.threads,
            rounds: burn.rounds,
            rate: burn::rate(),
        },
        memory,
        steal_ms,
    };
    if json {
        report.write_json(out)
    } else {
        write!(out, "{report}")
    }
}

/// The start of a file of text, empty if it cannot be read.
pub(crate) fn read<'b>(path: &CStr, buffer: &'b mut [u8]) -> &'b str {
    let length = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::read(file, &mut *buffer))
        .unwrap_or_default();
    let text = buffer.get(..length).unwrap_or_default();
    match core::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default(),
    }
}
