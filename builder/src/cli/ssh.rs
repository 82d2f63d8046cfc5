//! `imgbuild ssh`.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::launch::fleet_name;
use super::output::{is_reader_gone, print_json, print_text};
use super::{Context, Exit, Failure};
use crate::control::client::Client;
use crate::control::select;
use crate::control::types::Selection;
use crate::fleet::ssh::{Outcome, Reachable, Tally, exit_code};
use crate::guest::deadline;
use crate::process::{self, OUTPUT_LIMIT};
use crate::text::printable;
use crate::units::GuestIndex;
use crate::{host, outlet, progress};

/// Clients at a time for each CPU: each mostly waits for its guest.
const CLIENTS_A_CPU: usize = 4;

/// Arguments of `ssh`.
#[derive(Debug, Args)]
pub(super) struct Ssh {
    /// The fleet [default: the only one that is running]
    #[arg(long, value_name = "FLEET", env = "IMGBUILD_FLEET", value_parser = fleet_name)]
    fleet: Option<String>,

    /// The guest, such as g00007 or 7
    #[arg(required_unless_present = "all", conflicts_with = "all", value_parser = select::one)]
    guest: Option<GuestIndex>,

    /// Run the command on every guest
    #[arg(long, requires = "command")]
    all: bool,

    /// Guests at a time with --all [default: 4 for each CPU]
    #[arg(long, value_name = "N", env = "IMGBUILD_PARALLEL",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: Option<u16>,

    /// How long each guest's log-in and command may take with --all [default: 60s,
    /// and more where many guests share a CPU]
    #[arg(long, value_name = "DURATION", requires = "all", value_parser = humantime::parse_duration)]
    within: Option<Duration>,

    /// Print one JSON object a guest
    #[arg(long, requires = "all")]
    json: bool,

    /// Command to run there; ssh joins the words with spaces
    #[arg(last = true)]
    command: Vec<OsString>,
}

impl Ssh {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let fleet = Reachable::find(self.fleet.as_deref(), &context.directories)?;
        let client = context.client(fleet.name(), fleet.paths());
        if let Some(guest) = self.guest {
            if let Some(attendance) = attend(&client, guest)
                && let Err(error) = keep_open(attendance)
            {
                tracing::debug!("{guest} loses its CPU priority: {error}");
            }
            // Its threads end here.
            outlet::settle();
            return Err(fleet.become_ssh(guest, &self.command).into());
        }
        let parallel = parallel(self.parallel);
        let within = self.within.unwrap_or_else(|| within(fleet.count()));
        let bar = progress::bar(fleet.count() as u64, "guests done");
        let mut printed = Ok(());
        let tally = fleet.run_on_all(
            &self.command,
            parallel,
            within,
            &context.interrupt,
            |guest| attend(&client, guest),
            |guest, outcome| {
                let shown = if self.json {
                    show_json(guest, outcome)
                } else {
                    show(guest, outcome)
                };
                if printed.is_ok() {
                    printed = shown;
                }
                bar.inc(1);
            },
        );
        bar.finish_and_clear();
        let tally = tally?;
        printed?;
        if self.json {
            print_json(&summary(fleet.name(), &tally))?;
        }
        tracing::info!("{}", sentence(&tally));
        Ok(exit(&tally))
    }
}

/// Clients at a time, unless the user says how many.
pub(super) fn parallel(asked: Option<u16>) -> usize {
    asked.map_or(CLIENTS_A_CPU * host::cpus(), usize::from)
}

/// How long each guest of so many may take, unless the user says.
pub(super) fn within(guests: usize) -> Duration {
    let guests = u32::try_from(guests).unwrap_or(u32::MAX);
    deadline::command(guests, host::cpus())
}

/// Has a guest be urgent while the connection is open. Without a supervisor, or
/// with one that says no, a log-in only takes longer.
pub(super) fn attend(client: &Client, guest: GuestIndex) -> Option<UnixStream> {
    match client.attend(Selection::These(vec![guest])) {
        Ok(attendance) => Some(attendance),
        Err(error) => {
            tracing::debug!("{guest} gets no CPU priority: {error}");
            None
        }
    }
}

/// Has a connection open for as long as this process lives, whatever it becomes:
/// ssh(1) begins by closing all that it inherits, so a child holds it.
fn keep_open(connection: UnixStream) -> io::Result<()> {
    let mut holder = Command::new("sleep");
    holder
        .arg("infinity")
        .stdin(OwnedFd::from(connection))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    process::die_with_parent(&mut holder, Signal::KILL);
    holder.spawn().map(drop)
}

/// The exit code that a run on all guests leads to.
pub(super) fn exit(tally: &Tally) -> Exit {
    match tally.done {
        done if done == tally.guests => Exit::Done,
        0 => Exit::Failed,
        _ => Exit::PartOfFleet,
    }
}

