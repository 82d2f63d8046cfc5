//! A stage: the fleet grows to a number of guests, KSM settles, and everything is
//! measured.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::ask::{self, Answers};
use super::clock::Clock;
use super::error::DensityError;
use super::plan::{self, Experiment};
use super::subject::Subject;
use super::watch::Watch;
use super::window::{Look, Window};
use crate::bundle::types::{GuestBurn, MemoryFigures, OverCommit, RunQueue, Stage};
use crate::control::bridge::Detail;
use crate::control::client::{Client, ClientError};
use crate::control::types::{self, Memory};
use crate::guest::counts::listed;
use crate::guest::{Phase, deadline};
use crate::host;
use crate::progress;
use crate::runqlat::types::{Row, Source};
use crate::runqlat::{self, Measuring, RunqlatError, Selection};
use crate::sample::ksm;
use crate::store::find::find;
use crate::units::{GuestIndex, counted};

/// How often the watch is asked.
const PAUSE: Duration = Duration::from_millis(200);
/// For how long CPU time and pressure are measured.
const WINDOW: Duration = Duration::from_secs(10);
/// Waits for a CPU that are counted as long.
const THRESHOLD: Duration = Duration::from_millis(10);
/// How long no guest may come up in a fleet that still has guests on their way before
/// they are taken for held back.
const QUIET: Duration = Duration::from_secs(60);
/// The same of a fleet whose supervisor says why it holds guests back, once KSM has
/// settled.
const HELD_BACK: Duration = Duration::from_secs(15);

/// How long to wait for one more of so many guests.
fn patience(guests: u32) -> Duration {
    QUIET.max(deadline::scaled(guests, host::cpus()))
}

/// What a guest takes of the host by its configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Configured {
    /// vCPUs of a guest.
    pub cpus: u32,
    pub memory: u64,
    pub disk: u64,
    /// Of the host.
    pub host_memory: u64,
    /// What `imgbuild check` predicted that a guest costs.
    pub predicted: Option<u64>,
}

/// How the fleet grew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Growth {
    /// To what was wanted.
    Whole,
    /// The rest is held back, for this reason.
    HeldBack(String),
}

/// Measures stages of a fleet.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    pub subject: &'a Subject<'a>,
    pub watch: &'a Watch,
    pub clock: Clock,
    pub experiment: &'a Experiment,
    pub configured: Configured,
}

