//! Measures, by BPF or by the kernel's counters, and makes the document of it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::bpf::{self, BpfError, Choice, Program};
use super::kernel::Long;
use super::members::{Roster, Selection, Target, everybody};
use super::schedstat::{self, Look};
use super::types::{Cause, Class, Measured, RUNQLAT_VERSION, Row, Source, Stopped, Thread};
use super::waits::{Waits, seconds};
use crate::store::folder::Found;

/// By what waits are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum By {
    /// By guest, or by process
    Guest,
    /// By what the thread does
    Class,
    /// By who had the CPU
    Cause,
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub selection: Selection,
    pub by: Option<By>,
    /// Waits longer than this are counted apart.
    pub threshold: Duration,
    /// Whether the first such wait is kept.
    pub stop: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunqlatError {
    /// The user named a control group that is none.
    #[error("cannot read the processes of the control group {}: {error}", folder.display())]
    Cgroup { folder: PathBuf, error: io::Error },
    /// The user named processes of which none is there.
    #[error("no process {} is there", list(.0))]
    NoProcess(Vec<u32>),
    #[error("cannot follow the fleet: {0}")]
    Follow(io::Error),
    /// Something takes BPF that is not to be had.
    #[error("--stop-above takes BPF, and {0}")]
    NeedsBpf(String),
    #[error("cannot read what was counted: {0}")]
    Read(String),
}

fn list(pids: &[u32]) -> String {
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    pids.join(", ")
}

/// A measurement that goes on until it is dropped.
pub(crate) struct Measuring {
    options: Options,
    by: Meter,
    roster: Roster,
    began: Instant,
    last: Instant,
    lost: u64,
    before: BTreeMap<Key, Waits>,
}

enum Meter {
    Bpf(Box<Program>),
    Schedstat { last: Look, instead: String },
}

/// What waits are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Key {
    /// Group of threads, where all are measured.
    group: Option<u32>,
    class: Option<Class>,
    cause: Option<Cause>,
    target: Option<Target>,
}

impl Key {
    fn of_class(class: Class) -> Self {
        Self {
            class: Some(class),
            ..Self::default()
        }
    }

    fn of_cause(cause: Cause) -> Self {
        Self {
            cause: Some(cause),
            ..Self::default()
        }
    }

    fn of_target(target: Target) -> Self {
        Self {
            target: Some(target),
            ..Self::default()
        }
    }
}

impl Measuring {
    /// Begins to measure.
    pub(crate) fn start(options: Options) -> Result<Self, RunqlatError> {
        if let Selection::Pids(pids) = &options.selection
            && !pids
                .iter()
                .any(|pid| PathBuf::from(format!("/proc/{pid}")).exists())
        {
            return Err(RunqlatError::NoProcess(pids.clone()));
        }
        let roster =
            Roster::start(&options.selection).map_err(|error| match &options.selection {
                Selection::Cgroup(folder) => RunqlatError::Cgroup {
                    folder: folder.clone(),
                    error,
                },
                _ => RunqlatError::Follow(error),
            })?;
        let by = match begin(&options, &roster) {
            Ok(program) => Meter::Bpf(Box::new(program)),
            Err(error) if options.stop => return Err(RunqlatError::NeedsBpf(error.to_string())),
            Err(error) => Meter::Schedstat {
                last: schedstat::look(&processes(&options, &roster)),
                instead: error.to_string(),
            },
        };
        let now = Instant::now();
        Ok(Self {
            options,
            by,
            roster,
            began: now,
            last: now,
            lost: 0,
            before: BTreeMap::new(),
        })
    }

    /// Begins to measure a fleet's threads by class, by BPF alone: the kernel's counters
    /// have means and no distribution, and those of thousands of threads take long to
    /// read. Says why it cannot.
    pub(crate) fn by_class(found: &Found) -> Result<Self, String> {
        let measuring = Self::start(Options {
            selection: Selection::Fleet(found.clone()),
            by: Some(By::Class),
            threshold: Duration::MAX,
            stop: false,
        })
        .map_err(|error| error.to_string())?;
        match measuring.instead().map(ToOwned::to_owned) {
            None => Ok(measuring),
            Some(why) => Err(why),
        }
    }

    /// Why it is not by BPF.
    pub(crate) fn instead(&self) -> Option<&str> {
        match &self.by {
            Meter::Bpf(_) => None,
            Meter::Schedstat { instead, .. } => Some(instead),
        }
    }

    /// Whether a wait was longer than the threshold.
    pub(crate) fn is_over(&self) -> Result<bool, RunqlatError> {
        Ok(self.options.stop && self.first()?.is_some())
    }

    fn first(&self) -> Result<Option<Long>, RunqlatError> {
        match &self.by {
            Meter::Bpf(program) => program.first().map_err(|error| read_error(&error)),
            Meter::Schedstat { .. } => Ok(None),
        }
    }

