//! Starts the reference's guests: as many at a time as there are CPUs to boot on, and
//! one more, and no more than the host has memory for.

use std::time::{Duration, Instant};

use super::Options;
use super::error::ReferenceError;
use super::guests::Guests;
use super::meter::Meter;
use crate::host;
use crate::interrupt::Interrupt;
use crate::progress::{self, Pulse};
use crate::sample::account::available;
use crate::units::ByteSize;

/// What a guest may take of the host while it boots, in bytes: Debian 12's kernel for
/// clouds and QEMU take 243 MiB under TCG.
const BOOTING: u64 = 320 << 20;
/// How long none may come up, before those that are not up are waited for no more.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often the guests' consoles are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How guests are started.
pub(super) struct Growth<'a> {
    wanted: u32,
    parallel: u32,
    keep_free: u64,
    settle: Duration,
    interrupt: &'a Interrupt,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Start,
    /// Some boot, or memory may become free.
    Wait,
    /// All that are to be, or that fit, are there.
    Stop,
}

/// How far it has come.
#[derive(Debug, Clone, Copy)]
struct State {
    count: u32,
    ready: u32,
    /// Memory beyond what is to stay free, in bytes.
    spare: u64,
    /// KSM frees no more.
    is_merged: bool,
    /// Since the last guest was started or came up.
    since: Duration,
}

impl<'a> Growth<'a> {
    pub(super) fn new(options: &Options<'a>) -> Self {
        Self {
            wanted: options.guests,
            parallel: u32::try_from(host::cpus())
                .unwrap_or(u32::MAX)
                .saturating_add(1),
            keep_free: options.keep_free,
            settle: options.settle,
            interrupt: options.interrupt,
        }
    }

    /// Sees that the host has memory for one.
    pub(super) fn see_room(&self) -> Result<(), ReferenceError> {
        let spare = self.spare();
        if spare >= BOOTING || self.wanted == 0 {
            return Ok(());
        }
        let spare = ByteSize::new(spare).map(|size| size.to_string());
        Err(ReferenceError::NoRoom {
            needed: ByteSize::new(BOOTING).expect("it is not zero"),
            available: spare.unwrap_or_else(|| "nothing".to_owned()),
        })
    }

    /// Memory beyond what is to stay free, in bytes.
    fn spare(&self) -> u64 {
        let free = available().unwrap_or_default();
        free.saturating_sub(self.keep_free)
    }

    /// Starts guests until all are up, or no more fit; tells how long it took.
    pub(super) fn run(
        &self,
        guests: &mut Guests<'_>,
        meter: &mut Meter,
    ) -> Result<Duration, ReferenceError> {
        let began = Instant::now();
        let (mut since, mut before) = (began, (0, 0));
        let bar = progress::bar(self.wanted.into(), "booting the baseline's guests");
        let mut pulse = Pulse::new(began);
        loop {
            guests.see_who_is_up()?;
            meter.go_on(guests)?;
            let now = (guests.count(), guests.ready());
            if now != before {
                (since, before) = (Instant::now(), now);
            }
            bar.set_position(now.1.into());
            if let Some(line) = pulse.line(&bar, Instant::now()) {
                tracing::info!("{line}");
            }
            let state = State {
                count: now.0,
                ready: now.1,
                spare: self.spare(),
                is_merged: meter.is_done(),
                since: since.elapsed(),
            };
            match self.next(state) {
                Next::Start => guests.start_next()?,
                Next::Wait if self.interrupt.wait(LOOK) => {
                    return Err(ReferenceError::Interrupted);
                }
                Next::Wait => {}
                Next::Stop => {
                    bar.finish_and_clear();
                    self.judge(guests, state)?;
                    return Ok(began.elapsed());
                }
            }
        }
    }

    /// Decides; pure.
    fn next(&self, state: State) -> Next {
        let booting = state.count - state.ready;
        let is_whole = state.count == self.wanted;
        let needed = BOOTING.saturating_mul(u64::from(booting) + 1);
        if booting > 0 {
            let may_start = !is_whole && booting < self.parallel && state.spare >= needed;
            return match () {
                () if may_start => Next::Start,
                () if state.since >= PATIENCE => Next::Stop,
                () => Next::Wait,
            };
        }
        if is_whole {
            Next::Stop
        } else if state.spare >= needed {
            Next::Start
        } else if state.count == 0 || state.is_merged || state.since >= self.settle {
            Next::Stop
        } else {
            Next::Wait
        }
    }