impl Stages<'_> {
    /// Grows the fleet to `guests`, and measures it there, or where it is held back.
    pub(super) fn reach(
        &self,
        guests: u32,
        before: &[Stage],
    ) -> Result<(Stage, Growth), DensityError> {
        let began = self.clock.now();
        let growth = self.stride(guests, before)?;
        if let Growth::HeldBack(why) = &growth {
            let fitted = self.fitted();
            (self.subject.diary).note(format!("{fitted} of {guests} guests fit: {why}"));
            self.subject.call(|client| client.scale(fitted))?;
            self.look_again()?;
            self.watch.seen().none_is_held_back();
        }
        let grown = self.clock.now();
        let stage = self.measure(began, grown, before)?;
        Ok((stage, growth))
    }

    /// Has the watch see the fleet as it is after a change of its number of guests, of
    /// which no event tells; from now on its guests have time to come up.
    fn look_again(&self) -> Result<(), DensityError> {
        let fleet = self.subject.call(|client| client.fleet(Detail::Whole))?;
        let mut seen = self.watch.seen();
        seen.take(fleet);
        seen.wait_from_now();
        Ok(())
    }

    /// Has the fleet be of so many guests that were there before: of a run that is
    /// resumed after its last stage.
    pub(super) fn restore(&self, guests: u32) -> Result<(), DensityError> {
        let wanted = self
            .subject
            .call(|client| client.fleet(Detail::Summary))?
            .wanted;
        if wanted >= guests {
            return Ok(());
        }
        self.subject.call(|client| client.scale(guests))?;
        self.look_again()?;
        if let Growth::HeldBack(why) = self.grow(guests)? {
            self.subject
                .diary
                .note(format!("not all of {guests} guests came back: {why}"));
        }
        Ok(())
    }

    /// Grows the fleet stride by stride.
    fn stride(&self, guests: u32, before: &[Stage]) -> Result<Growth, DensityError> {
        let from = before.last().map_or(0, |stage| stage.guests);
        for count in plan::strides(self.experiment.goal, from, guests) {
            match self.subject.call(|client| client.scale(count)) {
                Ok(_) => self.look_again()?,
                // Such as for want of ports, which is a limit of the host.
                Err(DensityError::Client(ClientError::Refused(why)))
                    if self.watch.seen().picture().alive() > 0 =>
                {
                    return Ok(Growth::HeldBack(why));
                }
                Err(error) => return Err(error),
            }
            let growth = self.grow(count)?;
            if growth != Growth::Whole {
                return Ok(growth);
            }
        }
        Ok(Growth::Whole)
    }

    /// Waits until every guest came up, or no more do.
    fn grow(&self, guests: u32) -> Result<Growth, DensityError> {
        let bar = progress::bar(guests.into(), "guests ready");
        let patience = patience(guests);
        let growth = loop {
            self.subject.resume_if_dead()?;
            {
                let seen = self.watch.seen();
                bar.set_position(seen.ready() as u64);
                if seen.on_their_way() == 0 {
                    break Growth::Whole;
                }
                let quiet = seen.grew.elapsed();
                let planned = seen.picture().in_phase(Phase::Planned);
                if let Some(why) = seen.picture().held_back.clone()
                    && planned == seen.on_their_way()
                    && !seen.merges()
                    && quiet >= HELD_BACK
                {
                    break Growth::HeldBack(why);
                }
                if quiet >= patience.max(self.experiment.settle) {
                    let why = (seen.picture().held_back.clone())
                        .unwrap_or_else(|| format!("no guest came up for {} s", quiet.as_secs()));
                    break Growth::HeldBack(why);
                }
            }
            self.subject.pause(PAUSE)?;
        };
        bar.finish_and_clear();
        Ok(growth)
    }

    /// Guests that were started: those with the lowest numbers.
    fn fitted(&self) -> u32 {
        let seen = self.watch.seen();
        let started = seen.picture().guests().count() - seen.picture().in_phase(Phase::Planned);
        u32::try_from(started).unwrap_or(u32::MAX)
    }

    /// Waits until KSM has merged what it can, and no longer than the run allows.
    pub(super) fn settle(&self) -> Result<(), DensityError> {
        let began = Instant::now();
        let bar = progress::bar(0, "KSM merges the guests' memory");
        while self.watch.seen().merges() && began.elapsed() < self.experiment.settle {
            self.subject.pause(PAUSE)?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Waits for the guests that are late with a sign of life, because those that were
    /// logged in to had the CPU before them.
    fn recover(&self) -> Result<(), DensityError> {
        let late = || self.watch.seen().picture().in_phase(Phase::Unresponsive);
        let (mut least, mut since) = (late(), Instant::now());
        let guests = u32::try_from(self.watch.seen().picture().alive()).unwrap_or(u32::MAX);
        let patience = patience(guests);
        let bar = progress::bar(least as u64, "late guests have answered");
        let all = least;
        while late() > 0 && since.elapsed() < patience {
            self.subject.pause(PAUSE)?;
            let now = late();
            if now < least {
                (least, since) = (now, Instant::now());
            }
            bar.set_position((all - least) as u64);
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn measure(&self, began: f64, grown: f64, before: &[Stage]) -> Result<Stage, DensityError> {
        let subject = self.subject;
        let fleet = subject.call(|client| client.fleet(Detail::Whole))?;
        let chosen = self.chosen(&fleet.guests);
        let first = ask::status(subject, &chosen)?;
        self.settle()?;
        let settled = self.clock.now();
        let memory = subject.call(Client::memory)?;
        let counters = ksm_counters();
        let (window, run_queue) = self.window(&fleet)?;
        let second = ask::status(subject, &chosen)?;
        let burns = burns(&fleet.guests, &window, &first, &second);
        let logins = ask::logins(subject, &chosen, fleet.wanted)?;
        let starts = self.watch.seen().new_starts(before);
        self.recover()?;
        let counts = subject.call(|client| client.fleet(Detail::Summary))?.counts;
        let ready = counts.get(&Phase::Ready).copied().unwrap_or(0);
        subject.diary.note(format!(
            "{}: {}; {} of {} answered, {} of {} reached by SSH",
            counted(fleet.wanted.into(), "guest"),
            listed(&counts),
            good(&first),
            first.replies.len(),
            logins.iter().filter(|reply| reply.failed.is_none()).count(),
            logins.len(),
        ));
        Ok(Stage {
            guests: fleet.wanted,
            ready,
            began,
            grown,
            settled,
            ended: self.clock.now(),
            ksm_state: memory.ksm,
            over_commit: self.over_commit(&memory),
            memory: MemoryFigures::of(&memory),
            ksm: counters,
            starts,
            answers: first.replies,
            deadline: Some(deadline::scaled(fleet.wanted, host::cpus()).as_secs_f64()),
            logins,
            burns,
            cpu: window.cpu,
            wakeups: Some(window.switches),
            pressure: window.pressure,
            predicted: self.configured.predicted,
            run_queue,
        })
    }

    /// The guests that are asked.
    pub(super) fn chosen(&self, guests: &[types::Guest]) -> Vec<GuestIndex> {
        let ready: Vec<_> = (guests.iter())
            .filter(|guest| guest.pid.is_some())
            .map(|guest| guest.id)
            .collect();
        let most = self.experiment.answering.most();
        let most = most.map_or(usize::MAX, |most| most as usize);
        plan::sample(&ready, most, self.experiment.seed)
    }

    /// CPU time, pressure and waits for a CPU, over the same time.
    fn window(&self, fleet: &types::Fleet) -> Result<(Window, Vec<RunQueue>), DensityError> {
        let guests: Vec<_> = (fleet.guests.iter())
            .filter_map(|guest| Some((guest.id, guest.pid?)))
            .collect();
        let supervisor = fleet.supervisor.map(|supervisor| supervisor.pid);
        let mut waits = self.waits();
        let before = Look::now(&guests, supervisor);
        self.subject.pause(WINDOW)?;
        let window = Look::now(&guests, supervisor).since(&before);
        let measured = waits.as_mut().map(Measuring::read).transpose();
        let waits = measured.unwrap_or_else(|error| {
            self.no_waits(&error);
            None
        });
        let waits = waits.iter().flat_map(|measured| {
            let queue = |row| run_queue(measured.source, row);
            measured.rows.iter().map(queue)
        });
        Ok((window, waits.collect()))
    }

    /// Begins to measure how long guests wait for a CPU.
    fn waits(&self) -> Option<Measuring> {
        let found = find(Some(&self.subject.name), self.subject.directories).ok()?;
        let begun = Measuring::start(runqlat::Options {
            selection: Selection::Fleet(found),
            by: None,
            threshold: THRESHOLD,
            stop: false,
        });
        let begun = begun.inspect_err(|error| self.no_waits(error)).ok()?;
        if let Some(why) = begun.instead() {
            self.subject.diary.note(format!(
                "waits for a CPU are means, by schedstat: BPF is not to be had: {why}"
            ));
        }
        Some(begun)
    }

    fn no_waits(&self, error: &RunqlatError) {
        let diary = self.subject.diary;
        diary.note(format!("waits for a CPU were not measured: {error}"));
    }

    #[expect(clippy::cast_precision_loss, reason = "ratios for people")]
    fn over_commit(&self, memory: &Memory) -> OverCommit {
        let guests = f64::from(memory.count);
        let Configured {
            cpus,
            memory: ram,
            host_memory,
            ..
        } = self.configured;
        OverCommit {
            cpu: guests * f64::from(cpus) / host::cpus() as f64,
            memory: guests * ram as f64 / host_memory.max(1) as f64,
            disk: self.disk_over_commit(memory.count),
        }
    }

    /// Guests' disks, divided by what their overlays take.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    fn disk_over_commit(&self, guests: u32) -> Option<f64> {
        use std::os::unix::fs::MetadataExt as _;
        let overlays = std::fs::read_dir(self.subject.paths.overlays()).ok()?;
        let taken: u64 = (overlays.flatten())
            .filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512))
            .sum();
        let configured = u64::from(guests) * self.configured.disk;
        (taken > 0 && configured > 0).then(|| configured as f64 / taken as f64)
    }
}

