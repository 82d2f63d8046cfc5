//! Resumes a run that was interrupted or killed.

use std::collections::BTreeMap;

use super::error::DensityError;
use super::plan::Experiment;
use crate::artifact::Manifest;
use crate::bundle::conditions::{self, Weight};
use crate::bundle::types::{Conditions, Goal, Outcome, Run};
use crate::digest::Sha256;
use crate::directories::Directories;
use crate::launch::LaunchOptions;
use crate::store::find::find;
use crate::store::folder::read_spec;
use crate::store::orphans::guest_of;

/// Whether the fleet of that run is still there, as after a run that was killed.
pub(super) fn fleet_lives(
    run: &Run,
    name: &str,
    directories: &Directories,
) -> Result<bool, DensityError> {
    let Ok(found) = find(Some(name), directories) else {
        return Ok(false);
    };
    let spec = read_spec(found.paths.path())?;
    // By the identity of the guest whose command line the run recorded.
    let argv = run.conditions.argv.iter();
    Ok(argv
        .map(String::as_bytes)
        .any(|word| guest_of(word, spec.instance).is_some()))
}

/// Refuses to go on with a run that began with other options or artifacts, before
/// anything is started.
pub(super) fn compare_options(
    run: &Run,
    options: &LaunchOptions,
    experiment: &Experiment,
    manifest: &Manifest,
) -> Result<(), DensityError> {
    let was = &run.plan;
    let sample = |sample: Option<u32>| sample.map_or("all".to_owned(), |most| most.to_string());
    let goal = |goal| match goal {
        Goal::Count => "to grow to --count".to_owned(),
        Goal::Fill => "to --fill the host".to_owned(),
    };
    let settle = experiment.settle.as_secs_f64();
    let keep_free = options.keep_free.unwrap_or(was.keep_free);
    for (what, was, is) in [
        ("its goal", goal(was.goal), goal(experiment.goal)),
        (
            "--first",
            was.first.to_string(),
            options.guests.begin().to_string(),
        ),
        ("--seed", was.seed.to_string(), experiment.seed.to_string()),
        (
            "--answering",
            sample(was.sample),
            sample(experiment.answering.most()),
        ),
        (
            "--settle in seconds",
            was.settle.to_string(),
            settle.to_string(),
        ),
        (
            "--keep-free in bytes",
            was.keep_free.to_string(),
            keep_free.to_string(),
        ),
    ] {
        same(what, was, is)?;
    }
    let digests = |digests: Vec<Sha256>| {
        let digests = digests.iter().map(ToString::to_string);
        digests.collect::<Vec<_>>().join(" ")
    };
    let was = run.conditions.artifacts.values().copied().collect();
    let is = manifest.files.values().map(|file| file.sha256).collect();
    same("the artifacts' digests", digests(was), digests(is))
}

/// That run as it goes on, unless it would go on under other conditions.
pub(super) fn resumed(
    run: Run,
    now: &Conditions,
    experiment: &Experiment,
) -> Result<Run, DensityError> {
    let then = &run.conditions;
    let value = |of: &BTreeMap<String, String>, name: &str| {
        of.get(name)
            .cloned()
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let host = conditions::host::ALL.iter();
    for condition in host.filter(|one| one.weight == Weight::Matters) {
        let value = |of| value(of, condition.name);
        same(condition.title, value(&then.host), value(&now.host))?;
    }
    // One fleet has one set of these.
    for condition in &conditions::guest::ALL {
        let value = |of| value(of, condition.name);
        same(condition.title, value(&then.guest), value(&now.guest))?;
    }
    for (what, was, is) in [
        ("a guest's RAM", then.guest_memory, now.guest_memory),
        ("the host's memory", then.memory, now.memory),
        ("the number of CPUs", then.cpus.into(), now.cpus.into()),
    ] {
        same(what, was.to_string(), is.to_string())?;
    }
    let mut run = run;
    if !matches!(run.outcome, Outcome::Full(_)) {
        run.outcome = Outcome::Running;
    }
    run.plan.stages.clone_from(&experiment.stages);
    run.plan.hold = experiment.hold.map(|time| time.as_secs_f64());
    run.plan.storm = experiment.storm;
    Ok(run)
}

fn same(what: &'static str, was: String, is: String) -> Result<(), DensityError> {
    if was == is {
        return Ok(());
    }
    Err(DensityError::Differs { what, was, is })
}
