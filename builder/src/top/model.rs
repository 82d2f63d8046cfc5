//! What is known of a fleet: pure, fed by its events and by looks at its processes and
//! its host.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::control::picture::Picture;
use crate::control::types::{Burn, Event, Fleet, Guest, KsmState, Memory};
use crate::guest::Phase;
use crate::sample::host_cpu::HostCpu;
use crate::sample::usage::Usage;
use crate::units::GuestIndex;

/// The time over which guests that came up are counted as a rate.
const RATE_TIME: Duration = Duration::from_secs(10);
/// How long a note stays.
const NOTE_TIME: Duration = Duration::from_secs(8);

/// Whether anybody tells of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// Nobody has yet.
    Connecting,
    /// Its supervisor does.
    Up,
    /// It has none: what is shown was found by its processes.
    Orphaned,
    /// The supervisor does not answer, and why.
    Deaf(String),
    /// The fleet has ended.
    Ended,
}

/// What is known of a fleet.
#[derive(Debug)]
pub(super) struct Model {
    pub name: String,
    pub link: Link,
    pub picture: Picture,
    pub host: Host,
    /// Guests that burn, as far as each last reported.
    pub burning: u32,
    /// What the fleet costs, and when that was read.
    pub memory: Option<(Memory, Instant)>,
    pub run_queue: RunQueue,
    /// The last lines of the console of a guest.
    pub console: Option<(GuestIndex, Vec<String>)>,
    uses: BTreeMap<GuestIndex, Uses>,
    /// When guests came up, in the last seconds.
    came_up: VecDeque<Instant>,
    began: Instant,
    note: Option<(String, Instant)>,
}

/// How long vCPUs waited for a CPU in the last second.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RunQueue {
    /// It is not known yet.
    Unknown,
    /// Seconds that half of the waits, and 99 % of them, did not exceed; none without
    /// waits.
    Waits(Option<(f64, f64)>),
    /// Why only the means of threads can be had.
    Means(String),
}

/// The host, as it was looked at last.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Host {
    pub cpus: usize,
    /// CPUs that were busy since the look before.
    pub busy: Option<f64>,
    /// Share of the last ten seconds in which some task waited, in percent.
    pub cpu_pressure: Option<f64>,
    pub memory_pressure: Option<f64>,
    pub available: Option<u64>,
    /// Bytes that KSM saves, and those that it has not merged.
    pub merged: Option<u64>,
    pub unmerged: Option<u64>,
    pub ksm: Option<KsmState>,
    pub last: Option<(HostCpu, Instant)>,
}

/// What a guest uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Uses {
    /// CPUs, and how much of the time its threads waited for one: shares of 1.
    pub cpu: Option<f64>,
    pub waits: Option<f64>,
    /// Bytes that are its own.
    pub own: Option<u64>,
    /// Rounds a second.
    pub burn: Option<f64>,
    pid: u32,
    last: Option<(Usage, Instant)>,
    burned: Option<Burn>,
}

