//! Runs the system's ssh(1) to reach guests of a running fleet.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::each::on_each;
use crate::control::select::{SelectError, Selector, select};
use crate::directories::Directories;
use crate::interrupt::Interrupt;
use crate::process::{self, Captured, ProcessError};
use crate::store::find::{FindError, find};
use crate::store::folder::{self, Found, Paths};
use crate::store::ssh_config;
use crate::units::GuestIndex;

/// What ssh(1) exits with when it, and not the guest's command, failed.
pub(crate) const TRANSPORT: i32 = 255;

/// A running fleet whose guests can be logged in to.
#[derive(Debug)]
pub(crate) struct Reachable {
    name: String,
    paths: Paths,
    config: PathBuf,
    /// Not empty, in order.
    guests: Vec<GuestIndex>,
}

/// Why no guest was reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SshError {
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its guests have no network.
    #[error(
        "the guests of {fleet} cannot be logged in to: {} is absent; either the fleet is just \
         about to start, or it was launched with --net none, or its kernel has no driver for the \
         network; `imgbuild console` reaches them",
        config.display()
    )]
    NoNetwork { fleet: String, config: PathBuf },
    /// The fleet has no such guest.
    #[error("fleet {fleet} has no guest {guest}: its guests are {first} to {last}")]
    UnknownGuest {
        fleet: String,
        guest: GuestIndex,
        first: GuestIndex,
        last: GuestIndex,
    },
    /// The fleet's list of guests could not be read.
    #[error("cannot read {}: {source}; was the fleet just ended?", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// ssh(1) could not be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// How many guests did what was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Guests asked.
    pub guests: usize,
    /// Those whose command exited with 0.
    pub done: usize,
    /// Those whose command exited otherwise, by exit code.
    pub exited: BTreeMap<i32, usize>,
    /// Those that ssh(1) did not get through to.
    pub unreachable: usize,
    /// Those whose command had not ended in time.
    pub late: usize,
}

/// What became of a command on one guest.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ended, or ssh(1) did.
    Ended(Captured),
    /// It had not ended within this time, and ssh(1) was ended.
    Late(Duration),
}

/// How a command on a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    /// ssh(1) did not get through.
    Unreachable,
    /// It had not ended within this time.
    Late(Duration),
}

impl End {
    pub(super) fn of(captured: &Captured) -> Self {
        exit_code(captured).map_or(Self::Unreachable, Self::Exited)
    }
}

impl Outcome {
    pub(crate) fn end(&self) -> End {
        match self {
            Self::Ended(captured) => End::of(captured),
            Self::Late(within) => End::Late(*within),
        }
    }
}

/// The time that a client had which was ended because it took longer.
pub(super) fn late(error: ProcessError) -> Result<Duration, ProcessError> {
    match error {
        ProcessError::TooSlow { limit, .. } => Ok(limit),
        ProcessError::Starved { wall, .. } => Ok(wall),
        error => Err(error),
    }
}

/// The exit code of a guest's command; `None` when ssh(1) did not get through,
/// which a command that itself exits with 255 cannot be distinguished from.
pub(crate) fn exit_code(captured: &Captured) -> Option<i32> {
    captured.status.code().filter(|code| *code != TRANSPORT)
}

