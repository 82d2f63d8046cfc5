//! External tools: run to their end, watched line by line, and never left behind.
//!
//! A tool runs in a process group of its own, so a Ctrl-C in the terminal reaches
//! only this process, which then ends the whole group. Should this process die
//! without a chance to do so, the kernel sends the tool SIGTERM, which make(1)
//! passes on to its jobs.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use self::clock::{Limit, Overdue};
use self::group::{Ending, Group};
use crate::interrupt::Interrupt;
use crate::lines::LineBuffer;

mod attached;
mod child;
mod clock;
mod error;
mod find;
mod group;
mod package;

pub(crate) use attached::attached;
pub(crate) use child::{close_inherited, die_with_parent, leave_no_core, this_program};
pub(crate) use error::{ProcessError, start_error};
pub(crate) use find::{find, may_run};
pub(crate) use group::Stream;
pub(crate) use package::debian_package;

/// Output lines kept for the message of a tool that fails.
const TAIL_LINES: usize = 30;
/// Most of a stream that [`output`] and [`capture`] keep, in bytes.
pub(crate) const OUTPUT_LIMIT: usize = 1024 * 1024;

/// How a tool ended, whatever its status, and what it wrote.
#[derive(Debug)]
pub(crate) struct Captured {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output, up to [`OUTPUT_LIMIT`].
    pub stdout: Vec<u8>,
    /// Its standard error, up to [`OUTPUT_LIMIT`].
    pub stderr: Vec<u8>,
    /// Whether it wrote more than that to either.
    pub cut: bool,
}

/// Runs `command` to its end in the C locale, with nothing on its standard input,
/// and hands each line it writes to `on_line`.
///
/// Whatever the outcome, no process of its group is left when this returns, but
/// one that is overdue and that the kernel does not let end either.
pub(crate) fn run(
    command: Command,
    interrupt: &Interrupt,
    on_line: impl FnMut(Stream, &str),
) -> Result<(), ProcessError> {
    follow(command, None, interrupt, on_line)
}

/// Runs `command` as [`run`] does, and kills it and all it started once it said
/// nothing for `limit` of its own clock.
pub(crate) fn run_while_heard(
    command: Command,
    limit: Duration,
    interrupt: &Interrupt,
    on_line: impl FnMut(Stream, &str),
) -> Result<(), ProcessError> {
    follow(command, Some(Limit::Silence(limit)), interrupt, on_line)
}

fn follow(
    mut command: Command,
    limit: Option<Limit>,
    interrupt: &Interrupt,
    mut on_line: impl FnMut(Stream, &str),
) -> Result<(), ProcessError> {
    let mut tail = VecDeque::with_capacity(TAIL_LINES);
    let mut take = |stream, line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        on_line(stream, &line);
        tail.push_back(line.into_owned());
    };
    let mut partial = [LineBuffer::default(), LineBuffer::default()];
    let status = watch(
        &mut command,
        Stdio::null(),
        limit,
        interrupt,
        |stream, bytes| {
            partial[stream as usize].push(bytes, |line| take(stream, line));
            Ok(())
        },
    )?;
    for stream in [Stream::Stdout, Stream::Stderr] {
        let rest = partial[stream as usize].rest();
        if !rest.is_empty() {
            take(stream, rest);
        }
    }
    if status.success() {
        return Ok(());
    }
    Err(ProcessError::Failed {
        command: shown(&command),
        status,
        tail: Vec::from(tail).join("\n"),
    })
}

/// Runs `command` as [`run`] does, but takes any status, and keeps the first
/// megabyte of each stream as it is.
pub(crate) fn capture(command: Command, interrupt: &Interrupt) -> Result<Captured, ProcessError> {
    captured(command, None, interrupt)
}

/// Runs `command` as [`capture`] does, and kills it and all it started once
/// `limit` has passed by its own clock.
pub(crate) fn capture_within(
    command: Command,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<Captured, ProcessError> {
    captured(command, Some(Limit::Whole(limit)), interrupt)
}

/// Runs `command` to its end, with `input` as its standard input, as [`capture`]
/// does, but hands its standard output on as it comes; the command is ended if that
/// is not taken, or once `limit` has passed by its own clock.
pub(crate) fn carry(
    mut command: Command,
    input: Stdio,
    limit: Option<Duration>,
    interrupt: &Interrupt,
    mut on_output: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<Captured, ProcessError> {
    let mut stderr = Vec::new();
    let limit = limit.map(Limit::Whole);
    let status = watch(&mut command, input, limit, interrupt, |stream, bytes| {
        match stream {
            Stream::Stdout => on_output(bytes)?,
            Stream::Stderr => {
                let room = bytes.len().min(OUTPUT_LIMIT - stderr.len());
                stderr.extend_from_slice(&bytes[..room]);
            }
        }
        Ok(())
    })?;
    Ok(Captured {
        status,
        stdout: Vec::new(),
        stderr,
        cut: false,
    })
}

fn captured(
    mut command: Command,
    limit: Option<Limit>,
    interrupt: &Interrupt,
) -> Result<Captured, ProcessError> {
    let mut kept = [Vec::new(), Vec::new()];
    let mut cut = false;
    let status = watch(
        &mut command,
        Stdio::null(),
        limit,
        interrupt,
        |stream, bytes| {
            let kept = &mut kept[stream as usize];
            let room = bytes.len().min(OUTPUT_LIMIT - kept.len());
            kept.extend_from_slice(&bytes[..room]);
            cut |= room < bytes.len();
            Ok(())
        },
    )?;
    let [stdout, stderr] = kept;
    Ok(Captured {
        status,
        stdout,
        stderr,
        cut,
    })
}

/// Runs `command` to its end and hands on what it writes, as it comes.
fn watch(
    command: &mut Command,
    input: Stdio,
    limit: Option<Limit>,
    interrupt: &Interrupt,
    mut on_output: impl FnMut(Stream, &[u8]) -> io::Result<()>,
) -> Result<ExitStatus, ProcessError> {
    let program = command.get_program().to_string_lossy().into_owned();
    match Group::spawn(command, input)?.watch(limit, interrupt, &mut on_output) {
        Err(source) => Err(ProcessError::Watch { program, source }),
        Ok(Ending::Interrupted) => Err(ProcessError::Interrupted { program }),
        Ok(Ending::Overdue(Overdue::HadItsTime(limit))) => {
            Err(ProcessError::TooSlow { program, limit })
        }
        Ok(Ending::Overdue(Overdue::Starved { wall, had })) => {
            Err(ProcessError::Starved { program, wall, had })
        }
        Ok(Ending::Exited(status)) => Ok(status),
    }
}

/// Runs `command` as [`run`] does and returns the first megabyte of its standard
/// output.
pub(crate) fn output(command: Command, interrupt: &Interrupt) -> Result<String, ProcessError> {
    let mut text = String::new();
    run(command, interrupt, |stream, line| {
        if stream == Stream::Stdout && text.len() + line.len() < OUTPUT_LIMIT {
            text.push_str(line);
            text.push('\n');
        }
    })?;
    Ok(text)
}

/// The command as a user would type it, for messages.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
pub(crate) mod tests;
