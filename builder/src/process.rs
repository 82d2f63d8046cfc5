//! External tools: run to their end, watched line by line, and never left behind.
//!
//! A tool runs in a process group of its own, so a Ctrl-C in the terminal reaches
//! only this process, which then ends the whole group. Should this process die
//! without a chance to do so, the kernel sends the tool SIGTERM, which make(1)
//! passes on to its jobs.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getpid, getppid, getrlimit, kill_process_group,
    pidfd_open, set_parent_process_death_signal, setrlimit,
};

use self::clock::{Clock, Limit, Overdue};
use crate::interrupt::Interrupt;
use crate::lines::LineBuffer;

mod clock;
mod find;
mod package;

pub(crate) use find::{find, may_run};
pub(crate) use package::debian_package;

/// Output lines kept for the message of a tool that fails.
const TAIL_LINES: usize = 30;
/// Most of a stream that [`output`] and [`capture`] keep, in bytes.
pub(crate) const OUTPUT_LIMIT: usize = 1024 * 1024;
/// What a pipe holds, in bytes: the default of pipe(7).
const PIPE_CAPACITY: usize = 64 * 1024;
/// What a group gets between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// The first descriptor after the standard streams.
const FIRST_FILE: libc::c_uint = 3;
/// Where it ends that files are looked for one by one: `fs.nr_open`'s default.
const MOST_FILES: u32 = 1024 * 1024;

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The tool is not on this machine.
    #[error("`{program}` is not installed: on Debian, `apt install {package}` provides it")]
    Missing {
        program: String,
        /// The Debian package that holds it.
        package: String,
    },
    /// The tool did not start.
    #[error("cannot start `{program}`: {source}")]
    Start { program: String, source: io::Error },
    /// The tool ended with an error.
    #[error("`{command}` failed ({status}); its last lines were:\n{tail}")]
    Failed {
        command: String,
        status: ExitStatus,
        /// The last lines it wrote.
        tail: String,
    },
    /// The tool could not be watched.
    #[error("lost track of `{program}`, which was stopped: {source}")]
    Watch { program: String, source: io::Error },
    /// The tool had its time, by its own clock ([`clock`]); it was killed.
    #[error("`{program}` did not end within {limit:?} and was killed; run it by hand")]
    TooSlow { program: String, limit: Duration },
    /// The tool hardly got the CPU; it was killed.
    #[error(
        "`{program}` was killed after {wall:.0?}, in which it got a CPU for {had:.1?}: this host \
         is too busy; try again when it is idle"
    )]
    Starved {
        program: String,
        wall: Duration,
        /// The part of it that was the tool's.
        had: Duration,
    },
    /// The user asked to stop; the tool was ended.
    #[error("interrupted while `{program}` was running; it was stopped")]
    Interrupted { program: String },
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

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

/// Keeps this process's memory from core files for good, those of a handler
/// that the kernel starts for them as well. For such a handler a limit of 0
/// means nothing, and 1 means no (core(5), "Piping core dumps to a program").
///
/// Where the limit is 0 already, and nothing else is allowed, it stays. One
/// system call, and so allowed between fork and exec.
pub(crate) fn leave_no_core() -> io::Result<()> {
    let limit = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    match setrlimit(Resource::Core, limit) {
        Err(Errno::PERM) => Ok(()),
        other => Ok(other?),
    }
}

