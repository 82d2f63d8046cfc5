//! Resumes a run that was interrupted or killed.

use super::error::DensityError;
use super::plan::Experiment;
use crate::bundle::conditions::{self, Weight};
use crate::bundle::types::{Conditions, Outcome, Run};
use crate::directories::Directories;
use crate::store::find::find;
use crate::store::folder::read_spec;

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
    let first = spec.guests.begin().get();
    let uuid = spec.instance.uuid(first);
    Ok(run.conditions.argv.contains(&uuid))
}

/// That run as it goes on, unless it would go on under other conditions.
pub(super) fn resumed(
    run: Run,
    now: &Conditions,
    experiment: &Experiment,
) -> Result<Run, DensityError> {
    let then = &run.conditions;
    let differs = |what, was: String, is: String| Err(DensityError::Differs { what, was, is });
    for (all, was, is) in [
        (&conditions::host::ALL[..], &then.host, &now.host),
        (&conditions::guest::ALL[..], &then.guest, &now.guest),
    ] {
        for condition in all.iter().filter(|one| one.weight == Weight::Matters) {
            let value = |of: &std::collections::BTreeMap<String, String>| {
                of.get(condition.name)
                    .cloned()
                    .unwrap_or_else(|| "unknown".to_owned())
            };
            if value(was) != value(is) {
                return differs(condition.title, value(was), value(is));
            }
        }
    }
    if then.artifacts != now.artifacts {
        let digests = |of: &Conditions| {
            let digests = of.artifacts.values().map(ToString::to_string);
            digests.collect::<Vec<_>>().join(" ")
        };
        return differs("the artifacts' digests", digests(then), digests(now));
    }
    for (what, was, is) in [
        ("a guest's RAM", then.guest_memory, now.guest_memory),
        ("the host's memory", then.memory, now.memory),
        ("the number of CPUs", then.cpus.into(), now.cpus.into()),
        ("--seed", run.plan.seed, experiment.seed),
    ] {
        if was != is {
            return differs(what, was.to_string(), is.to_string());
        }
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
