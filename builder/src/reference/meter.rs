//! What the reference's guests cost, by the readers that a fleet is measured with.

use std::path::Path;
use std::time::{Duration, Instant};

use super::error::ReferenceError;
use super::guests::Guests;
use crate::control::memory::{Processes, ksm_state};
use crate::control::types::{KsmState, Memory};
use crate::guest::merging::{Merging, Population};
use crate::interrupt::Interrupt;
use crate::progress;
use crate::sample::ksm;
use crate::system::{Doing as _, SystemError};

/// How often the guests' memory and KSM's counters are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What was seen of the guests' memory.
#[derive(Debug, Default)]
pub(super) struct Meter {
    merging: Merging,
    ksm: Option<KsmState>,
    /// Most that all guests took at any time, in bytes.
    peak: u64,
    looked: Option<Instant>,
}

impl Meter {
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// Looks again, if it is time to.
    pub(super) fn go_on(&mut self, guests: &Guests<'_>) -> Result<(), SystemError> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.look(guests)?;
        }
        Ok(())
    }

    fn look(&mut self, guests: &Guests<'_>) -> Result<Memory, SystemError> {
        self.looked = Some(Instant::now());
        let population = Population {
            up: guests.ready() as usize,
            living: guests.count() as usize,
        };
        let ksm = ksm::read(Path::new("/"), &mut Vec::new()).unwrap_or_default();
        self.ksm = ksm_state(&mut self.merging, &ksm, population);
        // There is no supervisor: whoever starts such guests by hand has a shell.
        let processes = Processes {
            fleet: String::new(),
            guests: guests.processes(),
            supervisor: None,
            handed: 0,
            charged: None,
            ksm: self.ksm,
        };
        let memory = processes
            .memory()
            .doing("read what guests of the baseline cost")?;
        self.peak = self.peak.max(memory.bytes);
        Ok(memory)
    }

    /// Whether KSM is not going to free any more memory.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.ksm, Some(KsmState::Settled | KsmState::Stopped))
    }

    /// Waits until KSM has settled, or has had its time, and measures the guests.
    pub(super) fn settle(
        &mut self,
        guests: &mut Guests<'_>,
        time: Duration,
        interrupt: &Interrupt,
    ) -> Result<(Memory, Option<KsmState>), ReferenceError> {
        // What was merged while guests stood still may part again.
        self.merging = Merging::default();
        let began = Instant::now();
        let bar = progress::bar(time.as_secs(), "waiting for KSM");
        loop {
            guests.see_that_all_live()?;
            let memory = self.look(guests)?;
            if self.is_done() || began.elapsed() >= time {
                bar.finish_and_clear();
                return Ok((memory, self.ksm));
            }
            bar.set_position(began.elapsed().as_secs());
            if interrupt.wait(LOOK.min(time.saturating_sub(began.elapsed()))) {
                return Err(ReferenceError::Interrupted);
            }
        }
    }
}
