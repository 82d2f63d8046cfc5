//! Looks at the guests' processes and at the host again and again, from threads of
//! their own: what has thousands of guests is spread over time, so that it never takes
//! more than a small part of a CPU.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::model::{Host, Model, RunQueue, lock};
use super::view::View;
use crate::control::bridge::Detail;
use crate::control::client::{Client, ClientError};
use crate::control::memory::ksm_state;
use crate::control::unsupervised;
use crate::guest::Phase;
use crate::guest::merging::{KsmSeen, Merging, Population};
use crate::host;
use crate::interrupt::{Background, Interrupt};
use crate::runqlat::Measuring;
use crate::runqlat::types::{Class, Measured, Row};
use crate::sample::account;
use crate::sample::host_cpu::HostCpu;
use crate::sample::ksm::{self, PAGE};
use crate::sample::meminfo;
use crate::sample::source::Source;
use crate::sample::usage::Usage;
use crate::store::folder::Found;
use crate::store::logs;
use crate::text::printable;
use crate::units::GuestIndex;

/// How often the host is looked at, and the guests that are on the screen.
const PERIOD: Duration = Duration::from_secs(1);
/// Guests beside them that are looked at in a period: some 15 ms of CPU time.
const GUESTS_A_PERIOD: usize = 300;
/// How often guests on the screen say how far they are with their burn.
const ROUNDS_PERIOD: Duration = Duration::from_secs(10);
/// How often what the fleet costs is read at most, and the part of the time that the
/// reading may take: it walks the page tables of every guest.
const MEMORY_PERIOD: Duration = Duration::from_secs(5);
const MEMORY_PART: u32 = 100;
/// Lines of a console that are kept for the screen.
const LINES: usize = 200;

type Shown = (Arc<Mutex<Model>>, Arc<Mutex<View>>);

/// Looks until what this gives is dropped.
pub(super) fn start(found: Found, client: Client, shown: Shown, end: Interrupt) -> [Background; 3] {
    let (memory_client, memory_found) = (client.clone(), found.clone());
    let watch_client = client.clone();
    let (model, view) = shown;
    let memory_model = Arc::clone(&model);
    let (rounds_model, rounds_view) = (Arc::clone(&model), Arc::clone(&view));
    [
        Background::start(end.clone(), move |end| {
            watch(&found, &watch_client, &model, &view, end);
        }),
        Background::start(end.clone(), move |end| {
            measure_memory(&memory_client, &memory_found, &memory_model, end);
        }),
        Background::start(end, move |end| {
            while !end.wait(ROUNDS_PERIOD) {
                if let Err(error) = ask_rounds(&client, &rounds_model, &rounds_view) {
                    tracing::debug!("asking guests how far they burned: {error}");
                }
            }
        }),
    ]
}

/// Looks at the host, at the guests on the screen, and at the others in turn.
fn watch(
    found: &Found,
    client: &Client,
    model: &Mutex<Model>,
    view: &Mutex<View>,
    end: &Interrupt,
) {
    let mut merging = Merging::default();
    let mut waits = None;
    let mut turn = Turn::default();
    loop {
        let began = Instant::now();
        look_at_host(model, &mut merging);
        // No event tells that a guest burns.
        if let Ok(fleet) = client.fleet(Detail::Summary) {
            lock(model).burning = fleet.burn.guests;
        }
        let on_screen = lock(view).on_screen.clone();
        let pids = turn.next(&lock(model), &on_screen);
        for (guest, pid) in pids {
            if let Some(usage) = Usage::of(Path::new("/"), pid) {
                lock(model).saw(guest, pid, usage, Instant::now());
            }
        }
        let console = {
            let view = lock(view);
            view.selected.filter(|_| view.details)
        };
        let console = console.map(|guest| (guest, tail(found, guest)));
        {
            let mut model = lock(model);
            model.console = console;
            model.forget(began);
        }
        // Last, since to begin takes longer than all the rest.
        let run_queue = waits.get_or_insert_with(|| Waits::begin(found)).read();
        lock(model).run_queue = run_queue;
        if end.wait(PERIOD.saturating_sub(began.elapsed()).max(PERIOD / 4)) {
            return;
        }
    }
}

/// The end of a guest's console, safe to print.
fn tail(found: &Found, guest: GuestIndex) -> Vec<String> {
    let bytes = logs::tail(&found.paths.log(guest), LINES).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .map(|line| printable(line.trim_end_matches('\r')))
        .collect()
}

/// Whose turn it is to be looked at.
#[derive(Debug, Default)]
struct Turn {
    /// The guest that was the last one.
    last: Option<GuestIndex>,
}

impl Turn {
    /// The guests on the screen, and some of the others.
    fn next(&mut self, model: &Model, on_screen: &BTreeSet<GuestIndex>) -> Vec<(GuestIndex, u32)> {
        let living = (model.picture.guests()).filter_map(|guest| Some((guest.id, guest.pid?)));
        let living: Vec<_> = living.collect();
        let after = |(guest, _): &(GuestIndex, u32)| Some(*guest) <= self.last;
        let from = living.partition_point(after);
        let round = living.iter().cycle().skip(from);
        let others: Vec<_> = round
            .take(living.len().min(GUESTS_A_PERIOD))
            .copied()
            .collect();
        self.last = others.last().map(|(guest, _)| *guest);
        let is_new = |(guest, _): &(GuestIndex, u32)| {
            on_screen.contains(guest) && !others.iter().any(|(other, _)| other == guest)
        };
        let seen: Vec<_> = living.iter().copied().filter(is_new).collect();
        [seen, others].concat()
    }
}