/// Prints what a guest said, each line behind its name.
fn show(guest: GuestIndex, outcome: &Outcome) -> Result<(), Failure> {
    let captured = match outcome {
        Outcome::Ended(captured) => captured,
        Outcome::Late(within) => {
            tracing::warn!("{guest}: {}", lateness(*within));
            return Ok(());
        }
    };
    let stdout = prefixed(guest, &captured.stdout);
    if !stdout.is_empty() {
        print_text(&stdout)?;
    }
    let stderr = prefixed(guest, &captured.stderr);
    if !stderr.is_empty() {
        match progress::suspend(|| writeln!(io::stderr().lock(), "{stderr}")) {
            Err(error) if is_reader_gone(&error) => {}
            other => other?,
        }
    }
    if captured.cut {
        tracing::warn!("{guest}: output was cut after {OUTPUT_LIMIT} bytes");
    }
    match exit_code(captured) {
        Some(0) => {}
        Some(code) => tracing::warn!("{guest} exited {code}"),
        None => tracing::warn!("{guest} is unreachable"),
    }
    Ok(())
}

/// The lines of `output` behind the guest's name, without the last line's end.
/// Nothing in one makes it look like another guest's.
fn prefixed(guest: GuestIndex, output: &[u8]) -> String {
    String::from_utf8_lossy(output)
        .lines()
        .map(|line| format!("{guest}: {}", printable(line)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Why a guest that was late has nothing to show.
pub(super) fn lateness(within: Duration) -> String {
    let within = humantime::format_duration(within);
    format!("no answer within {within}; --within gives more time")
}

fn show_json(guest: GuestIndex, outcome: &Outcome) -> Result<(), Failure> {
    let captured = match outcome {
        Outcome::Ended(captured) => captured,
        Outcome::Late(within) => {
            let late = json!({
                "event": "guest",
                "id": guest,
                "code": null,
                "late": lateness(*within),
            });
            return print_json(&late);
        }
    };
    let mut object = json!({
        "event": "guest",
        "id": guest,
        "code": captured.status.code(),
        "stdout": String::from_utf8_lossy(&captured.stdout),
        "stderr": String::from_utf8_lossy(&captured.stderr),
    });
    if captured.cut {
        object["cut"] = true.into();
    }
    print_json(&object)
}

pub(super) fn summary(fleet: &str, tally: &Tally) -> Value {
    json!({
        "event": "summary",
        "fleet": fleet,
        "guests": tally.guests,
        "done": tally.done,
        "exited": tally.exited,
        "unreachable": tally.unreachable,
        "late": tally.late,
    })
}

/// Such as `98 of 100 done, 1 exited 1, 1 unreachable`.
pub(super) fn sentence(tally: &Tally) -> String {
    let mut parts = vec![format!("{} of {} done", tally.done, tally.guests)];
    let exited = tally.exited.iter();
    parts.extend(exited.map(|(code, guests)| format!("{guests} exited {code}")));
    if tally.unreachable > 0 {
        parts.push(format!("{} unreachable", tally.unreachable));
    }
    if tally.late > 0 {
        parts.push(format!("{} without an answer", tally.late));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tally(done: usize, exited: &[(i32, usize)], unreachable: usize) -> Tally {
        let exited: BTreeMap<_, _> = exited.iter().copied().collect();
        let exited_in_all: usize = exited.values().sum();
        Tally {
            guests: 100,
            done,
            exited,
            unreachable,
            late: 100 - done - exited_in_all - unreachable,
        }
    }

    #[test]
    fn a_tally_says_and_exits_what_it_saw() {
        for (tally, text, code) in [
            (tally(100, &[], 0), "100 of 100 done", Exit::Done),
            (
                tally(98, &[(1, 1)], 1),
                "98 of 100 done, 1 exited 1, 1 unreachable",
                Exit::PartOfFleet,
            ),
            (
                tally(90, &[(1, 1)], 2),
                "90 of 100 done, 1 exited 1, 2 unreachable, 7 without an answer",
                Exit::PartOfFleet,
            ),
            (
                tally(0, &[(127, 99), (1, 1)], 0),
                "0 of 100 done, 1 exited 1, 99 exited 127",
                Exit::Failed,
            ),
        ] {
            assert_eq!(sentence(&tally), text);
            assert_eq!(exit(&tally), code);
        }
    }

    #[test]
    fn every_line_is_behind_the_guests_name() {
        let guest = GuestIndex::new(3).unwrap();
        assert_eq!(
            prefixed(guest, b"one\n\ntwo\xff"),
            "g00003: one\ng00003: \ng00003: two\u{fffd}"
        );
        assert_eq!(prefixed(guest, b""), "");
        assert_eq!(
            prefixed(guest, b"dir\r\n\rg00004: \x1b[1mfine\xc2\x9b\xe2\x80\xae\n"),
            "g00003: dir\ng00003: \\rg00004: \\u{1b}[1mfine\\u{9b}\\u{202e}"
        );
    }
}
