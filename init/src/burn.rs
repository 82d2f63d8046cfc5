//! The CPU burn: threads that do rounds of arithmetic for a share of the time.

use core::hint::black_box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{Timespec, futex};
use tty_init::duty::Duty;
use tty_init::parameters::MAX_THREADS;
use tty_init::protocol;

use crate::failure::{Context, Failure};
use crate::sys::shared::SHARED;
use crate::sys::{clock, thread};

/// Not private: the futex lies in memory that other processes share.
const FUTEX: futex::Flags = futex::Flags::empty();

/// Steps of the generator in one round. Short against the 1 ms that one percent
/// of a period lasts, long against a system call and the counting.
const STEPS: u32 = 4096;

const PERIOD_NS: u64 = 100_000_000;
const PERCENT_NS: u64 = PERIOD_NS / 100;

/// The burn yields to PID 1, so that the console answers at once.
const NICE: i32 = 19;

/// The burn threads.
pub(crate) struct Burn {
    /// Threads that burn, once any does.
    threads: u16,
    started: u16,
}

impl Burn {
    /// No threads yet; `threads` of them from the first duty above 0.
    pub(crate) fn new(threads: u16) -> Self {
        SHARED.threads.store(threads.into(), Ordering::Relaxed);
        Self {
            threads,
            started: 0,
        }
    }

    /// Burns so much of the time from now on.
    ///
    /// Threads that the kernel refuses are done without.
    pub(crate) fn set(&mut self, duty: Duty) -> Result<(), Failure> {
        let now = clock::boottime_ms();
        SHARED.set_ms.store(now, Ordering::Relaxed);
        SHARED.set_rounds.store(rounds(), Ordering::Relaxed);
        SHARED.duty.store(duty.percent().into(), Ordering::Relaxed);
        // A SIGHUP of somebody else's changes nothing.
        SHARED
            .wanted
            .store(duty.percent().into(), Ordering::Relaxed);
        if self.started > 0 {
            let _ = futex::wake(&SHARED.duty, FUTEX, MAX_THREADS.into());
        }
        if duty.percent() == 0 {
            return Ok(());
        }
        while self.started < self.threads {
            if let Err(error) = thread::spawn(burn).context("burn thread") {
                self.threads = self.started;
                SHARED.threads.store(self.threads.into(), Ordering::Relaxed);
                return Err(error);
            }
            self.started += 1;
        }
        Ok(())
    }

    /// Burns as a connection asked for by [`ask`].
    pub(crate) fn obey(&mut self) -> Result<(), Failure> {
        self.set(percent(&SHARED.wanted))
    }
}

/// Asks PID 1, from another process, to burn so much of the time.
pub(crate) fn ask(duty: Duty) -> Result<(), Failure> {
    SHARED
        .wanted
        .store(duty.percent().into(), Ordering::Relaxed);
    kill_process(Pid::INIT, Signal::HUP).context("kill")
}

/// What the burn does and did.
pub(crate) fn status() -> protocol::Burn {
    protocol::Burn {
        duty: percent(&SHARED.duty).percent(),
        threads: SHARED
            .threads
            .load(Ordering::Relaxed)
            .try_into()
            .unwrap_or_default(),
        rounds: rounds(),
    }
}

/// Rounds a second since the duty was last set.
pub(crate) fn rate() -> u64 {
    let done = rounds().saturating_sub(SHARED.set_rounds.load(Ordering::Relaxed));
    let time = clock::boottime_ms().saturating_sub(SHARED.set_ms.load(Ordering::Relaxed));
    done * 1000 / time.max(1)
}

/// Puts all threads to sleep.
pub(crate) fn stop() {
    SHARED.duty.store(0, Ordering::Relaxed);
}

fn rounds() -> u64 {
    let each = SHARED.rounds.iter();
    each.map(|rounds| rounds.load(Ordering::Relaxed)).sum()
}

/// A duty that was stored as one.
fn percent(place: &AtomicU32) -> Duty {
    u8::try_from(place.load(Ordering::Relaxed))
        .ok()
        .and_then(|percent| percent.try_into().ok())
        .unwrap_or(Duty::FULL)
}

extern "C" fn burn(number: usize) -> ! {
    // Refused to nobody: it asks for less.
    let _ = rustix::process::setpriority_process(None, NICE);
    let rounds = &SHARED.rounds[number % SHARED.rounds.len()];
    loop {
        match SHARED.duty.load(Ordering::Relaxed) {
            0 => {
                let _ = futex::wait(&SHARED.duty, FUTEX, 0, None);
            }
            100 => round(rounds),
            duty => share(duty, rounds),
        }
    }
}

/// Burns for a share of each period until the duty is another.
///
/// Periods end at fixed times: a timer that comes late makes one of them late,
/// not all that follow.
fn share(duty: u32, rounds: &AtomicU64) {
    let mut period_end = clock::monotonic_ns();
    while SHARED.duty.load(Ordering::Relaxed) == duty {
        let now = clock::monotonic_ns();
        period_end = period_end.max(now.saturating_sub(PERIOD_NS)) + PERIOD_NS;
        let stop = now + u64::from(duty) * PERCENT_NS;
        while clock::monotonic_ns() < stop && SHARED.duty.load(Ordering::Relaxed) == duty {
            round(rounds);
        }
        let left = period_end.saturating_sub(clock::monotonic_ns());
        if let Ok(tv_nsec) = i64::try_from(left)
            && left > 0
        {
            let left = Timespec { tv_sec: 0, tv_nsec };
            let _ = futex::wait(&SHARED.duty, FUTEX, duty, Some(&left));
        }
    }
}

/// One round: [`STEPS`] steps of a linear congruential generator (Knuth's
/// MMIX), each of which needs the one before.
fn round(rounds: &AtomicU64) {
    let done = rounds.load(Ordering::Relaxed);
    let mut state = done;
    for _ in 0..STEPS {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
    }
    black_box(state);
    // Only this thread writes here.
    rounds.store(done + 1, Ordering::Relaxed);
}