fn run_queue(source: Source, row: &Row) -> RunQueue {
    RunQueue {
        source: word(source).unwrap_or_default(),
        class: row.class.and_then(word).unwrap_or_else(|| "all".to_owned()),
        cause: row.cause.and_then(word),
        buckets: row.buckets.clone(),
    }
}

/// What it is called in documents.
fn word(choice: impl Serialize) -> Option<String> {
    let value = serde_json::to_value(choice).ok()?;
    value.as_str().map(ToOwned::to_owned)
}

fn good(answers: &Answers) -> usize {
    let replies = answers.replies.iter();
    replies.filter(|reply| reply.failed.is_none()).count()
}

/// What each guest burned and ran.
fn burns(
    guests: &[types::Guest],
    window: &Window,
    first: &Answers,
    second: &Answers,
) -> Vec<GuestBurn> {
    let burn = |guest: &types::Guest| {
        let then = first.rounds.get(&guest.id);
        let now = second.rounds.get(&guest.id);
        let rounds = then.zip(now).and_then(|(then, now)| now.rate_since(*then));
        let cpu = window.guests.get(&guest.id).copied();
        (rounds.is_some() || cpu.is_some()).then_some(GuestBurn {
            guest: guest.id,
            rounds,
            cpu,
        })
    };
    guests.iter().filter_map(burn).collect()
}

/// KSM's counters, by file name.
fn ksm_counters() -> BTreeMap<String, u64> {
    let Some(ksm) = ksm::read(Path::new("/"), &mut Vec::new()) else {
        return BTreeMap::new();
    };
    let counters = [
        ("run", ksm.run),
        ("pages_to_scan", ksm.pages_to_scan),
        ("sleep_millisecs", ksm.sleep_millisecs),
        ("pages_shared", ksm.pages_shared),
        ("pages_sharing", ksm.pages_sharing),
        ("pages_unshared", ksm.pages_unshared),
        ("pages_volatile", ksm.pages_volatile),
        ("full_scans", ksm.full_scans),
    ];
    let known = counters
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    known.collect()
}
