//! A tool and all that it starts: one process group, watched and ended as one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::child::die_with_parent;
use super::clock::{Clock, Limit, Overdue};
use super::error::{ProcessError, start_error};
use crate::interrupt::{Interrupt, poll_until};

/// What a pipe holds, in bytes: the default of pipe(7).
const PIPE_CAPACITY: usize = 64 * 1024;
/// What a group gets between SIGTERM and SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Takes what a tool writes.
pub(super) type Output<'a> = dyn FnMut(Stream, &[u8]) -> io::Result<()> + 'a;

pub(super) enum Ending {
    Exited(ExitStatus),
    Interrupted,
    Overdue(Overdue),
}

/// A running tool and all it started; dropped, it is killed and reaped.
pub(super) struct Group {
    child: Child,
    pid: Pid,
    /// Readable once the child has ended, while its group still has its number.
    exited: OwnedFd,
    reaped: bool,
}

impl Group {
    /// Starts it in the C locale, with `input` as its standard input.
    pub(super) fn spawn(command: &mut Command, input: Stdio) -> Result<Self, ProcessError> {
        command
            .env("LC_ALL", "C")
            .stdin(input)
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

    /// Passes output on until the child ends, by itself or by the interrupt, is
    /// overdue, or says what cannot be passed on.
    pub(super) fn watch(
        mut self,
        limit: Option<Limit>,
        interrupt: &Interrupt,
        on_output: &mut Output<'_>,
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
        poll_until(&mut fds, until)?;
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
        let mut exited = [PollFd::new(&self.exited, PollFlags::IN)];
        if poll_until(&mut exited, Some(Instant::now() + GRACE)).unwrap_or(false) {
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
    fn drain(&mut self, on_output: &mut Output<'_>) -> io::Result<bool> {
        let mut any = false;
        let mut buffer = [0; 16 * 1024];
        for _ in 0..PIPE_CAPACITY / buffer.len() {
            let Some(fd) = &self.fd else { break };
            match rustix::io::read(fd, &mut buffer) {
                Ok(0) => self.fd = None,
                Ok(read) => {
                    any = true;
                    on_output(self.stream, &buffer[..read])?;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(any)
    }
}