/// The error for a `command` that did not start, which names the package to
/// install when the tool is missing.
#[must_use]
pub(crate) fn start_error(command: &Command, source: io::Error) -> ProcessError {
    let program = command.get_program().to_string_lossy().into_owned();
    // A folder that is not there is reported by the same errno as a missing tool.
    let has_folder = command.get_current_dir().is_none_or(Path::is_dir);
    if source.kind() == io::ErrorKind::NotFound && has_folder && !program.contains('/') {
        let package = debian_package(&program).to_owned();
        return ProcessError::Missing { program, package };
    }
    ProcessError::Start { program, source }
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
    let status = watch(&mut command, limit, interrupt, |stream, bytes| {
        partial[stream as usize].push(bytes, |line| take(stream, line));
    })?;
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

fn captured(
    mut command: Command,
    limit: Option<Limit>,
    interrupt: &Interrupt,
) -> Result<Captured, ProcessError> {
    let mut kept = [Vec::new(), Vec::new()];
    let mut cut = false;
    let status = watch(&mut command, limit, interrupt, |stream, bytes| {
        let kept = &mut kept[stream as usize];
        let room = bytes.len().min(OUTPUT_LIMIT - kept.len());
        kept.extend_from_slice(&bytes[..room]);
        cut |= room < bytes.len();
    })?;
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
    limit: Option<Limit>,
    interrupt: &Interrupt,
    mut on_output: impl FnMut(Stream, &[u8]),
) -> Result<ExitStatus, ProcessError> {
    let program = command.get_program().to_string_lossy().into_owned();
    match Group::spawn(command)?.watch(limit, interrupt, &mut on_output) {
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

/// Has the kernel send `signal` to the process when the thread that starts it
/// ends, however it ends (prctl(2), `PR_SET_PDEATHSIG`).
pub(crate) fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = getpid();
    // SAFETY: the closure runs between fork and exec, and makes two system calls;
    // it takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(signal))?;
            // The parent may have died before the line above took effect.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(Errno::SRCH.into())
            }
        })
    };
}

