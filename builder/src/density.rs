//! The reference experiment as one command: a fleet grows in stages, and at each stage
//! everything is measured that another needs to believe it. A run drives its fleet by
//! the control interface alone, so that it could be beside a fleet elsewhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clock::{Clock, Diary};
use conditions::{Settings, cut_paths};
use end::end;
use plan::baseline_guests;
use stage::{Configured, Growth, Stages};
use subject::Subject;
use watch::Watch;
use window::Look;

use crate::artifact::opened::Artifacts;
use crate::bundle::figures;
use crate::bundle::types::{Baseline, Conditions, Goal, Headline, Outcome, Plan, RUN_VERSION, Run};
use crate::control::bridge::Detail;
use crate::directories::Directories;
use crate::fleet::supervise::Attachment;
use crate::host::snapshot::{Host, KvmProbe, Places};
use crate::interrupt::Interrupt;
use crate::launch::{Begin, LaunchEvent, LaunchOptions, Milestone, launch};
use crate::store::find::find;
use crate::store::folder::{Paths, read_spec};
use crate::store::spec::{FleetSpec, HostSettings};
use crate::trial::fix::Lease;
use crate::trial::readiness::Report;
use crate::units::counted;
use crate::vmm::Sharing;
use crate::{host, reference};

mod ask;
mod clock;
mod conditions;
mod end;
mod error;
mod foresight;
mod hold;
pub(crate) mod plan;
mod resume;
mod stage;
mod storm;
mod subject;
mod watch;
mod window;

pub(crate) use conditions::command;
pub(crate) use error::DensityError;
pub(crate) use foresight::Foresight;
pub(crate) use plan::Experiment;

/// How long the load from elsewhere is measured before the first guest.
const CALM: Duration = Duration::from_secs(2);
/// Guests for which deadlines are long enough where a host is filled: as many as the
/// reference experiment had, and half as many again.
const FULL: u32 = 10_000;
/// Called with the run as far as it has come, after each step.
pub(crate) type Save<'a> = dyn FnMut(&Run) -> Result<(), DensityError> + 'a;

/// Runs the experiment on a fleet that it launches with `options` and ends; `earlier`
/// is the run that it resumes.
pub(crate) fn run(
    options: &LaunchOptions,
    experiment: &Experiment,
    earlier: Option<Run>,
    directories: &Directories,
    interrupt: &Interrupt,
    save: &mut Save<'_>,
) -> Result<Run, DensityError> {
    let artifacts = Artifacts::open(&options.out)?;
    let name = options.name.clone();
    let name = name.unwrap_or_else(|| artifacts.manifest.recipe.name.clone());
    if let Some(earlier) = &earlier {
        resume::compare_options(earlier, options, experiment, &artifacts.manifest)?;
    }
    let clock = Clock::start(earlier.as_ref().map_or(0.0, |run| run.lasted));
    let diary = Diary::new(
        clock,
        earlier
            .as_ref()
            .map_or_else(Vec::new, |run| run.events.clone()),
    );
    let mut settings = Settings::now();
    if let Some(earlier) = &earlier {
        settings.keep_first(&earlier.conditions.settings);
    }
    let calm = Look::now(&[], None);
    if interrupt.wait(CALM) {
        return Err(DensityError::Interrupted);
    }
    let load = Look::now(&[], None).load_since(&calm);
    let places = Places::of(directories, KvmProbe::Skip, options.qemu.clone());
    let host = Host::read(&places, interrupt);
    let report = match &earlier {
        Some(earlier) if resume::fleet_lives(earlier, &name, directories)? => None,
        _ => Some(begin(options, experiment, directories, interrupt)?),
    };
    let found = find(Some(&name), directories)?;
    let subject = Subject::new(&name, &found.paths, directories, interrupt, &diary);
    let prepared = Prepared::new(
        &Before {
            name: &name,
            options,
            experiment,
            paths: &found.paths,
            artifacts: &artifacts,
            host: &host,
            report: report.as_ref(),
            load,
            interrupt,
        },
        earlier,
    );
    let mut prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // A fleet that was there before is not this run's to end.
            if report.is_some()
                && let Err(remains) = end(&subject)
            {
                tracing::error!("{remains}");
            }
            return Err(error);
        }
    };
    let run = &mut prepared.run;
    let measured = follow(
        &subject,
        clock,
        experiment,
        prepared.configured,
        run,
        &mut settings,
        save,
    );
    let ended = end(&subject);
    if let (Err(_), Err(remains)) = (&measured, &ended) {
        tracing::error!("{remains}");
    }
    let result = measured.and(ended).and_then(|()| {
        if experiment.wants_baseline() && run.baseline.is_none() {
            let (spec, lease) = (&prepared.spec, prepared.lease.as_ref());
            let reached = run.stages.last().map_or(0, |stage| stage.guests);
            run.baseline = Some(baseline(
                &subject, experiment, spec, &artifacts, lease, reached,
            )?);
        }
        Ok(())
    });
    drop(prepared.lease);
    run.conditions.settings = settings.after();
    run.outcome = match (&result, &run.outcome) {
        (Err(_), _) if interrupt.requested() => Outcome::Interrupted,
        (Err(error), _) => Outcome::Failed(cut_paths(&error.to_string())),
        (Ok(()), Outcome::Full(why)) => Outcome::Full(why.clone()),
        (Ok(()), _) => Outcome::Complete,
    };
    run.events = diary.lines();
    run.lasted = clock.now();
    run.headline = figures::headline(run);
    save(run)?;
    match result {
        Err(error) if !interrupt.requested() => Err(error),
        _ => Ok(prepared.run),
    }
}