/// What threads share, whatever became of the others.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Model {
    pub(super) fn new(name: &str, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            link: Link::Connecting,
            picture: Picture::default(),
            host: Host::default(),
            burning: 0,
            memory: None,
            run_queue: RunQueue::Unknown,
            console: None,
            uses: BTreeMap::new(),
            came_up: VecDeque::new(),
            began: now,
            note: None,
        }
    }

    /// Takes what the supervisor says.
    pub(super) fn hear(&mut self, event: Event, now: Instant) {
        self.link = Link::Up;
        if let Event::Guest(guest) = &event {
            let before = self.picture.standing(guest.id).map(|one| one.guest.state);
            let was_up = matches!(before, Some(Phase::Ready | Phase::Unresponsive));
            if guest.state == Phase::Ready && !was_up {
                self.came_up.push_back(now);
            }
        }
        let is_snapshot = matches!(event, Event::Snapshot(_));
        if let Event::Snapshot(fleet) = &event {
            self.burning = fleet.burn.guests;
        }
        self.picture.apply(event, now);
        if is_snapshot {
            let picture = &self.picture;
            self.uses
                .retain(|guest, _| picture.standing(*guest).is_some());
        }
    }

    /// Takes over a fleet that nobody supervises.
    pub(super) fn orphan(&mut self, fleet: Fleet, now: Instant) {
        self.link = Link::Orphaned;
        self.picture.take(fleet, now);
    }

    /// Guests that came up a second, lately.
    pub(super) fn start_rate(&self, now: Instant) -> f64 {
        let time = now.saturating_duration_since(self.began).min(RATE_TIME);
        let since = |at: &&Instant| now.saturating_duration_since(**at) <= RATE_TIME;
        #[expect(clippy::cast_precision_loss, reason = "thousands at most")]
        let count = self.came_up.iter().filter(since).count() as f64;
        count / time.as_secs_f64().max(1.0)
    }

    /// Takes a look at a guest's process.
    pub(super) fn saw(&mut self, guest: GuestIndex, pid: u32, usage: Usage, now: Instant) {
        let uses = self.uses.entry(guest).or_default();
        if uses.pid != pid {
            *uses = Uses {
                pid,
                ..Uses::default()
            };
        }
        uses.own = Some(usage.own);
        if let Some((before, at)) = uses.last {
            let wall = now.saturating_duration_since(at).as_secs_f64();
            if wall > 0.0 {
                let share =
                    |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64() / wall;
                uses.cpu = Some(share(usage.cpu, before.cpu));
                uses.waits = Some(share(usage.waited, before.waited));
            }
        }
        uses.last = Some((usage, now));
    }

    /// Takes how a guest stands, and how far it is with its burn.
    pub(super) fn burned(&mut self, guest: Guest, now: Instant) {
        if let (Some(burn), Some(uses)) = (guest.burn, self.uses.get_mut(&guest.id)) {
            // By the guest's own clock, whenever what it says arrives.
            if let Some(before) = uses.burned.filter(|before| before.ms != burn.ms) {
                let rounds = burn.rounds.checked_sub(before.rounds);
                let time = burn.ms.checked_sub(before.ms);
                #[expect(clippy::cast_precision_loss, reason = "seconds of work")]
                let rate = |(rounds, ms): (u64, u64)| rounds as f64 * 1000.0 / ms as f64;
                uses.burn = rounds.zip(time).map(rate);
            }
            uses.burned = Some(burn);
        }
        self.picture.apply(Event::Guest(guest), now);
    }

    /// What a guest uses, as far as its present process was looked at.
    pub(super) fn uses(&self, guest: &Guest) -> Uses {
        let uses = self.uses.get(&guest.id).copied();
        uses.filter(|uses| Some(uses.pid) == guest.pid)
            .unwrap_or_default()
    }

    /// CPUs that the guests use, as each was last seen.
    pub(super) fn guests_cpu(&self) -> Option<f64> {
        let mut known = (self.picture.guests())
            .filter_map(|guest| self.uses(guest).cpu)
            .peekable();
        known.peek()?;
        Some(known.sum())
    }

    /// Forgets when guests came up longer ago than anybody asks.
    pub(super) fn forget(&mut self, now: Instant) {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > RATE_TIME;
        while self.came_up.front().is_some_and(is_old) {
            self.came_up.pop_front();
        }
    }

    /// Has the user told of something.
    pub(super) fn note(&mut self, note: String) {
        self.note = Some((note, Instant::now()));
    }

    pub(super) fn noted(&self, now: Instant) -> Option<&str> {
        let (note, at) = self.note.as_ref()?;
        (now.saturating_duration_since(*at) < NOTE_TIME).then_some(note)
    }
}

