//! The user's request to stop, as a value that is passed to whatever may take long.
//!
//! The first SIGINT, SIGTERM or SIGHUP is only recorded: work in progress sees it by
//! [`Interrupt::requested`], or by polling [`Interrupt::as_fd`], and undoes what it
//! began. A second SIGINT ends the process at once. If nohup(1) had SIGHUP ignored,
//! it stays ignored.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::sample::processes;

/// The exit code of a run that was interrupted.
pub const EXIT_CODE: u8 = 130;

/// Whether to stop; clones share one state.
#[derive(Debug, Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requested: Arc<AtomicBool>,
    /// Never read from: a byte in it makes it readable for ever.
    readable: UnixStream,
    /// Kept open, since a closed peer would make `readable` readable.
    writable: UnixStream,
}

/// A thread that is asked to end, and waited for, when this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    end: Interrupt,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts it; it ends soon after `end` is raised.
    pub(crate) fn start(end: Interrupt, work: impl FnOnce(&Interrupt) + Send + 'static) -> Self {
        let over = end.clone();
        Self {
            end,
            thread: Some(thread::spawn(move || work(&over))),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end.raise();
        if let Some(thread) = self.thread.take() {
            // What it panicked of has been printed.
            let _ = thread.join();
        }
    }
}

impl Interrupt {
    /// Takes over SIGINT, SIGTERM and SIGHUP of this process: the last not where
    /// it is ignored, by which nohup(1) asks to go on after a log-out. A shell's
    /// script has SIGINT ignored for what it starts with `&`, and yet may want to
    /// end it with that signal.
    ///
    /// # Errors
    /// When the process has no file descriptor left, or a signal handler cannot
    /// be set.
    pub fn install() -> io::Result<Self> {
        let interrupt = Self::never()?;
        let shared = &interrupt.shared;
        // Before the flag is registered: it must see the state that earlier signals left.
        flag::register_conditional_shutdown(
            SIGINT,
            i32::from(EXIT_CODE),
            Arc::clone(&shared.requested),
        )?;
        let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
            flag::register(signal, Arc::clone(&shared.requested))?;
            low_level::pipe::register(signal, shared.writable.try_clone()?)?;
        }
        Ok(interrupt)
    }

    /// One that no signal raises, for tests and for callers that handle signals
    /// themselves.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn never() -> io::Result<Self> {
        let (readable, writable) = UnixStream::pair()?;
        writable.set_nonblocking(true)?;
        Ok(Self {
            shared: Arc::new(Shared {
                requested: Arc::default(),
                readable,
                writable,
            }),
        })
    }

    /// Does what the first signal does.
    pub fn raise(&self) {
        self.shared.requested.store(true, Ordering::SeqCst);
        // A full buffer is readable already.
        let _ = (&self.shared.writable).write(&[0]);
    }

    /// One that is raised with this one, and can be raised without it.
    pub(crate) fn child(&self) -> io::Result<Self> {
        let child = Self::never()?;
        let (parent, raised) = (self.clone(), child.clone());
        thread::spawn(move || {
            while !parent.wait(Duration::MAX) {}
            raised.raise();
        });
        Ok(child)
    }

    /// Waits until a stop is asked for, but no longer than `time`; tells whether it
    /// was.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let until = Instant::now().checked_add(time);
        // Without memory for the wait there is none.
        let _ = poll_until(&mut [PollFd::new(self, PollFlags::IN)], until);
        self.requested()
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        self.shared.requested.load(Ordering::SeqCst)
    }
}

/// Returns once one of `events` has come, or it is `until`; tells whether one has.
///
/// A signal does not end the wait, but by an interrupt that is one of `events`.
pub(crate) fn poll_until(events: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // Longer than a Timespec holds is for ever.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(events, left.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

impl AsFd for Interrupt {
    /// Becomes readable with the first signal, and stays so; do not read from it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.readable.as_fd()
    }
}

/// Whether this process was started with a signal ignored; not, where /proc does
/// not tell.
fn is_ignored(signal: i32) -> bool {
    let ignored = processes::field(Path::new("/proc/self"), "status", "SigIgn");
    ignored
        .ok()
        .and_then(|mask| u64::from_str_radix(&mask, 16).ok())
        .is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {

    use super::*;

    fn readable(interrupt: &Interrupt) -> bool {
        poll_until(
            &mut [PollFd::new(interrupt, PollFlags::IN)],
            Some(Instant::now()),
        )
        .unwrap()
    }

    #[test]
    fn is_quiet_until_raised_and_readable_for_ever_after() {
        let interrupt = Interrupt::never().unwrap();
        let clone = interrupt.clone();
        assert!(!clone.requested() && !readable(&clone));
        interrupt.raise();
        assert!(clone.requested() && readable(&clone) && readable(&clone));
    }

    #[test]
    fn a_child_is_raised_with_its_parent_and_without_it() {
        let parent = Interrupt::never().unwrap();
        let [alone, with_it] = [(); 2].map(|()| parent.child().unwrap());
        alone.raise();
        assert!(alone.requested() && !parent.requested() && !with_it.requested());
        parent.raise();
        assert!(with_it.wait(Duration::MAX));
    }

    #[test]
    fn an_ignored_signal_is_known() {
        // Which Rust has ignored in every program.
        assert!(is_ignored(signal_hook::consts::SIGPIPE));
        assert!(!is_ignored(SIGTERM));
    }

    #[test]
    fn a_signal_raises_it() {
        let interrupt = Interrupt::install().unwrap();
        low_level::raise(SIGTERM).unwrap();
        assert!(interrupt.requested() && readable(&interrupt));
    }
}