/// What is known when the fleet is there, and has no guest.
struct Before<'a> {
    name: &'a str,
    options: &'a LaunchOptions,
    experiment: &'a Experiment,
    paths: &'a Paths,
    artifacts: &'a Artifacts,
    host: &'a Host,
    /// Without, another process launched the fleet.
    report: Option<&'a Report>,
    /// CPU seconds a second of others.
    load: f64,
    interrupt: &'a Interrupt,
}

/// A run that is about to measure.
struct Prepared {
    spec: FleetSpec,
    /// Held by this process too, so that the settings outlive the fleet.
    lease: Option<Lease>,
    run: Run,
    configured: Configured,
}

impl Prepared {
    fn new(before: &Before<'_>, earlier: Option<Run>) -> Result<Self, DensityError> {
        let Before { name, options, .. } = *before;
        let spec = read_spec(before.paths.path())?;
        let lease = match (options.settings, before.report) {
            (HostSettings::Fixed, Some(report)) => {
                Some(Lease::new(report, name, before.interrupt)?)
            }
            (HostSettings::Fixed, None) => Lease::of_others(name, options.settings),
            (HostSettings::Kept, _) => None,
        };
        let manifest = &before.artifacts.manifest;
        let conditions =
            conditions::before(before.host, before.report, &spec, manifest, before.load);
        let predicted = match (before.report, &earlier) {
            (Some(report), _) => predicted(report, options.machine.sharing),
            (None, earlier) => earlier
                .as_ref()
                .and_then(|run| run.stages.last()?.predicted),
        };
        let configured = Configured {
            cpus: 1,
            memory: conditions.guest_memory,
            disk: conditions.guest_disk,
            host_memory: conditions.memory,
            predicted,
        };
        let run = match earlier {
            None => new(name, options, before.experiment, conditions),
            Some(earlier) => resume::resumed(earlier, &conditions, before.experiment)?,
        };
        Ok(Self {
            spec,
            lease,
            run,
            configured,
        })
    }
}

/// Measures the fleet, with a watch over it.
fn follow(
    subject: &Subject<'_>,
    clock: Clock,
    experiment: &Experiment,
    configured: Configured,
    run: &mut Run,
    settings: &mut Settings,
    save: &mut Save<'_>,
) -> Result<(), DensityError> {
    let end = Interrupt::never().map_err(DensityError::Watch)?;
    let watch = Watch::start(subject.client.clone(), clock, run.series.clone(), end);
    let stages = Stages {
        subject,
        watch: &watch,
        clock,
        experiment,
        configured,
    };
    let measured = measure(&stages, run, settings, save);
    take(run, &stages);
    measured
}

/// Measures the reference experiment's way, at as many guests as a stage of the fleet.
fn baseline(
    subject: &Subject<'_>,
    experiment: &Experiment,
    spec: &FleetSpec,
    artifacts: &Artifacts,
    lease: Option<&Lease>,
    reached: u32,
) -> Result<Baseline, DensityError> {
    let guests = baseline_guests(reached);
    subject.diary.note(format!(
        "the reference experiment's way: {}",
        counted(guests.into(), "guest")
    ));
    if let Some(lease) = lease {
        lease.hasten();
    }
    let baseline = reference::measure(&reference::Options {
        guests,
        artifacts,
        qemu: &spec.qemu,
        accel: spec.machine.accel,
        keep_free: spec.admission.keep_free,
        settle: experiment.settle,
        directories: subject.directories,
        interrupt: subject.interrupt,
    })?;
    subject.diary.note(format!(
        "{} of {guests} of its guests were ready",
        baseline.ready
    ));
    Ok(baseline)
}