impl Host {
    /// Takes what all CPUs did up to now.
    pub(super) fn cpu(&mut self, cpu: Option<HostCpu>, now: Instant) {
        if let (Some(cpu), Some((before, at))) = (cpu, self.last) {
            let wall = now.saturating_duration_since(at).as_secs_f64();
            if wall > 0.0 {
                self.busy = Some((cpu.busy - before.busy).max(0.0) / wall);
            }
        }
        self.last = cpu.map(|cpu| (cpu, now));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::picture::tests::{fleet, guest};
    use crate::control::types::Stage;
    use crate::units::Duty;

    pub(crate) fn model(states: &[Phase]) -> (Model, Instant) {
        let now = Instant::now();
        let mut model = Model::new("f", now);
        let mut fleet = fleet(Stage::Up, states);
        for (number, guest) in (0_u32..).zip(&mut fleet.guests) {
            guest.pid = (guest.state == Phase::Ready).then_some(1000 + number);
        }
        model.hear(Event::Snapshot(Box::new(fleet)), now);
        (model, now)
    }

    fn usage(cpu: u64, waited: u64) -> Usage {
        Usage {
            cpu: Duration::from_millis(cpu),
            waited: Duration::from_millis(waited),
            own: 4096,
        }
    }

    #[test]
    fn what_a_guest_uses_is_of_its_present_process() {
        let (mut model, now) = model(&[Phase::Ready, Phase::Ready]);
        let id = GuestIndex::new(0).unwrap();
        let later = now + Duration::from_secs(2);
        model.saw(id, 1000, usage(500, 0), now);
        let guest = model.picture.guests().next().unwrap().clone();
        assert_eq!(model.uses(&guest).cpu, None);
        assert_eq!(model.guests_cpu(), None);
        model.saw(id, 1000, usage(1500, 1000), later);
        assert_eq!(model.uses(&guest).cpu, Some(0.5));
        assert_eq!(model.uses(&guest).waits, Some(0.5));
        assert_eq!(model.guests_cpu(), Some(0.5));
        let other = Guest {
            pid: Some(7),
            ..guest.clone()
        };
        assert_eq!(model.uses(&other), Uses::default());
        model.saw(id, 7, usage(100, 0), later);
        assert_eq!(model.uses(&other).cpu, None);
        assert_eq!(model.uses(&other).own, Some(4096));
    }

    #[test]
    fn rounds_become_a_rate_and_those_of_another_life_do_not() {
        let (mut model, now) = model(&[Phase::Ready]);
        let mut guest = model.picture.guests().next().unwrap().clone();
        model.saw(guest.id, 1000, usage(0, 0), now);
        for (rounds, ms, rate) in [
            (100, 1000, None),
            (300, 3000, Some(100.0)),
            // Nothing new.
            (300, 3000, Some(100.0)),
            // Another life.
            (50, 500, None),
        ] {
            guest.burn = Some(Burn {
                duty: Duty::WHOLE,
                threads: 1,
                rounds,
                ms,
            });
            model.burned(guest.clone(), now);
            assert_eq!(model.uses(&guest).burn, rate, "{rounds} at {ms}");
        }
    }

    #[test]
    fn guests_that_come_up_are_counted_and_those_that_answer_again_are_not() {
        let (mut model, now) = model(&[Phase::Booting, Phase::Booting, Phase::Unresponsive]);
        let later = now + Duration::from_secs(5);
        for number in 0..3 {
            model.hear(Event::Guest(guest(number, Phase::Ready)), later);
        }
        assert!((model.start_rate(later) - 2.0 / 5.0).abs() < 1e-9);
        let end = later + RATE_TIME + Duration::from_secs(1);
        assert!(model.start_rate(end).abs() < 1e-9);
        model.forget(end);
        assert!(model.came_up.is_empty());
    }

    #[test]
    fn a_guest_that_is_gone_is_forgotten() {
        let (mut model, now) = model(&[Phase::Ready, Phase::Ready]);
        for number in 0..2 {
            let id = GuestIndex::new(number).unwrap();
            model.saw(id, 1000 + number, usage(1, 1), now);
        }
        let fewer = fleet(Stage::Up, &[Phase::Ready]);
        model.hear(Event::Snapshot(Box::new(fewer)), now);
        assert_eq!(model.uses.len(), 1);
    }

    #[test]
    fn the_host_s_cpus_are_those_of_the_last_second() {
        let (mut host, now) = (Host::default(), Instant::now());
        let cpu = |busy| Some(HostCpu { busy, idle: 0.0 });
        host.cpu(cpu(10.0), now);
        assert_eq!(host.busy, None);
        host.cpu(cpu(13.0), now + Duration::from_secs(2));
        assert_eq!(host.busy, Some(1.5));
        host.cpu(None, now);
        host.cpu(cpu(20.0), now);
        assert_eq!(host.busy, Some(1.5));
    }
}
