//! Watches KSM for as long as a fleet lives, and sets ksmd's rate where the launch may
//! change host settings.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::control::types::KsmState;
use crate::fleet::supervisor::Supervisor;
use crate::guest::Phase;
use crate::guest::ksmd::{Pace, Rate};
use crate::guest::merging::{KsmSeen, Population};
use crate::host::settings::{Holder, Owner};
use crate::sample::ksm::{self, Ksm};
use crate::store::spec::{FleetSpec, HostSettings};
use crate::vmm::Sharing;

/// How soon to try again to set a rate that could not be set, or to look whether KSM
/// runs again.
const AGAIN: Duration = Duration::from_secs(10);
/// Looks are not closer to each other, however often clients ask.
const CLOSEST: Duration = Duration::from_millis(100);

/// What is known of KSM, and what is done about it.
#[derive(Debug, Default)]
pub(super) struct Ksmd {
    watched: bool,
    pace: Pace,
    state: Option<KsmState>,
    looked: Option<Instant>,
    /// When to look again; only when somebody asks, without.
    due: Option<Instant>,
    driver: Option<Driver>,
}

/// Who sets ksmd's rate.
#[derive(Debug)]
struct Driver {
    owner: Owner,
    holder: Holder,
    /// Why it was not set, and when to try again.
    kept: Option<(String, Instant)>,
}

impl Ksmd {
    /// For the fleet of `spec`.
    pub(super) fn of(spec: &FleetSpec) -> Self {
        let is_driven = spec.settings == HostSettings::Fixed;
        Self {
            watched: is_driven || spec.machine.sharing != Sharing::None,
            driver: is_driven.then(|| Driver::new(&spec.name)).flatten(),
            due: Some(Instant::now()),
            ..Self::default()
        }
    }

    /// How far KSM has come, as last seen.
    pub(super) fn state(&self) -> Option<KsmState> {
        self.state
    }

    /// When to look again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Looks again if it is time to.
    pub(super) fn go_on(&mut self, supervisor: &Supervisor) {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.look(supervisor);
        }
    }

    /// Looks at what KSM has done, and sets the rate that its backlog needs.
    pub(super) fn look(&mut self, supervisor: &Supervisor) {
        let now = Instant::now();
        let is_close = |looked| now.saturating_duration_since(looked) < CLOSEST;
        if self.looked.is_some_and(is_close) {
            return;
        }
        self.looked = Some(now);
        let ksm = ksm::read(Path::new("/"), &mut Vec::new()).unwrap_or_default();
        let Some(seen) = KsmSeen::of(&ksm) else {
            // What it says while it runs is of another time than what it said before.
            self.pace = Pace::default();
            self.state = (!ksm.runs()).then_some(KsmState::Stopped);
            self.due = self.driver.as_ref().map(|_| now + AGAIN);
            return;
        };
        let guests = population(supervisor);
        self.pace.see(now, &seen, guests);
        self.state = Some(if self.pace.has_settled() {
            KsmState::Settled
        } else {
            KsmState::Merging
        });
        self.due = self.watched.then(|| now + self.pace.look_after());
        let rate = present(&ksm).and_then(|present| self.pace.rate(&seen, guests, present));
        if let (Some(driver), Some(rate)) = (&mut self.driver, rate) {
            driver.set(now, rate);
        }
    }
}

impl Driver {
    fn new(fleet: &str) -> Option<Self> {
        match Holder::this_process(fleet) {
            Ok(holder) => Some(Self {
                owner: Owner::new(Path::new("/")),
                holder,
                kept: None,
            }),
            Err(error) => {
                tracing::warn!("ksmd's rate stays as it is: {error}");
                None
            }
        }
    }

    fn set(&mut self, now: Instant, rate: Rate) {
        if (self.kept.as_ref()).is_some_and(|(_, again)| now < *again) {
            return;
        }
        let why = match self.owner.drive(&rate.settings(), &self.holder) {
            Ok(Ok(())) => {
                tracing::debug!("ksmd: {rate:?}");
                self.kept = None;
                return;
            }
            Ok(Err(why)) => why.to_string(),
            Err(error) => error.to_string(),
        };
        if self.kept.as_ref().is_none_or(|(known, _)| *known != why) {
            tracing::info!("this fleet does not set ksmd's rate: {why}");
        }
        self.kept = Some((why, now + AGAIN));
    }
}

fn population(supervisor: &Supervisor) -> Population {
    Population {
        up: supervisor.count(&[Phase::Ready, Phase::Unresponsive]),
        living: supervisor
            .members()
            .iter()
            .filter(|one| one.lives())
            .count(),
    }
}

/// The rate that ksmd has, unless the kernel sets it itself.
fn present(ksm: &Ksm) -> Option<Rate> {
    let is_advised = ksm.advisor_mode.as_deref() == Some("scan-time");
    Some(Rate {
        pages_to_scan: ksm.pages_to_scan.filter(|_| !is_advised)?,
        sleep_millisecs: ksm.sleep_millisecs?,
    })
}