/// What the checks expect a guest to cost.
fn predicted(report: &Report, sharing: Sharing) -> Option<u64> {
    let cost = report.want.cost;
    match sharing {
        Sharing::None => Some(cost.memory),
        Sharing::Guest | Sharing::All => cost.memory_merged.or(Some(cost.memory)),
    }
}

/// Launches the fleet, without guests.
fn begin(
    options: &LaunchOptions,
    experiment: &Experiment,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Report, DensityError> {
    let mut checked = None;
    let mut emit = |event| {
        if let LaunchEvent::Launch(Milestone::Check(report)) = event {
            checked = Some(report);
        }
    };
    let at_most = match experiment.goal {
        Goal::Count => options.guests.count(),
        Goal::Fill => FULL,
    };
    let options = LaunchOptions {
        begin: Begin::Empty { at_most },
        ..options.clone()
    };
    launch(
        &options,
        Attachment::Detached,
        directories,
        interrupt,
        &mut emit,
    )?;
    Ok(*checked.expect("a launch checks the host first"))
}

/// A run that has measured nothing.
fn new(
    name: &str,
    options: &LaunchOptions,
    experiment: &Experiment,
    conditions: Conditions,
) -> Run {
    let seconds = |time: Duration| time.as_secs_f64();
    Run {
        run_version: RUN_VERSION,
        imgbuild: env!("CARGO_PKG_VERSION").to_owned(),
        fleet: name.to_owned(),
        plan: Plan {
            command: experiment.command.clone(),
            goal: experiment.goal,
            stages: experiment.stages.clone(),
            first: options.guests.begin(),
            seed: experiment.seed,
            sample: experiment.answering.most(),
            hold: experiment.hold.map(seconds),
            storm: experiment.storm,
            settle: seconds(experiment.settle),
            keep_free: (options.keep_free)
                .unwrap_or_else(|| host::memory::keep_free(Some(conditions.memory))),
        },
        began: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs()),
        lasted: 0.0,
        outcome: Outcome::Running,
        headline: Headline::default(),
        conditions,
        stages: Vec::new(),
        baseline: None,
        hold: None,
        storm: None,
        series: Vec::new(),
        events: Vec::new(),
    }
}

/// Takes what the watch has seen into the run.
fn take(run: &mut Run, stages: &Stages<'_>) {
    run.series = stages.watch.seen().series();
    run.events = stages.subject.diary.lines();
    run.lasted = stages.clock.now();
    run.headline = figures::headline(run);
}

/// Measures all that was asked for, but the baseline.
fn measure(
    stages: &Stages<'_>,
    run: &mut Run,
    settings: &mut Settings,
    save: &mut Save<'_>,
) -> Result<(), DensityError> {
    let done = run.stages.last().map_or(0, |stage| stage.guests);
    let is_full = matches!(run.outcome, Outcome::Full(_));
    let rest: Vec<_> = (stages.experiment.stages.iter().copied())
        .filter(|guests| *guests > done)
        .collect();
    // One that was full was measured where it was.
    for guests in rest.into_iter().take_while(|_| !is_full) {
        let (stage, growth) = stages.reach(guests, &run.stages)?;
        run.stages.push(stage);
        run.conditions.settings = settings.during();
        let fleet = (stages.subject).call(|client| client.fleet(Detail::Whole))?;
        run.conditions.argv = conditions::argv(&fleet);
        if let Growth::HeldBack(why) = &growth {
            run.outcome = Outcome::Full(cut_paths(why));
        }
        take(run, stages);
        save(run)?;
        if growth != Growth::Whole {
            break;
        }
    }
    if let Some(last) = run.stages.last() {
        stages.restore(last.guests)?;
    }
    if let Some(time) = stages.experiment.hold
        && run.hold.is_none()
    {
        run.hold = Some(hold::hold(stages, time)?);
        take(run, stages);
        save(run)?;
    }
    if let Some(percent) = stages.experiment.storm
        && run.storm.is_none()
    {
        run.storm = Some(storm::storm(stages, percent)?);
        take(run, stages);
        save(run)?;
    }
    Ok(())
}
