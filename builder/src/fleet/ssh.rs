//! Runs the system's ssh(1) to reach guests of a running fleet.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use crate::directories::Directories;
use crate::interrupt::Interrupt;
use crate::process::{self, Captured, ProcessError};
use crate::store::find::{FindError, find};
use crate::store::folder::{self, Found, Paths};
use crate::store::ssh_config;
use crate::units::GuestIndex;

/// What ssh(1) exits with when it, and not the guest's command, failed.
const TRANSPORT: i32 = 255;

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
         about to start, or it was launched with --net none",
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

    /// Becomes ssh(1) to one guest, so that its input, signals and exit code are
    /// ssh's own; returns only if that fails.
    pub(crate) fn become_ssh(&self, guest: GuestIndex, words: &[OsString]) -> SshError {
        if !self.guests.contains(&guest) {
            return SshError::UnknownGuest {
                fleet: self.name.clone(),
                guest,
                first: self.guests[0],
                last: self.guests[self.guests.len() - 1],
            };
        }
        let mut command = self.command(&[], guest, words);
        let error = command.exec();
        process::start_error(&command, error).into()
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
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..parallel.min(self.guests.len()) {
                let sender = sender.clone();
                let (next, attend) = (&next, &attend);
                scope.spawn(move || {
                    while let Some(guest) = self.guests.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let _attended = attend(*guest);
                        // Nobody is there to be asked for a passphrase.
                        let command = self.command(&["-o", "BatchMode=yes"], *guest, words);
                        let outcome = match process::capture_within(command, within, interrupt) {
                            Ok(captured) => Ok(Outcome::Ended(captured)),
                            Err(ProcessError::TooSlow { limit, .. }) => Ok(Outcome::Late(limit)),
                            Err(ProcessError::Starved { wall, .. }) => Ok(Outcome::Late(wall)),
                            Err(error) => Err(error),
                        };
                        let failed = outcome.is_err();
                        if sender.send((*guest, outcome)).is_err() || failed {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut tally = Tally {
                guests: self.guests.len(),
                ..Tally::default()
            };
            let mut waiting = BTreeMap::new();
            let mut in_order = self.guests.iter();
            let mut expected = in_order.next();
            for (guest, outcome) in receiver {
                waiting.insert(guest, outcome?);
                while let Some(guest) = expected
                    && let Some(outcome) = waiting.remove(guest)
                {
                    tally.count(&outcome);
                    on_guest(*guest, &outcome);
                    expected = in_order.next();
                }
            }
            Ok(tally)
        })
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
    fn count(&mut self, outcome: &Outcome) {
        let captured = match outcome {
            Outcome::Ended(captured) => captured,
            Outcome::Late(_) => return self.late += 1,
        };
        match exit_code(captured) {
            Some(0) => self.done += 1,
            Some(code) => *self.exited.entry(code).or_default() += 1,
            None => self.unreachable += 1,
        }
    }
}