impl Reachable {
    /// The fleet called `name`, or the only one; its guests may have outlived
    /// their supervisor.
    pub(crate) fn find(name: Option<&str>, directories: &Directories) -> Result<Self, SshError> {
        let Found { name, paths, .. } = find(name, directories)?;
        let config = folder::ssh_config(paths.path());
        if !config.exists() {
            return Err(SshError::NoNetwork {
                fleet: name,
                config,
            });
        }
        let known_hosts = folder::known_hosts(paths.path());
        let guests = match ssh_config::guests(&known_hosts) {
            Ok(guests) if !guests.is_empty() => guests,
            other => {
                return Err(SshError::Unreadable {
                    path: known_hosts,
                    source: other.err().unwrap_or(io::ErrorKind::InvalidData.into()),
                });
            }
        };
        Ok(Self {
            name,
            paths,
            config,
            guests,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    pub(crate) fn count(&self) -> usize {
        self.guests.len()
    }

    /// The guest, if it is one of the fleet's.
    pub(crate) fn known(&self, guest: GuestIndex) -> Result<GuestIndex, SshError> {
        if self.guests.contains(&guest) {
            return Ok(guest);
        }
        Err(SshError::UnknownGuest {
            fleet: self.name.clone(),
            guest,
            first: self.guests[0],
            last: self.guests[self.guests.len() - 1],
        })
    }

    /// Becomes ssh(1) to one guest, so that its input, signals and exit code are
    /// ssh's own; returns only if that fails.
    pub(crate) fn become_ssh(&self, guest: GuestIndex, words: &[OsString]) -> SshError {
        if let Err(error) = self.known(guest) {
            return error;
        }
        let mut command = self.command(&[], guest, words);
        let error = command.exec();
        process::start_error(&command, error).into()
    }

    /// Those of its guests that `selectors` name; all of them without any.
    pub(crate) fn select(&self, selectors: &[Selector]) -> Result<Vec<GuestIndex>, SelectError> {
        select(selectors, self.guests.iter().copied())
    }

    /// Runs ssh(1) to one guest, with this process's own streams, to its end, or until
    /// the fleet is `over`: a guest that is gone may not have hung up. Gives its exit
    /// code.
    pub(crate) fn attached(
        &self,
        guest: GuestIndex,
        words: &[OsString],
        over: &Interrupt,
    ) -> Result<u8, SshError> {
        let status = process::attached(self.command(&[], guest, words), over)?;
        let signal = status.signal().map(|signal| signal + 128);
        let code = status.code().or(signal).unwrap_or(TRANSPORT);
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }

    /// Runs a command on one guest, which has the time `within`.
    pub(crate) fn run_on(
        &self,
        guest: GuestIndex,
        words: &[OsString],
        within: Duration,
        interrupt: &Interrupt,
    ) -> Result<Outcome, SshError> {
        match process::capture_within(self.unattended(guest, words), within, interrupt) {
            Ok(captured) => Ok(Outcome::Ended(captured)),
            Err(error) => Ok(Outcome::Late(late(error)?)),
        }
    }

    /// Runs a command on every guest, on at most `parallel` at a time, and hands
    /// over what became of each, in the order of guests and as early as that allows;
    /// each has the time `within`. What `attend` gives is kept for as long as the guest's command runs.
    pub(crate) fn run_on_all<A>(
        &self,
        words: &[OsString],
        parallel: usize,
        within: Duration,
        interrupt: &Interrupt,
        attend: impl Fn(GuestIndex) -> A + Sync,
        mut on_guest: impl FnMut(GuestIndex, &Outcome),
    ) -> Result<Tally, SshError> {
        let run = |guest| -> Result<_, SshError> {
            let _attended = attend(guest);
            self.run_on(guest, words, within, interrupt)
        };
        let mut tally = Tally::default();
        on_each(&self.guests, parallel, run, |guest, outcome| {
            tally.count(outcome.end());
            on_guest(guest, &outcome);
        })?;
        Ok(tally)
    }

    /// ssh(1) to a guest where nobody is there to be asked for a passphrase.
    pub(super) fn unattended(&self, guest: GuestIndex, words: &[OsString]) -> Command {
        self.command(&["-o", "BatchMode=yes"], guest, words)
    }

    fn command(&self, options: &[&str], guest: GuestIndex, words: &[OsString]) -> Command {
        let mut command = Command::new("ssh");
        command
            .arg("-F")
            .arg(&self.config)
            .args(options)
            .arg(guest.to_string());
        if !words.is_empty() {
            // ssh(1) looks for options behind the host, too.
            command.arg("--").args(words);
        }
        command
    }
}

impl Tally {
    /// Counts a guest that was asked.
    pub(crate) fn count(&mut self, end: End) {
        self.guests += 1;
        match end {
            End::Exited(0) => self.done += 1,
            End::Exited(code) => *self.exited.entry(code).or_default() += 1,
            End::Unreachable => self.unreachable += 1,
            End::Late(_) => self.late += 1,
        }
    }
}
