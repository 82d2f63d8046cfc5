//! A guest's VMM while it runs: the process, its console and its last words.

use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Child, ExitStatus};

use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::unix::pipe::Receiver;
use mio::{Interest, Registry, Token};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::supervisor::Plan;
use crate::lines::LineBuffer;
use crate::vmm::qemu::{self, argv::argv};

/// Most bytes taken from one stream in a turn, so that a flood starves nobody.
const READ_MAX: usize = 64 * 1024;

/// Where something comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The guest's console.
    Console,
    /// The VMM's stderr.
    Vmm,
    /// The VMM's end, which its pidfd tells.
    End,
}

/// What belongs to a guest that runs; dropped, its VMM is killed and reaped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pidfd: OwnedFd,
    console: UnixStream,
    console_lines: LineBuffer,
    /// What the console did not take at once.
    outgoing: Vec<u8>,
    stderr: Receiver,
    stderr_lines: LineBuffer,
}

impl Running {
    pub(super) fn spawn(plan: &Plan) -> io::Result<Self> {
        let listener = UnixListener::bind(&plan.console)?;
        let console = std::os::unix::net::UnixStream::connect(&plan.console)?;
        console.set_nonblocking(true)?;
        let (mut child, stderr) = qemu::spawn(&argv(&plan.spec), listener)?;
        let stderr = Receiver::from(stderr);
        let prepared = pidfd_open(Pid::from_child(&child), PidfdFlags::NONBLOCK)
            .map_err(io::Error::from)
            .and_then(|pidfd| stderr.set_nonblocking(true).map(|()| pidfd));
        match prepared {
            Ok(pidfd) => Ok(Self {
                child,
                pidfd,
                console: UnixStream::from_std(console),
                console_lines: LineBuffer::default(),
                outgoing: Vec::new(),
                stderr,
                stderr_lines: LineBuffer::default(),
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Has `registry` tell of each source by the token that it is given.
    pub(super) fn register(
        &mut self,
        registry: &Registry,
        token: impl Fn(Source) -> Token,
    ) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.console, token(Source::Console), both)?;
        registry.register(&mut self.stderr, token(Source::Vmm), Interest::READABLE)?;
        let mut pidfd = SourceFd(&self.pidfd.as_raw_fd());
        registry.register(&mut pidfd, token(Source::End), Interest::READABLE)
    }

    /// Process id of the VMM.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the VMM a signal.
    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended in between, which is what is wanted.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Reads lines, up to a bound; tells whether there may be more at once.
    pub(super) fn read(&mut self, source: Source, lines: &mut Vec<Vec<u8>>) -> bool {
        match source {
            Source::Console => read_lines(&mut self.console, &mut self.console_lines, lines),
            Source::Vmm => read_lines(&mut self.stderr, &mut self.stderr_lines, lines),
            Source::End => false,
        }
    }

    /// Reads all that is left once the VMM has ended, a last line without its
    /// end included.
    pub(super) fn read_rest(&mut self, source: Source) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        while self.read(source, &mut lines) {}
        lines.push(match source {
            Source::Console => self.console_lines.rest().to_vec(),
            Source::Vmm | Source::End => self.stderr_lines.rest().to_vec(),
        });
        lines
    }

    /// Waits for the VMM's end.
    pub(super) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Sends a command; what the console does not take now goes later.
    pub(super) fn send(&mut self, command: &str) {
        self.outgoing.extend_from_slice(command.as_bytes());
        self.outgoing.push(b'\n');
        self.flush();
    }

    /// Sends what the console did not take before.
    pub(super) fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            match self.console.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Full: the poll set tells when it takes more. Broken: the
                // VMM is about to end, and its end is an event of its own.
                Err(_) => return,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Reads what is there, up to [`READ_MAX`]; tells whether there may be more.
fn read_lines(
    stream: &mut impl io::Read,
    buffer: &mut LineBuffer,
    lines: &mut Vec<Vec<u8>>,
) -> bool {
    let mut chunk = [0; 4096];
    let mut taken = 0;
    while taken < READ_MAX {
        match stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(read) => {
                taken += read;
                buffer.push(&chunk[..read], |line| lines.push(line.to_vec()));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}
