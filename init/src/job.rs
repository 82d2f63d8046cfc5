//! Runs a command of the console that may take long or print much, in a process of
//! its own. Its output becomes replies as the console takes them.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use tty_init::command::Command;
use tty_init::protocol::reply_part;

use crate::console::Console;
use crate::failure::{Context, Failure};
use crate::run::run;
use crate::status::Phase;
use crate::streams::Pipe;
use crate::sys::clock;
use crate::sys::process::{Forked, exit, fork};

/// How long a command may take. The console has no Ctrl-C.
const LIMIT_MS: u64 = 60_000;
/// The exit code of one that took longer, as timeout(1) has it.
const TIMED_OUT: u8 = 124;

/// The command that runs.
pub(crate) struct Job {
    pid: Pid,
    tag: Option<u32>,
    end_ms: u64,
    /// Until its output ends.
    output: Option<OwnedFd>,
    /// Output that no reply has carried yet.
    held: [u8; 512],
    length: usize,
    /// Known once the process has ended.
    code: Option<u8>,
}

impl Job {
    /// Starts the command.
    pub(crate) fn start(
        command: Command<'_>,
        tag: Option<u32>,
        phase: Phase,
    ) -> Result<Self, Failure> {
        let (output, its_output) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        match fork().context("fork")? {
            Forked::Child => {
                drop(output);
                exit(run(command, phase, &mut Pipe(its_output)).unwrap_or(1))
            }
            Forked::Parent(pid) => Ok(Self {
                pid,
                tag,
                end_ms: clock::boottime_ms() + LIMIT_MS,
                output: Some(output),
                held: [0; 512],
                length: 0,
                code: None,
            }),
        }
    }

    /// What to wait for, unless there is no room for more.
    pub(crate) fn output(&self) -> Option<BorrowedFd<'_>> {
        let room = self.length < self.held.len();
        self.output.as_ref().filter(|_| room).map(AsFd::as_fd)
    }

    /// How many milliseconds it may still take.
    pub(crate) fn left_ms(&self) -> u64 {
        self.end_ms.saturating_sub(clock::boottime_ms())
    }

    /// Takes note of the end of the process, if it is this one's.
    pub(crate) fn ended(&mut self, pid: Pid, code: u8) {
        if pid == self.pid {
            self.code = Some(code);
        }
    }

    /// Carries output to the console while it has room; `ready` tells that there
    /// is output to read. `true` once the last reply is sent.
    pub(crate) fn go_on(&mut self, ready: bool, console: &mut Console) -> bool {
        if clock::boottime_ms() >= self.end_ms {
            let _ = kill_process(self.pid, Signal::KILL);
            console.reply(self.tag, TIMED_OUT, "took longer than 60 s");
            return true;
        }
        if let (Some(output), true) = (&self.output, ready) {
            match rustix::io::read(output, &mut self.held[self.length..]) {
                Ok(count @ 1..) => self.length += count,
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => self.output = None,
            }
        }
        let code = self.code.filter(|_| self.output.is_none());
        while console.has_room() {
            let text = readable(&mut self.held[..self.length], self.output.is_none());
            let part = reply_part(text);
            let taken = part.len();
            let is_last = code.is_some() && taken == self.length;
            if is_last || taken > 0 {
                console.reply_part(self.tag, code.unwrap_or_default(), part, !is_last);
                self.held.copy_within(taken..self.length, 0);
                self.length -= taken;
            }
            if is_last || taken == 0 {
                return is_last;
            }
        }
        false
    }
}

/// The longest text at the start, each byte that is none replaced by `?`;
/// unless it is `all` there is, a character that is cut waits for its rest.
pub(crate) fn readable(bytes: &mut [u8], all: bool) -> &str {
    let end = loop {
        let Err(error) = core::str::from_utf8(bytes) else {
            break bytes.len();
        };
        let start = error.valid_up_to();
        let bad = match error.error_len() {
            Some(length) => length,
            None if all => bytes.len() - start,
            None => break start,
        };
        bytes[start..start + bad].fill(b'?');
    };
    core::str::from_utf8(&bytes[..end]).unwrap_or_default()
}
