//! Watches a fleet from a thread of its own: which state each guest is in, when it came
//! up, and what the host has left, over time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::Clock;
use crate::bundle::types::{self, GuestStart, Moment};
use crate::control::client::Client;
use crate::control::follow::{Heard, follow};
use crate::control::memory::ksm_state;
use crate::control::picture::Picture;
use crate::control::types::{Event, Fleet, Guest, KsmState};
use crate::guest::Phase;
use crate::guest::merging::{KsmSeen, Merging, Population};
use crate::interrupt::{Background, Interrupt};
use crate::sample::account;
use crate::sample::ksm::{self, Ksm, PAGE};
use crate::sample::schedule::Schedule;
use crate::sample::source::Source;
use crate::units::GuestIndex;

/// How often the host is looked at, at first.
const PERIOD: Duration = Duration::from_secs(1);
/// The most looks that are kept: then every second one goes, and they become half as
/// frequent.
const MOMENTS: usize = 4_000;

/// The watch; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    _following: Background,
}

/// What was seen of a fleet and its host.
#[derive(Debug)]
pub(super) struct Seen {
    clock: Clock,
    picture: Picture,
    starts: BTreeMap<GuestIndex, GuestStart>,
    /// The most guests that were up at a time since the fleet was changed, and since
    /// when: guests that come and go are no progress.
    most_up: usize,
    pub grew: Instant,
    series: Vec<Moment>,
    period: Duration,
    merging: Merging,
    ksm: Option<KsmState>,
}

impl Watch {
    pub(super) fn start(client: Client, clock: Clock, series: Vec<Moment>, end: Interrupt) -> Self {
        let seen = Arc::new(Mutex::new(Seen {
            clock,
            picture: Picture::default(),
            starts: BTreeMap::new(),
            most_up: 0,
            grew: Instant::now(),
            series,
            period: PERIOD,
            merging: Merging::default(),
            ksm: None,
        }));
        let shared = Arc::clone(&seen);
        let mut due = Instant::now();
        let hear = move |heard: Heard| {
            if let Heard::Event(event) = heard {
                lock(&shared).hear(event);
            }
            look_if_due(&shared, &mut due);
            due
        };
        Self {
            seen,
            _following: follow(client, end, hear),
        }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look_if_due(seen: &Mutex<Seen>, due: &mut Instant) {
    let now = Instant::now();
    if now < *due {
        return;
    }
    let mut unseen = Vec::new();
    let ksm = ksm::read(Path::new("/"), &mut unseen);
    let ksmd = ksm::ksmd(&mut Source::new(Path::new("/"), &mut unseen));
    let ksmd = ksmd.map(|ksmd| Schedule::of(ksmd.pid).cpu.as_secs_f64());
    let available = account::available();
    let mut seen = lock(seen);
    seen.look(ksm.as_ref(), ksmd, available);
    *due = now + seen.period;
}

impl Seen {
    /// Takes over how a fleet stands.
    pub(super) fn take(&mut self, fleet: Fleet) {
        self.hear(Event::Snapshot(Box::new(fleet)));
    }

    fn hear(&mut self, event: Event) {
        match &event {
            Event::Snapshot(fleet) => fleet.guests.iter().for_each(|guest| self.note(guest)),
            Event::Guest(guest) => self.note(guest),
            Event::Stage { .. } | Event::Lost { .. } => {}
        }
        self.picture.apply(event, Instant::now());
        let up = self.picture.up();
        if up > self.most_up {
            self.most_up = up;
            self.grew = Instant::now();
        }
    }

    /// Gives guests time to come up from now on.
    pub(super) fn wait_from_now(&mut self) {
        self.most_up = self.picture.up();
        self.grew = Instant::now();
    }

    /// Forgets that guests were held back: they were taken away.
    pub(super) fn none_is_held_back(&mut self) {
        self.picture.held_back = None;
    }

    /// Takes note of how a guest comes up.
    fn note(&mut self, guest: &Guest) {
        if guest.restarts > 0 || guest.pid.is_none() {
            return;
        }
        let now = self.clock.now();
        // One that was ready before anybody listened says how long ago it was started.
        let ago = guest.for_seconds + guest.ready_after.unwrap_or(0.0);
        let start = self.starts.entry(guest.id).or_insert(GuestStart {
            guest: guest.id,
            process: now - ago,
            spoke: None,
            ready: None,
        });
        match guest.state {
            Phase::Booting => start.spoke = Some(now - start.process),
            Phase::Ready => start.ready = start.ready.or(guest.ready_after),
            _ => {}
        }
    }

    fn look(&mut self, ksm: Option<&Ksm>, ksmd: Option<f64>, available: Option<u64>) {
        let (ready, alive) = (self.ready(), self.picture.alive());
        let counters = ksm.and_then(KsmSeen::of);
        let population = Population {
            up: self.picture.up(),
            living: alive,
        };
        self.ksm = ksm.and_then(|ksm| ksm_state(&mut self.merging, ksm, population));
        self.series.push(Moment {
            at: self.clock.now(),
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            alive: u32::try_from(alive).unwrap_or(u32::MAX),
            available,
            unmerged: counters.map(|counters| counters.unmerged * PAGE),
            saved: counters.map(|counters| counters.merged * PAGE),
            ksmd,
        });
        if self.series.len() > MOMENTS {
            let mut place = 0;
            self.series.retain(|_| {
                place += 1;
                place % 2 == 0
            });
            self.period *= 2;
        }
    }

    /// Whether KSM may merge more of the guests that are up.
    pub(super) fn merges(&self) -> bool {
        self.ksm == Some(KsmState::Merging)
    }

    pub(super) fn picture(&self) -> &Picture {
        &self.picture
    }

    pub(super) fn ready(&self) -> usize {
        self.picture.in_phase(Phase::Ready)
    }

    /// Guests on their way: they are started, or are going to be.
    pub(super) fn on_their_way(&self) -> usize {
        let is_on_its_way = |guest: &&Guest| {
            matches!(
                guest.state,
                Phase::Planned
                    | Phase::Starting
                    | Phase::Restoring
                    | Phase::Booting
                    | Phase::Restarting
            )
        };
        self.picture.guests().filter(is_on_its_way).count()
    }

    /// How guests came up that are not in `known`.
    pub(super) fn new_starts(&self, known: &[types::Stage]) -> Vec<GuestStart> {
        let known: BTreeSet<_> = (known.iter())
            .flat_map(|stage| stage.starts.iter().map(|start| start.guest))
            .collect();
        // Without those that were scaled away.
        let starts = self.starts.values();
        let starts = starts.filter(|start| self.picture.standing(start.guest).is_some());
        starts
            .filter(|start| !known.contains(&start.guest))
            .copied()
            .collect()
    }

    pub(super) fn series(&self) -> Vec<Moment> {
        self.series.clone()
    }
}