/// Has `command` keep no file open but its standard streams, and those that it
/// is handed after this: not what its starter inherited from a shell or a
/// make(1), whose files need not be marked to be closed.
pub(crate) fn close_inherited(command: &mut Command) {
    let limit = getrlimit(Resource::Nofile).current;
    let end = limit.and_then(|limit| u32::try_from(limit).ok());
    let end = end.map_or(MOST_FILES, |end| end.min(MOST_FILES));
    let mark = move || {
        // SAFETY: the call takes no pointer, and marks files without closing any.
        let marked = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                FIRST_FILE,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        if marked != 0 {
            mark_each(FIRST_FILE..end);
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and makes system calls only;
    // it takes no lock and allocates nothing.
    unsafe { command.pre_exec(mark) };
}

/// Marks files one by one, as Linux before 5.11 must (close_range(2)), and who may
/// not call that; async-signal-safe.
fn mark_each(files: Range<u32>) {
    for file in files {
        // SAFETY: the call takes no pointer, and marks a file without closing it;
        // of a number that is no file's it says so.
        unsafe { libc::fcntl(file.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// The command as a user would type it, for messages.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

enum Ending {
    Exited(ExitStatus),
    Interrupted,
    Overdue(Overdue),
}

/// A running tool and all it started; dropped, it is killed and reaped.
struct Group {
    child: Child,
    pid: Pid,
    /// Readable once the child has ended, while its group still has its number.
    exited: OwnedFd,
    reaped: bool,
}

impl Group {
    fn spawn(command: &mut Command) -> Result<Self, ProcessError> {
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        die_with_parent(command, Signal::TERM);
        let mut child = command
            .spawn()
            .map_err(|source| start_error(command, source))?;
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(exited) => Ok(Self {
                child,
                pid,
                exited,
                reaped: false,
            }),
            Err(errno) => {
                let _ = kill_process_group(pid, Signal::KILL);
                let _ = child.wait();
                Err(ProcessError::Start {
                    program: command.get_program().to_string_lossy().into_owned(),
                    source: errno.into(),
                })
            }
        }
    }

    /// Passes output on until the child ends, by itself or by the interrupt, or
    /// is overdue.
    fn watch(
        mut self,
        limit: Option<Limit>,
        interrupt: &Interrupt,
        on_output: &mut dyn FnMut(Stream, &[u8]),
    ) -> io::Result<Ending> {
        let mut clock = limit.map(|limit| Clock::start(limit, self.pid));
        let stdout = self.child.stdout.take().map(OwnedFd::from);
        let stderr = self.child.stderr.take().map(OwnedFd::from);
        let mut pipes = [
            Pipe::new(Stream::Stdout, stdout)?,
            Pipe::new(Stream::Stderr, stderr)?,
        ];
        let mut kill_at = None;
        loop {
            let heeded = kill_at.is_none().then_some(interrupt);
            let until = kill_at.or(clock.as_ref().and_then(Clock::next_look));
            let [exited, interrupted] = self.wait_for_news(&pipes, heeded, until)?;
            for pipe in &mut pipes {
                if pipe.drain(on_output)?
                    && let Some(clock) = &mut clock
                {
                    clock.hear();
                }
            }
            if exited {
                break;
            }
            if kill_at.is_some_and(|at| Instant::now() >= at) {
                kill_process_group(self.pid, Signal::KILL)?;
                kill_at = Some(Instant::now() + GRACE);
            } else if interrupted {
                kill_process_group(self.pid, Signal::TERM)?;
                kill_at = Some(Instant::now() + GRACE);
            } else if kill_at.is_none()
                && let Some(overdue) = clock.as_mut().and_then(Clock::look)
            {
                return Ok(Ending::Overdue(overdue));
            }
        }
        for pipe in &mut pipes {
            pipe.drain(on_output)?;
        }
        let status = self.reap()?;
        Ok(match kill_at {
            None => Ending::Exited(status),
            Some(_) => Ending::Interrupted,
        })
    }

    /// Whether the child has ended, and whether the interrupt came; it waits for
    /// either, for output, or for the moment `until`.
    fn wait_for_news(
        &self,
        pipes: &[Pipe; 2],
        interrupt: Option<&Interrupt>,
        until: Option<Instant>,
    ) -> io::Result<[bool; 2]> {
        let watched = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![watched(self.exited.as_fd())];
        fds.extend(interrupt.map(|interrupt| watched(interrupt.as_fd())));
        fds.extend(pipes.iter().filter_map(Pipe::as_fd).map(watched));
        let timeout = until.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |index: usize| !fds[index].revents().is_empty();
        Ok([ready(0), interrupt.is_some() && ready(1)])
    }

    /// Kills what is left of the group, then reaps the child: until then the
    /// group's number cannot belong to anybody else.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        let _ = kill_process_group(self.pid, Signal::KILL);
        let status = self.child.wait()?;
        self.reaped = true;
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        let _ = kill_process_group(self.pid, Signal::KILL);
        // One that waits in the kernel for what does not come is left to init(1).
        let grace = Timespec::try_from(GRACE).ok();
        let mut exited = [PollFd::new(&self.exited, PollFlags::IN)];
        let ended = retry_on_intr(|| poll(&mut exited, grace.as_ref()));
        if ended.is_ok_and(|ready| ready > 0) {
            let _ = self.reap();
        }
    }
}

/// One of the tool's output streams.
struct Pipe {
    stream: Stream,
    /// `None` once the other end is closed.
    fd: Option<OwnedFd>,
}

impl Pipe {
    fn new(stream: Stream, fd: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(fd) = &fd {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Self { stream, fd })
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there, up to what a pipe holds, so that no stream starves
    /// the other; gives whether there was anything.
    fn drain(&mut self, on_output: &mut dyn FnMut(Stream, &[u8])) -> io::Result<bool> {
        let mut any = false;
        let mut buffer = [0; 16 * 1024];
        for _ in 0..PIPE_CAPACITY / buffer.len() {
            let Some(fd) = &self.fd else { break };
            match rustix::io::read(fd, &mut buffer) {
                Ok(0) => self.fd = None,
                Ok(read) => {
                    any = true;
                    on_output(self.stream, &buffer[..read]);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(any)
    }
}

#[cfg(test)]
pub(crate) mod tests;
