//! The console: messages and log lines out, bytes in, and never a wait.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{ControlModes, OptionalActions, tcgetattr, tcsetattr};
use rustix::thread::{Timespec, nanosleep};
use tty_init::identity::Id;
use tty_init::protocol::{LINE_MAX, Line, Message, Stamp, Status};

use crate::sys::{clock, serial};
use crate::text::Text;

/// Bytes kept for a console that is not read. The kernel keeps 4 KiB before it
/// refuses a write, so this holds the rest of a line that it took in part, and
/// one more.
const QUEUE: usize = 2 * (LINE_MAX + 1);

/// How long the end waits for the last lines to leave, and how often it looks.
const DRAIN_NS: u64 = 1_000_000_000;
const DRAIN_STEP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// Messages so far; global, because a panic's message counts on from here.
static SEQUENCE: AtomicU64 = AtomicU64::new(0);
/// The two halves of the padded id; zero before the guest has one.
static ID: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// An end of the guest that somebody asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    PowerOff,
    Reboot,
}

/// Counts messages from 0 again.
pub(crate) fn count_anew() {
    SEQUENCE.store(0, Ordering::Relaxed);
}

/// Sets the id that every message from now on carries.
pub(crate) fn set_id(id: Id) {
    let padded = u128::from_ne_bytes(id.padded());
    #[expect(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
    let halves = [padded as u64, (padded >> 64) as u64];
    for (place, half) in ID.iter().zip(halves) {
        place.store(half, Ordering::Relaxed);
    }
}

/// The guest's id, once it has one.
pub(crate) fn id() -> Option<Id> {
    let [low, high] = [0, 1].map(|half| u128::from(ID[half].load(Ordering::Relaxed)));
    Id::from_padded((high << 64 | low).to_ne_bytes()).ok()
}

fn stamp(id: Option<&Id>) -> Stamp<&str> {
    Stamp {
        id: id.map_or("", Id::as_str),
        ms: clock::age_ms(),
        seq: SEQUENCE.fetch_add(1, Ordering::Relaxed),
    }
}

/// The console's device, and the lines that it has not taken yet.
pub(crate) struct Console {
    /// `None` when there is no console, or it hung up: what is written is lost
    /// then, and the guest lives on.
    tty: Option<OwnedFd>,
    queue: [u8; QUEUE],
    queued: usize,
}

impl Console {
    /// Opens the serial line, or else whatever the kernel has for a console.
    pub(crate) fn open() -> Self {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let tty = [c"/dev/ttyS0", c"/dev/console"]
            .into_iter()
            .find_map(|path| rustix::fs::open(path, flags, Mode::empty()).ok());
        if let Some(tty) = &tty {
            // Not a terminal, or one without a line behind it: write all the same.
            let _ = make_raw(tty);
        }
        Self {
            tty,
            queue: [0; QUEUE],
            queued: 0,
        }
    }

    /// What to wait for on the console's behalf, if there is one.
    pub(crate) fn waits_for(&self) -> (Option<BorrowedFd<'_>>, PollFlags) {
        let mut events = PollFlags::IN;
        if self.queued > 0 {
            events |= PollFlags::OUT;
        }
        (self.tty.as_ref().map(AsFd::as_fd), events)
    }