    /// Says what keeps the baseline from being whole; without a guest it is none.
    fn judge(&self, guests: &Guests<'_>, state: State) -> Result<(), ReferenceError> {
        if state.count == 0 {
            // It had it before the guests were put together.
            return self.see_room();
        }
        if state.ready == 0 {
            return Err(ReferenceError::NotReady {
                seconds: PATIENCE.as_secs(),
                words: guests.last_words(0),
            });
        }
        if state.count < self.wanted {
            tracing::warn!(
                "the baseline has {} of {} guests: no more fit beside the memory that is to stay \
                 free",
                state.count,
                self.wanted
            );
        }
        if state.ready < state.count {
            tracing::warn!(
                "{} of the baseline's {} guests did not come up",
                state.count - state.ready,
                state.count
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::guests::tests::{PORTS, on, stand_in};

    const MUCH: u64 = 1 << 40;

    fn next(count: u32, ready: u32, spare: u64, is_merged: bool, seconds: u64) -> Next {
        let interrupt = Interrupt::never().unwrap();
        let growth = Growth {
            wanted: 10,
            parallel: 3,
            keep_free: 0,
            settle: Duration::from_secs(60),
            interrupt: &interrupt,
        };
        growth.next(State {
            count,
            ready,
            spare,
            is_merged,
            since: Duration::from_secs(seconds),
        })
    }

    #[test]
    fn so_many_boot_at_a_time_and_then_all_are_waited_for() {
        assert_eq!(next(0, 0, MUCH, false, 0), Next::Start);
        assert_eq!(next(2, 0, MUCH, false, 0), Next::Start);
        assert_eq!(next(3, 0, MUCH, false, 0), Next::Wait);
        assert_eq!(next(5, 3, MUCH, false, 0), Next::Start);
        assert_eq!(next(10, 9, MUCH, false, 0), Next::Wait);
        assert_eq!(next(10, 9, MUCH, false, 600), Next::Stop);
        assert_eq!(next(10, 10, MUCH, false, 0), Next::Stop);
    }

    #[test]
    fn no_guest_is_started_that_the_memory_left_does_not_hold() {
        assert_eq!(next(0, 0, BOOTING - 1, false, 0), Next::Stop);
        assert_eq!(next(5, 4, 2 * BOOTING, false, 0), Next::Start);
        assert_eq!(next(5, 4, 2 * BOOTING - 1, true, 0), Next::Wait);
        // KSM may free some, as long as it has not settled and has time.
        assert_eq!(next(5, 5, BOOTING - 1, false, 0), Next::Wait);
        assert_eq!(next(5, 5, BOOTING - 1, true, 0), Next::Stop);
        assert_eq!(next(5, 5, BOOTING - 1, false, 60), Next::Stop);
    }

    #[test]
    fn an_interrupt_ends_the_wait_for_guests() {
        let folder = tempfile::tempdir().unwrap();
        let qemu = stand_in(folder.path());
        let interrupt = Interrupt::never().unwrap();
        let growth = Growth {
            wanted: 2,
            parallel: 2,
            keep_free: 0,
            settle: Duration::ZERO,
            interrupt: &interrupt,
        };
        let mut guests = Guests::new(on(&qemu), folder.path(), &PORTS);
        interrupt.raise();
        let ended = growth.run(&mut guests, &mut Meter::default());
        assert!(matches!(ended, Err(ReferenceError::Interrupted)));
        assert_eq!((guests.count(), guests.ready()), (2, 0));
    }

    #[test]
    fn a_host_without_room_for_one_is_told_before_anything_is_fetched() {
        let interrupt = Interrupt::never().unwrap();
        let growth = |wanted| Growth {
            wanted,
            parallel: 2,
            keep_free: u64::MAX,
            settle: Duration::ZERO,
            interrupt: &interrupt,
        };
        let error = growth(1).see_room().unwrap_err().to_string();
        assert!(
            error.contains("320 MiB") || error.contains("320M"),
            "{error}"
        );
        assert!(error.contains("the host has nothing beyond"), "{error}");
        growth(0).see_room().unwrap();
    }
}
