//! The way of this process's output to stdout and stderr.
//!
//! A reader that does not read, or a terminal that is paused (Ctrl-S), blocks the
//! writer. So a thread writes, and everybody else only puts text into its queue. A
//! full queue drops new text and reports how much it dropped. If both streams are
//! one file, they share a thread and a queue, so that their texts stay in order.
//!
//! The streams belong to the process, and so does this state.

use std::io::{self, IsTerminal as _};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::stdio::{stderr, stdout};
use rustix::termios::tcgetwinsize;

use crate::interrupt::{Interrupt, poll_until};
use lane::Lane;

mod lane;
mod queue;
mod terminal;

pub(crate) use queue::Stream;
pub(crate) use terminal::Terminal;

/// Most bytes that wait for a stream: some thousands of lines.
const ROOM: usize = 4 << 20;
/// How long a stream may take nothing at the end of a run that the user asked to
/// stop.
const PATIENCE: Duration = Duration::from_secs(1);
/// Columns of a terminal that does not say how many it has.
const COLUMNS: u16 = 80;

static OUTLETS: OnceLock<Outlets> = OnceLock::new();

/// Run before each write to stderr, which is left out where this fails.
type Guard = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

static STDERR_GUARD: OnceLock<Guard> = OnceLock::new();

struct Outlets {
    stdout: Arc<Lane>,
    stderr: Arc<Lane>,
}

impl Outlets {
    fn lane(&self, stream: Stream) -> &Lane {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    fn are_one(&self) -> bool {
        Arc::ptr_eq(&self.stdout, &self.stderr)
    }
}

/// Has threads write from here on. Until then what is said is written at once.
pub(crate) fn start() -> io::Result<()> {
    let stderr = Lane::start(ROOM, write)?;
    let stdout = if are_one_file() {
        Arc::clone(&stderr)
    } else {
        Lane::start(ROOM, write)?
    };
    // Whoever started them before has them.
    let _ = OUTLETS.set(Outlets { stdout, stderr });
    Ok(())
}

/// Says something, which is dropped if the stream has not taken what was said
/// before.
pub(crate) fn offer(stream: Stream, bytes: Vec<u8>) {
    match OUTLETS.get() {
        Some(outlets) => outlets.lane(stream).offer(stream, bytes),
        None => drop(write(stream, &bytes)),
    }
}

/// Says something that is not dropped; for what is said a few times in a run.
pub(crate) fn insist(stream: Stream, bytes: Vec<u8>) {
    match OUTLETS.get() {
        Some(outlets) => outlets.lane(stream).insist(stream, bytes),
        None => drop(write(stream, &bytes)),
    }
}

/// Has `line` make what stands in the place of so many pieces that were dropped.
pub(crate) fn on_loss(stream: Stream, line: impl Fn(u64) -> Vec<u8> + Send + 'static) {
    if let Some(outlets) = OUTLETS.get() {
        outlets.lane(stream).on_loss(stream, Box::new(line));
    }
}

/// Has `guard` run before each write to stderr, which is left out where it fails.
/// It must say nothing itself.
pub(crate) fn guard_stderr(guard: impl Fn() -> io::Result<()> + Send + Sync + 'static) {
    // Whoever came before guards it.
    let _ = STDERR_GUARD.set(Box::new(guard));
}

/// Returns once what was said on stderr is written.
pub(crate) fn settle() {
    if let Some(outlets) = OUTLETS.get() {
        outlets.stderr.settle();
    }
}

/// Has who is about to write to stdout come after what was said on stderr before,
/// where that is the same file.
pub(crate) fn keep_order() {
    if OUTLETS.get().is_some_and(Outlets::are_one) {
        settle();
    }
}

/// Returns once all that was said is written, or cannot be. After the user's
/// interrupt it gives up a stream that takes nothing for a second.
///
/// # Errors
/// The first with which stdout did not take what it was to; that its reader went
/// away is none.
pub(crate) fn finish(interrupt: &Interrupt) -> io::Result<()> {
    let Some(outlets) = OUTLETS.get() else {
        return Ok(());
    };
    for lane in [&outlets.stdout, &outlets.stderr] {
        lane.finish(interrupt, PATIENCE);
    }
    match outlets.stdout.failure(Stream::Stdout) {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// A terminal on stderr whose drawings take this way; `None` where stderr is
/// something else.
pub(crate) fn terminal() -> Option<Terminal> {
    let columns = || {
        let size = tcgetwinsize(stderr()).ok()?;
        Some(size.ws_col).filter(|columns| *columns > 0)
    };
    io::stderr().is_terminal().then(|| {
        Terminal::new(
            move || columns().unwrap_or(COLUMNS),
            |drawing| offer(Stream::Stderr, drawing),
        )
    })
}

fn are_one_file() -> bool {
    match (fstat(stdout()), fstat(stderr())) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

fn write(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    match stream {
        Stream::Stdout => write_all(stdout(), bytes),
        Stream::Stderr => {
            STDERR_GUARD.get().map_or(Ok(()), |guard| guard())?;
            write_all(stderr(), bytes)
        }
    }
}

/// Writes to a file that another program may have made non-blocking.
fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => drop(poll_until(&mut [PollFd::new(&file, PollFlags::OUT)], None)),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