    /// Reads what the host sent, if anything.
    pub(crate) fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> &'b [u8] {
        let Some(tty) = &self.tty else { return &[] };
        match rustix::io::read(tty, &mut *buffer) {
            Ok(count @ 1..) => &buffer[..count],
            Err(Errno::AGAIN | Errno::INTR) => &[],
            Ok(0) | Err(_) => {
                self.hang_up();
                &[]
            }
        }
    }

    /// Closes a console that ended: it would be readable for ever.
    pub(crate) fn hang_up(&mut self) {
        self.tty = None;
        self.queued = 0;
    }

    /// Says that the guest is parked.
    pub(crate) fn parked(&mut self) {
        let id = id();
        self.send(Message::Parked {
            stamp: stamp(id.as_ref()),
        });
    }

    /// Says that the guest is poised.
    pub(crate) fn poised(&mut self) {
        let id = id();
        self.send(Message::Poised {
            stamp: stamp(id.as_ref()),
        });
    }

    /// Says that the guest does its work.
    pub(crate) fn ready(&mut self, status: Status) {
        let id = id();
        self.send(Message::Ready {
            stamp: stamp(id.as_ref()),
            status,
        });
    }

    /// Sends a sign of life.
    pub(crate) fn heartbeat(&mut self, status: Status) {
        let id = id();
        self.send(Message::Heartbeat {
            stamp: stamp(id.as_ref()),
            status,
        });
    }

    /// Answers a command.
    pub(crate) fn reply(&mut self, tag: Option<u32>, code: u8, output: &str) {
        self.reply_part(tag, code, output, false);
    }

    /// Answers a command in part, and with `more` to come.
    pub(crate) fn reply_part(&mut self, tag: Option<u32>, code: u8, output: &str, more: bool) {
        let id = id();
        self.send(Message::Reply {
            stamp: stamp(id.as_ref()),
            tag,
            code,
            output,
            more,
        });
    }

    /// Whether a line written now would not be lost.
    pub(crate) fn has_room(&self) -> bool {
        self.queued == 0
    }

    /// Says which end of the guest was asked for.
    pub(crate) fn end(&mut self, end: End) {
        let id = id();
        let stamp = stamp(id.as_ref());
        self.send(match end {
            End::PowerOff => Message::PowerOff { stamp },
            End::Reboot => Message::Reboot { stamp },
        });
    }

    /// Says why the guest cannot go on.
    pub(crate) fn fatal(&mut self, reason: &str) {
        let id = id();
        self.send(Message::Fatal {
            stamp: stamp(id.as_ref()),
            reason,
        });
    }

    /// Writes a line of plain text, as init's.
    pub(crate) fn log(&mut self, text: fmt::Arguments<'_>) {
        self.text(format_args!("tty-init: {text}"));
    }

    /// Writes a line of plain text.
    pub(crate) fn text(&mut self, text: fmt::Arguments<'_>) {
        let line = Text::<256>::line(text);
        self.put(line.as_str().as_bytes());
    }

    /// Writes as much of the queue as the console takes.
    pub(crate) fn flush(&mut self) {
        if self.queued > 0 {
            let taken = write(&mut self.tty, &self.queue[..self.queued]);
            self.queue.copy_within(taken..self.queued, 0);
            self.queued -= taken;
        }
    }

    /// Waits until the last line has left, a second at the most.
    pub(crate) fn drain(&mut self) {
        let end = clock::monotonic_ns() + DRAIN_NS;
        loop {
            self.flush();
            let Some(tty) = &self.tty else { return };
            // A line whose state is unknown is taken for drained.
            let drained = self.queued == 0 && serial::is_drained(tty).unwrap_or(true);
            if drained || clock::monotonic_ns() >= end {
                return;
            }
            let _ = nanosleep(&DRAIN_STEP);
        }
    }

    fn send(&mut self, message: Message<&str>) {
        let mut line = Line::new();
        if let Some(line) = message.encode(&mut line) {
            // On a line of its own, whatever others left without an end.
            let mut whole = [b'\n'; LINE_MAX + 1];
            let whole = &mut whole[..=line.len()];
            whole[1..].copy_from_slice(line);
            self.put(whole);
        }
    }

    /// Writes a line, or drops it whole: half a line would spoil the next.
    fn put(&mut self, line: &[u8]) {
        self.flush();
        let taken = match self.queued {
            0 => write(&mut self.tty, line),
            _ => 0,
        };
        let rest = &line[taken..];
        if let Some(room) = self.queue[self.queued..].get_mut(..rest.len()) {
            room.copy_from_slice(rest);
            self.queued += rest.len();
        }
    }
}

/// Writes to the console; gives the number of bytes taken, all of them if the
/// console is gone.
fn write(console: &mut Option<OwnedFd>, bytes: &[u8]) -> usize {
    let Some(tty) = console else {
        return bytes.len();
    };
    match rustix::io::write(tty, bytes) {
        Ok(taken) => taken,
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(_) => {
            *console = None;
            bytes.len()
        }
    }
}

/// Bytes as they are, and no echo: a host's commands must not come back to it.
fn make_raw(tty: &OwnedFd) -> Result<(), Errno> {
    let mut modes = tcgetattr(tty)?;
    modes.make_raw();
    // A host that goes away and comes back is no hang-up.
    modes.control_modes |= ControlModes::CLOCAL;
    tcsetattr(tty, OptionalActions::Now, &modes)
}