fn look_at_host(model: &Mutex<Model>, merging: &mut Merging) {
    let mut unseen = Vec::new();
    let ksm = ksm::read(Path::new("/"), &mut unseen);
    let mut source = Source::new(Path::new("/"), &mut unseen);
    let counters = ksm.as_ref().and_then(KsmSeen::of);
    let (cpu_pressure, memory_pressure) = (
        meminfo::pressure(&mut source, "cpu"),
        meminfo::pressure(&mut source, "memory"),
    );
    let (cpu, now) = (HostCpu::now(), Instant::now());
    let mut model = lock(model);
    let population = Population {
        up: model.picture.up(),
        living: model.picture.alive(),
    };
    model.host = Host {
        cpus: host::cpus(),
        cpu_pressure,
        memory_pressure,
        available: account::available(),
        merged: counters.map(|counters| counters.merged.saturating_mul(PAGE)),
        unmerged: counters.map(|counters| counters.unmerged.saturating_mul(PAGE)),
        ksm: ksm.and_then(|ksm| ksm_state(merging, &ksm, population)),
        ..model.host
    };
    model.host.cpu(cpu, now);
}

/// Measures how long vCPUs wait, where BPF is to be had.
enum Waits {
    Measuring(Box<Measuring>),
    Not(String),
}

impl Waits {
    fn begin(found: &Found) -> Self {
        match Measuring::by_class(found) {
            Ok(measuring) => Self::Measuring(Box::new(measuring)),
            Err(why) => Self::Not(why),
        }
    }

    fn read(&mut self) -> RunQueue {
        let error = match self {
            Self::Not(why) => return RunQueue::Means(why.clone()),
            Self::Measuring(measuring) => match measuring.read() {
                Ok(measured) => return RunQueue::Waits(of_vcpus(&measured)),
                Err(error) => error.to_string(),
            },
        };
        *self = Self::Not(error.clone());
        RunQueue::Means(error)
    }
}

fn of_vcpus(measured: &Measured) -> Option<(f64, f64)> {
    let is_of_vcpus = |row: &&Row| row.class == Some(Class::Vcpu);
    let row = measured.rows.iter().find(is_of_vcpus)?;
    Some((row.p50, row.p99))
}

/// Reads what the fleet costs, as seldom as that takes.
fn measure_memory(client: &Client, found: &Found, model: &Mutex<Model>, end: &Interrupt) {
    loop {
        let began = Instant::now();
        let read = client.memory();
        let read = match read {
            Err(ClientError::NotSupervised { .. }) => unsupervised::memory(found).ok(),
            read => read.ok(),
        };
        let now = Instant::now();
        if let Some(memory) = read {
            lock(model).memory = Some((memory, now));
        }
        let pause = now.duration_since(began).saturating_mul(MEMORY_PART);
        if end.wait(pause.max(MEMORY_PERIOD)) {
            return;
        }
    }
}

/// Takes how far the guests on the screen are with their burn, and has those that burn
/// say so for the next time: on their consoles, since a question would give them CPU time
/// before the others.
fn ask_rounds(
    client: &Client,
    model: &Mutex<Model>,
    view: &Mutex<View>,
) -> Result<(), ClientError> {
    let on_screen = lock(view).on_screen.clone();
    for id in on_screen {
        let guest = client.guest(id)?;
        let burns = guest.burn.is_some_and(|burn| burn.duty.burns());
        let is_asked = burns && guest.state == Phase::Ready;
        lock(model).burned(guest, Instant::now());
        if is_asked {
            client.type_lines(id, "heartbeat\n")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::model;
    use super::*;

    #[test]
    fn every_guest_has_its_turn_and_those_on_the_screen_have_each() {
        let (model, _) = model(&[Phase::Ready; 2 * GUESTS_A_PERIOD + 50]);
        let seen = GuestIndex::new(0).unwrap();
        let on_screen = BTreeSet::from([seen]);
        let mut turn = Turn::default();
        let mut looked_at = BTreeSet::new();
        for _ in 0..3 {
            let next = turn.next(&model, &on_screen);
            assert!(next.len() <= GUESTS_A_PERIOD + 1);
            assert_eq!(next.iter().filter(|(guest, _)| *guest == seen).count(), 1);
            looked_at.extend(next.into_iter().map(|(guest, _)| guest));
        }
        assert_eq!(looked_at.len(), 2 * GUESTS_A_PERIOD + 50);
    }

    #[test]
    fn few_guests_are_looked_at_once_in_each_turn() {
        let (model, _) = model(&[Phase::Ready, Phase::Booting, Phase::Ready]);
        let mut turn = Turn::default();
        for _ in 0..3 {
            let next = turn.next(&model, &BTreeSet::new());
            let mut guests: Vec<_> = next.iter().map(|(guest, _)| guest.get()).collect();
            guests.sort_unstable();
            assert_eq!(guests, [0, 2]);
        }
    }
}
