//! Signals as a file descriptor.

use rustix::fd::{FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;

use super::syscall;

const RT_SIGPROCMASK: usize = 14;
const SIGNALFD4: usize = 289;
const SIG_SETMASK: usize = 2;
const SFD_NONBLOCK_CLOEXEC: usize = 0o2_004_000;

const SIGHUP: u8 = 1;
const SIGINT: u8 = 2;
const SIGUSR1: u8 = 10;
const SIGUSR2: u8 = 12;
const SIGPIPE: u8 = 13;
const SIGTERM: u8 = 15;
const SIGCHLD: u8 = 17;

/// What comes through the descriptor, as a kernel signal set.
static TAKEN: u64 = set(&[SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGTERM, SIGCHLD]);
/// And what is turned away: a write to a pipe that nobody reads fails, and
/// that is enough.
static BLOCKED: u64 = TAKEN | set(&[SIGPIPE]);
static NONE: u64 = 0;

const fn set(signals: &[u8]) -> u64 {
    let mut set = 0;
    let mut index = 0;
    while index < signals.len() {
        set |= 1 << (signals[index] - 1);
        index += 1;
    }
    set
}

/// What a signal asks of PID 1. The numbers are those that BusyBox's and
/// SysV's `poweroff`, `halt` and `reboot` send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// A child ended.
    Child,
    /// A connection wants another duty (SIGHUP).
    Burn,
    /// Power off (SIGUSR1, SIGUSR2).
    PowerOff,
    /// Restart (SIGTERM, or SIGINT of Ctrl-Alt-Del).
    Reboot,
}

/// Signals that wait to be read.
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals, and makes them readable here.
    pub(crate) fn open() -> Result<Self, Errno> {
        set_mask(&BLOCKED)?;
        let set = (&raw const TAKEN).expose_provenance();
        let new = usize::MAX;
        // SAFETY: signalfd4(2) reads a set of eight bytes.
        let fd = unsafe {
            syscall(
                SIGNALFD4,
                [new, set, size_of::<u64>(), SFD_NONBLOCK_CLOEXEC],
            )
        }?;
        let fd = RawFd::try_from(fd).or(Err(Errno::BADF))?;
        // SAFETY: the kernel just made this descriptor, and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The descriptor that becomes readable when there is a signal.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// The next signal, if there is one.
    pub(crate) fn next(&self) -> Option<Signal> {
        // A signalfd_siginfo, which starts with the number.
        let mut info = [0; 128];
        let length = rustix::io::read(&self.0, &mut info).ok()?;
        (length == info.len()).then(|| match info[0] {
            SIGHUP => Signal::Burn,
            SIGUSR1 | SIGUSR2 => Signal::PowerOff,
            SIGTERM | SIGINT => Signal::Reboot,
            _ => Signal::Child,
        })
    }
}

/// Lets every signal through again, for a program that expects it so.
pub(crate) fn unblock() {
    // It fails for a bad address only.
    let _ = set_mask(&NONE);
}

fn set_mask(set: &'static u64) -> Result<(), Errno> {
    let set = (&raw const *set).expose_provenance();
    // SAFETY: rt_sigprocmask(2) reads a set of eight bytes and writes nothing,
    // the old set's pointer being null.
    unsafe { syscall(RT_SIGPROCMASK, [SIG_SETMASK, set, 0, size_of::<u64>()]) }.map(drop)
}
