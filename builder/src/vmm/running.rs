//! A guest's VMM while it lives: the process, its console and its last words.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::AddAssign;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, connect};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::monitor::Monitor;
use super::{Chance, End, Lifetime};
use crate::lines::LineBuffer;
use crate::private::is_served_by_us;
use crate::sample::schedule::Schedule;

/// Most taken from one stream in a turn, so that a flood starves nobody; a read
/// that goes beyond is the last.
const TURN_MAX: Amount = Amount {
    bytes: 8 * 1024,
    lines: 512,
};
/// Most taken from a console in a second. Beyond, the VMM's own buffer fills and
/// the guest loses output, not the supervisor its time; a line takes some,
/// however short it is.
const SECOND_MAX: Amount = Amount {
    bytes: 512 * 1024,
    lines: 8 * 1024,
};
const SECOND: Duration = Duration::from_secs(1);
/// Most bytes of users that wait for a console that takes none.
const OUTGOING_MAX: usize = 16 * 1024;
/// Most bytes of our own that wait behind those.
const OWN_MAX: usize = 1024;
/// A VMM's stderr is cut when it is longer, in bytes.
const ERRORS_MAX: u64 = 256 * 1024;

/// So much of what a guest says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    /// Bytes, with those that end lines.
    pub bytes: usize,
    /// Lines.
    pub lines: usize,
}

impl Amount {
    /// Whether it is as much as `most` in either.
    pub(crate) fn reaches(self, most: Self) -> bool {
        self.bytes >= most.bytes || self.lines >= most.lines
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.lines += more.lines;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Console,
    /// The VMM's end, which its pidfd tells.
    End,
    /// The VMM's monitor, while it is asked.
    Monitor,
}

/// What there may still be to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    /// Nothing: the poll set tells when there is.
    Nothing,
    /// More, once others had their turn.
    Now,
    /// More, but not before this moment.
    Later(Instant),
}

/// What belongs to a guest that lives.
#[derive(Debug)]
pub(crate) struct Running {
    pid: Pid,
    pidfd: OwnedFd,
    /// Of a VMM that this process started; the end of another one's is noticed by
    /// its pidfd alone.
    child: Option<Child>,
    console: UnixStream,
    /// An adopted one's console may not take a connection for a while.
    is_connected: bool,
    lines: LineBuffer,
    /// What the console did not take at once.
    outgoing: Vec<u8>,
    /// When the present second of reading began, and what it brought.
    second: (Instant, Amount),
    /// How much of the VMM's stderr has been read, in bytes.
    errors_read: u64,
    /// What of it has not come to a line's end yet.
    errors: LineBuffer,
    /// What its threads had got when [`Running::chance`] began to count.
    counts_from: Option<(Instant, Schedule)>,
    monitor: Monitor,
    /// It was sent SIGKILL from here.
    killed: bool,
    /// Guests on trial are killed when this value is dropped.
    lifetime: Lifetime,
}

