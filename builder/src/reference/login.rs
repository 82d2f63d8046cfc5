//! A log-in to each of the reference's guests.

use std::process::Command;
use std::time::Instant;

use super::error::ReferenceError;
use super::guests::Guests;
use super::keys::Access;
use crate::bundle::types::GuestReply;
use crate::fleet::each::on_each;
use crate::interrupt::Interrupt;
use crate::process::{self, Captured, ProcessError};
use crate::progress;
use crate::text::printable_bytes;
use crate::units::GuestIndex;

/// What is run in each.
const COMMAND: &str = "cat /proc/uptime";
/// How many are logged in to at a time. It takes each guest what it has of a CPU,
/// whatever the others do.
const AT_A_TIME: usize = 128;

/// Logs in to each guest once, and says how long it took.
pub(super) fn all(
    access: &Access,
    guests: &Guests<'_>,
    interrupt: &Interrupt,
) -> Result<Vec<GuestReply>, ReferenceError> {
    let indices: Vec<_> = (guests.processes().into_iter().map(|(guest, _)| guest)).collect();
    let bar = progress::bar(indices.len() as u64, "logging in to the baseline's guests");
    let mut replies = Vec::new();
    let log_in = |guest| log_in(access, guest, interrupt);
    on_each(&indices, AT_A_TIME, log_in, |_, reply| {
        bar.inc(1);
        replies.push(reply);
    })?;
    bar.finish_and_clear();
    Ok(replies)
}

fn log_in(
    access: &Access,
    guest: GuestIndex,
    interrupt: &Interrupt,
) -> Result<GuestReply, ReferenceError> {
    let mut command = Command::new("ssh");
    command
        .arg("-F")
        .arg(&access.config)
        .args(["-o", "BatchMode=yes"]);
    command.args([&guest.to_string(), "--", COMMAND]);
    let began = Instant::now();
    let failed = match process::capture_within(command, access.patience, interrupt) {
        Ok(captured) => failure(&captured),
        Err(error @ (ProcessError::TooSlow { .. } | ProcessError::Starved { .. })) => {
            Some(error.to_string())
        }
        Err(ProcessError::Interrupted { .. }) => return Err(ReferenceError::Interrupted),
        Err(error) => return Err(error.into()),
    };
    Ok(GuestReply {
        guest,
        seconds: began.elapsed().as_secs_f64(),
        failed,
    })
}

/// Why a command was not done, if it was not.
fn failure(captured: &Captured) -> Option<String> {
    if captured.status.success() {
        return None;
    }
    let last = captured.stderr.split(|byte| *byte == b'\n');
    let last = last.rev().find(|line| !line.is_empty());
    let last = printable_bytes(last.unwrap_or_default());
    Some(format!("ssh: {}: {last}", captured.status))
}