    /// What was counted since the last time this was asked.
    pub(crate) fn read(&mut self) -> Result<Measured, RunqlatError> {
        let now = Instant::now();
        let by = self.options.by;
        let (since, lost) = match &mut self.by {
            Meter::Bpf(program) => {
                let all = counted(program, &self.roster, by).map_err(|error| read_error(&error))?;
                let lost = program.lost().map_err(|error| read_error(&error))?;
                let since = all.iter().map(|(key, waits)| {
                    let before = self.before.get(key).copied().unwrap_or_default();
                    (*key, waits.since(&before))
                });
                let since: BTreeMap<_, _> = since.collect();
                self.before = all;
                (since, lost)
            }
            Meter::Schedstat { last, .. } => {
                let look = schedstat::look(&processes(&self.options, &self.roster));
                let between = schedstat::between(last, &look);
                *last = look;
                (folded(between, by), 0)
            }
        };
        let source = match self.by {
            Meter::Bpf(_) => Source::Bpf,
            Meter::Schedstat { .. } => Source::Schedstat,
        };
        let stopped = self.first()?.filter(|_| self.options.stop);
        let measured = Measured {
            runqlat_version: RUNQLAT_VERSION,
            source,
            instead: self.instead().map(ToOwned::to_owned),
            of: self.options.selection.words(),
            at: (self.last - self.began).as_secs_f64(),
            seconds: (now - self.last).as_secs_f64(),
            threshold: self.options.threshold.as_secs_f64(),
            lost: lost - self.lost,
            rows: since
                .iter()
                .filter(|(_, waits)| waits.count > 0)
                .map(|(key, waits)| row(*key, &self.options.selection, waits, source))
                .collect(),
            stopped: stopped.map(|long| self.stopped(long)),
        };
        (self.last, self.lost) = (now, lost);
        Ok(measured)
    }

    fn stopped(&self, long: Long) -> Stopped {
        let members = self.roster.members();
        let thread = |(id, pid, name): (u32, u32, String)| Thread {
            id,
            pid,
            name,
            guest: members.guest_of(pid),
        };
        Stopped {
            wait: seconds(long.nanoseconds),
            cpu: long.cpu,
            waited: thread(long.thread),
            cause: long.cause,
            behind: thread(long.behind),
        }
    }
}

fn read_error(error: &BpfError) -> RunqlatError {
    RunqlatError::Read(error.to_string())
}

/// Loads the program, tells it whose waits to count, and attaches it.
fn begin(options: &Options, roster: &Roster) -> Result<Program, BpfError> {
    let expected = u32::try_from(roster.members().slots().len()).unwrap_or(u32::MAX);
    let (mut program, table) = bpf::load(Choice {
        all: matches!(options.selection, Selection::All(_)),
        threshold: u64::try_from(options.threshold.as_nanos()).unwrap_or(u64::MAX),
        causes: matches!(options.by, None | Some(By::Cause)) || options.stop,
        guests: options.by == Some(By::Guest),
        first: options.stop,
        expected,
    })?;
    roster.members().hand(table);
    program.attach()?;
    Ok(program)
}

/// Whose counters are looked at.
fn processes(options: &Options, roster: &Roster) -> Vec<(u32, Target)> {
    match options.selection {
        Selection::All(_) => everybody(),
        _ => roster.members().list(),
    }
}

/// What the program has counted until now.
fn counted(
    program: &Program,
    roster: &Roster,
    by: Option<By>,
) -> Result<BTreeMap<Key, Waits>, BpfError> {
    if by == Some(By::Guest) {
        let slots = roster.members().slots().to_vec();
        let waits = program.guests(slots.len())?;
        let keyed = slots.into_iter().zip(waits);
        return Ok(keyed
            .map(|(target, waits)| (Key::of_target(target), waits))
            .collect());
    }
    let mut sums: BTreeMap<Key, Waits> = BTreeMap::new();
    for ((group, class, cause), waits) in program.waits()? {
        let key = match by {
            Some(By::Class) => Key::of_class(class),
            Some(By::Cause) => Key::of_cause(cause),
            _ => Key {
                group: Some(group),
                cause: Some(cause),
                ..Key::of_class(class)
            },
        };
        sums.entry(key).or_default().add(&waits);
    }
    Ok(sums)
}

/// The kernel's counters, which know no causes.
fn folded(between: BTreeMap<(Class, Target), Waits>, by: Option<By>) -> BTreeMap<Key, Waits> {
    let mut sums: BTreeMap<Key, Waits> = BTreeMap::new();
    for ((class, target), waits) in between {
        let key = match by {
            Some(By::Guest) => Key::of_target(target),
            Some(By::Cause) => Key::default(),
            _ => Key::of_class(class),
        };
        sums.entry(key).or_default().add(&waits);
    }
    sums
}

impl Row {
    /// The counts of a row.
    pub(crate) fn waits(&self) -> Waits {
        let nanoseconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let whole = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let mut waits = Waits {
            count: self.count,
            nanoseconds: whole(nanoseconds(self.total)),
            longest: whole(nanoseconds(self.longest)),
            above: self.above.unwrap_or(0),
            ..Waits::default()
        };
        for (count, number) in waits.buckets.iter_mut().zip(&self.buckets) {
            *count = *number;
        }
        waits
    }
}

fn row(key: Key, selection: &Selection, waits: &Waits, source: Source) -> Row {
    let quantile = |share| waits.quantile(share).unwrap_or(0.0);
    let (guest, pid) = match key.target {
        Some(Target::Guest(_, guest)) => (Some(guest), None),
        Some(Target::Process(pid)) => (None, Some(pid)),
        None => (None, None),
    };
    let fleet = key.group.and_then(|group| selection.fleet(group));
    Row {
        fleet: fleet.map(ToOwned::to_owned),
        class: key.class,
        cause: key.cause,
        guest,
        pid,
        count: waits.count,
        total: seconds(waits.nanoseconds),
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p999: quantile(0.999),
        longest: seconds(waits.longest),
        above: (source == Source::Bpf).then_some(waits.above),
        buckets: waits.buckets.to_vec(),
    }
}