impl Running {
    /// Takes charge of a VMM just started, whose console is connected.
    pub(crate) fn started(
        mut child: Child,
        console: std::os::unix::net::UnixStream,
        errors_read: u64,
        lifetime: Lifetime,
    ) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let prepared = pidfd_open(pid, PidfdFlags::NONBLOCK)
            .map_err(io::Error::from)
            .and_then(|pidfd| console.set_nonblocking(true).map(|()| pidfd));
        match prepared {
            Ok(pidfd) => {
                let mut running = Self::adopted(pid, pidfd, console, errors_read)?;
                running.is_connected = true;
                running.child = Some(child);
                running.lifetime = lifetime;
                running.counts_from = Some((Instant::now(), Schedule::NONE));
                Ok(running)
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Takes charge of a VMM that another process started, `console` being a
    /// socket to connect to its console by [`Running::connect`]. What its stderr
    /// held so far, in bytes, is passed over.
    pub(crate) fn adopted(
        pid: Pid,
        pidfd: OwnedFd,
        console: std::os::unix::net::UnixStream,
        errors_read: u64,
    ) -> io::Result<Self> {
        console.set_nonblocking(true)?;
        Ok(Self {
            pid,
            pidfd,
            child: None,
            console: UnixStream::from_std(console),
            is_connected: false,
            lines: LineBuffer::default(),
            outgoing: Vec::new(),
            second: (Instant::now(), Amount::default()),
            errors_read,
            errors: LineBuffer::default(),
            counts_from: None,
            monitor: Monitor::default(),
            killed: false,
            lifetime: Lifetime::Own,
        })
    }

    /// Connects to the console of an adopted VMM that runs under this user id, if
    /// it has one of its own; `false` if that takes nobody for now.
    ///
    /// QEMU lets two wait (it listens again, with a backlog of 1). Those that
    /// supervisors left that died go once it runs again, if it is stopped or gets
    /// no CPU time now.
    pub(crate) fn connect(&mut self, path: &Path, user: Option<u32>) -> io::Result<bool> {
        if !self.is_connected && !self.killed {
            match connect(&self.console, &SocketAddrUnix::new(path)?) {
                Ok(()) => is_served_by_us(&self.console, user)?,
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
            // From here on it can be asked.
            self.is_connected = true;
            self.counts_from = None;
            // QEMU may have read the start of a line from a supervisor that died.
            self.outgoing.insert(0, b'\n');
            self.flush();
        }
        Ok(true)
    }

    /// Has `registry` tell of each source by the token that it is given.
    pub(crate) fn register(
        &mut self,
        registry: &Registry,
        token: impl Fn(Source) -> Token,
    ) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.console, token(Source::Console), both)?;
        let mut pidfd = SourceFd(&self.pidfd.as_raw_fd());
        registry.register(&mut pidfd, token(Source::End), Interest::READABLE)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Process id of the VMM.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().cast_unsigned()
    }

    pub(crate) fn kill(&mut self) {
        self.killed = true;
        // It may have ended in between, which is what is wanted.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Ends a VMM that nobody can listen to.
    pub(crate) fn kill_and_wait(&mut self) {
        self.kill();
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }

    /// Reads lines of the console, up to a bound; gives how much that was, too.
    pub(crate) fn read(&mut self, now: Instant, lines: &mut Vec<Vec<u8>>) -> (Amount, More) {
        if now.duration_since(self.second.0) >= SECOND {
            self.second = (now, Amount::default());
        }
        if self.second.1.reaches(SECOND_MAX) {
            return (Amount::default(), More::Later(self.second.0 + SECOND));
        }
        let taken = read_lines(&mut self.console, &mut self.lines, TURN_MAX, |line| {
            lines.push(line.to_vec());
        });
        self.second.1 += taken;
        let more = if taken.reaches(TURN_MAX) {
            More::Now
        } else {
            More::Nothing
        };
        (taken, more)
    }

    /// Reads what is left of the console once the VMM has ended, with a last line
    /// that has no end; gives how much that was, too. Of more lines than a second
    /// brings, it gives the last.
    pub(crate) fn read_rest(&mut self) -> (Amount, Vec<Vec<u8>>) {
        let mut lines = VecDeque::new();
        let most = Amount {
            lines: usize::MAX,
            ..SECOND_MAX
        };
        let taken = read_lines(&mut self.console, &mut self.lines, most, |line| {
            if lines.len() == SECOND_MAX.lines {
                lines.pop_front();
            }
            lines.push_back(line.to_vec());
        });
        let rest = self.lines.rest();
        if !rest.is_empty() {
            lines.push_back(rest.to_vec());
        }
        (taken, lines.into())
    }

    /// Reads the lines that have ended in the VMM's stderr since, and cuts a file
    /// that grew too long. QEMU writes a message in pieces.
    pub(crate) fn read_errors(&mut self, path: &Path) -> io::Result<Vec<Vec<u8>>> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let mut lines = Vec::new();
        file.seek(SeekFrom::Start(self.errors_read))?;
        let mut text = Vec::new();
        self.errors_read += (&file).take(TURN_MAX.bytes as u64).read_to_end(&mut text)? as u64;
        self.errors.push(&text, |line| lines.push(line.to_vec()));
        if file.metadata()?.len() > ERRORS_MAX {
            // QEMU appends, so it goes on at the new end.
            file.set_len(0)?;
            self.errors_read = 0;
        }
        Ok(lines)
    }

    /// What the VMM wrote to stderr after the last line that ended, if anything.
    pub(crate) fn last_error(&self) -> Option<Vec<u8>> {
        let rest = self.errors.rest();
        (!rest.is_empty()).then(|| rest.to_vec())
    }

    /// How the VMM ended, once it has; `by_oom` tells whether the OOM killer sent
    /// a SIGKILL that nobody here sent.
    pub(crate) fn end(&mut self, by_oom: impl FnOnce() -> bool) -> io::Result<End> {
        use std::os::unix::process::ExitStatusExt as _;
        let Some(child) = &mut self.child else {
            return Ok(End::Unknown);
        };
        let status = child.wait()?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => End::Code(code),
            (None, Some(signal)) => End::Signal {
                signal,
                by_oom: signal == Signal::KILL.as_raw() && !self.killed && by_oom(),
            },
            (None, None) => End::Unknown,
        })
    }

    /// Sends a user's line; what the console does not take now goes later. `false`
    /// if too much waits for that already.
    pub(crate) fn type_line(&mut self, line: &str) -> bool {
        self.add(line, OUTGOING_MAX)
    }

    /// Sends a command of our own, for which there is room that users do not get.
    pub(crate) fn send(&mut self, command: &str) -> bool {
        self.add(command, OUTGOING_MAX + OWN_MAX)
    }

    fn add(&mut self, line: &str, most: usize) -> bool {
        let has_room = self.outgoing.len() + line.len() < most;
        if has_room {
            self.outgoing.extend_from_slice(line.as_bytes());
            self.outgoing.push(b'\n');
        }
        self.flush();
        has_room
    }

    /// Sends what the console did not take before.
    pub(crate) fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            match self.console.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Full: the poll set tells when it takes more. Broken: the
                // VMM is about to end, and its end is an event of its own.
                Err(_) => return,
            }
        }
        self.outgoing = Vec::new();
    }

    pub(crate) fn ask(&mut self) {
        self.counts_from = None;
        // A console that takes nothing is asked already.
        let _ = self.send("heartbeat");
    }

    /// Notes what the VMM's threads have had of the CPU, once for each question:
    /// [`Running::chance`] counts from here.
    pub(crate) fn note_silence(&mut self, now: Instant) {
        let pid = self.pid();
        self.counts_from
            .get_or_insert_with(|| (now, Schedule::of(pid)));
    }

    /// What the VMM's threads have had since it was found silent, was started or
    /// was seen to be stopped, whichever was last.
    pub(crate) fn chance(&mut self, now: Instant) -> Chance {
        let schedule = Schedule::of(self.pid());
        let (since, before) = *self.counts_from.get_or_insert((now, schedule));
        if schedule.stopped {
            self.counts_from = Some((now, schedule));
        }
        Chance {
            got: schedule.since(before),
            wall: now.duration_since(since),
        }
    }

    /// What is said to the VMM itself.
    pub(crate) fn monitor(&mut self) -> &mut Monitor {
        &mut self.monitor
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::WithParent {
            self.kill_and_wait();
        }
    }
}

/// Whether a socket that could not be connected to is gone.
pub(crate) fn is_out_of_reach(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Reads what is there until that reaches `most`; gives how much it was.
fn read_lines(
    stream: &mut impl io::Read,
    buffer: &mut LineBuffer,
    most: Amount,
    mut on_line: impl FnMut(&[u8]),
) -> Amount {
    let mut chunk = [0; 4096];
    let mut taken = Amount::default();
    while !taken.reaches(most) {
        match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return taken,
            Ok(read) => {
                taken.bytes += read;
                buffer.push(&chunk[..read], |line| {
                    taken.lines += 1;
                    on_line(line);
                });
            }
        }
    }
    taken
}

#[cfg(test)]
mod tests;
