//! Several bundles as one: shards of a fleet, each on a host of its own, that ran at
//! the same time.
//!
//! A stage of the fleet is the same stage of each shard; a shard that has fewer takes
//! part in later ones with its last.

use std::fmt::Display;

use super::conditions::{Condition, guest, host};
use super::headline;
use super::sound::all_numbers;
use super::types::{Goal, Happening, Outcome, Plan, Run};
use crate::units::GuestIndex;

mod hosts;
mod stages;
mod sum;

/// The run of a whole fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// Its shards as one; its headline is computed from all samples.
    pub run: Run,
    /// What differs between the shards' hosts, a line for each.
    pub differing: Vec<String>,
}

/// Bundles that are not shards of one fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// They are of different fleets, or of different guests.
    #[error(
        "cannot merge the bundles: {what} is {one} in one and {other} in another, so they are not \
         shards of one fleet; `imgbuild compare` puts them side by side"
    )]
    Differ {
        /// What.
        what: &'static str,
        /// As one has it.
        one: String,
        /// As another has it.
        other: String,
    },
    /// Two have guests of the same number.
    #[error(
        "cannot merge the bundles: one has guests {one} and another has {other}, and a fleet has \
         each guest once; give each shard guests of its own with --first"
    )]
    Guests {
        /// The guests of one.
        one: String,
        /// The guests of another.
        other: String,
    },
    /// Two ran on one host.
    #[error(
        "cannot merge the bundles: guests {one} and guests {other} ran on one host ({} {boot}), \
         whose memory and CPUs would count twice",
        host::BOOT.name
    )]
    OneHost {
        /// The guests of one.
        one: String,
        /// The guests of another.
        other: String,
        /// The boot that they have in common.
        boot: String,
    },
    /// Two did not run at the same time.
    #[error(
        "cannot merge the bundles: the run of guests {one} was over before that of guests {other} \
         began, so they were never one fleet"
    )]
    Apart {
        /// The guests of the earlier.
        one: String,
        /// The guests of the later.
        other: String,
    },
}

/// Conditions of guests that shards have in common: the QEMU is its host's.
const COMMON: [Condition; 7] = [
    guest::ACCEL,
    guest::SHARING,
    guest::NET,
    guest::START,
    guest::RECIPE,
    guest::RESTART,
    guest::DISK,
];

/// The shards, of which there is one at least, as one run.
pub fn merge(mut shards: Vec<Run>) -> Result<Merged, MergeError> {
    if shards.len() == 1 {
        return Ok(Merged {
            run: shards.remove(0),
            differing: Vec::new(),
        });
    }
    let (first, others) = shards.split_first().expect("there is one");
    for other in others {
        check_kind(first, other)?;
    }
    check_apart(&shards)?;
    shards.sort_by_key(|run| run.plan.first);
    let began = sum::least(shards.iter().map(|run| run.began));
    for shard in &mut shards {
        stages::shift(shard, began);
    }
    let first = &shards[0];
    let mut run = Run {
        run_version: first.run_version,
        imgbuild: first.imgbuild.clone(),
        fleet: first.fleet.clone(),
        plan: plan(&shards),
        began,
        lasted: sum::most(shards.iter().map(|run| run.lasted)),
        outcome: outcome(&shards),
        headline: first.headline.clone(),
        conditions: hosts::conditions(&shards),
        stages: stages::stages(&shards),
        baseline: stages::baseline(&shards),
        hold: stages::hold(&shards),
        storm: stages::storm(&shards),
        series: hosts::series(&shards),
        events: events(&shards),
    };
    run.headline = headline(&run);
    let differing = hosts::differing(&shards);
    Ok(Merged { run, differing })
}

/// A shard by its guests, such as `g00000 to g00299`.
fn name(run: &Run) -> String {
    let numbers = all_numbers(run);
    let last = GuestIndex::new(numbers.end.saturating_sub(1)).unwrap_or_default();
    format!("{} to {last}", run.plan.first)
}

fn check_kind(first: &Run, other: &Run) -> Result<(), MergeError> {
    same("the run version", &first.run_version, &other.run_version)?;
    same("the fleet", &first.fleet, &other.fleet)?;
    let (a, b) = (&first.conditions, &other.conditions);
    let names = a.artifacts.keys().chain(b.artifacts.keys());
    for name in names {
        let digest = |digest: Option<_>| match digest {
            Some(digest) => format!("{name} {digest}"),
            None => format!("{name} missing"),
        };
        let [one, other] = [a, b].map(|run| digest(run.artifacts.get(name)));
        same("an artifact", &one, &other)?;
    }
    for condition in COMMON {
        let [one, other] = [a, b].map(|run| run.guest.get(condition.name));
        let or_unknown =
            |value: Option<&String>| value.map_or("unknown", String::as_str).to_owned();
        same(condition.title, &or_unknown(one), &or_unknown(other))?;
    }
    same("the RAM of a guest", &a.guest_memory, &b.guest_memory)?;
    same("the disk of a guest", &a.guest_disk, &b.guest_disk)
}

fn same<T: PartialEq + Display>(what: &'static str, one: &T, other: &T) -> Result<(), MergeError> {
    if one == other {
        return Ok(());
    }
    Err(MergeError::Differ {
        what,
        one: one.to_string(),
        other: other.to_string(),
    })
}

/// That no two have a guest, a host or a time of their own in common, or none.
fn check_apart(shards: &[Run]) -> Result<(), MergeError> {
    let pairs = shards.iter().enumerate();
    let pairs = pairs.flat_map(|(place, a)| shards[place + 1..].iter().map(move |b| (a, b)));
    for (a, b) in pairs {
        let (one, other) = (name(a), name(b));
        let [x, y] = [a, b].map(all_numbers);
        if x.start < y.end && y.start < x.end {
            return Err(MergeError::Guests { one, other });
        }
        let [at, bt] = [a, b].map(|run| run.conditions.host.get(host::BOOT.name));
        if let (Some(boot), true) = (at, at == bt) {
            let boot = boot.clone();
            return Err(MergeError::OneHost { one, other, boot });
        }
        let (earlier, later) = if a.began <= b.began { (a, b) } else { (b, a) };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact")]
        let after = (later.began - earlier.began) as f64;
        if earlier.lasted < after {
            let (one, other) = (name(earlier), name(later));
            return Err(MergeError::Apart { one, other });
        }
    }
    Ok(())
}

fn plan(shards: &[Run]) -> Plan {
    let plans = || shards.iter().map(|run| &run.plan);
    let mut plan = shards[0].plan.clone();
    if plans().any(|plan| plan.goal == Goal::Fill) {
        plan.goal = Goal::Fill;
    }
    let longest = sum::most(plans().map(|plan| plan.stages.len()));
    let of_stage = |place: usize| {
        let stages = plans().filter_map(|plan| plan.stages.get(place).or(plan.stages.last()));
        stages.fold(0_u32, |sum, guests| sum.saturating_add(*guests))
    };
    plan.stages = (0..longest).map(of_stage).collect();
    plan.sample = sum::all(plans().map(|plan| plan.sample.map(u64::from)))
        .and_then(|sum| u32::try_from(sum).ok());
    plan.settle = sum::most(plans().map(|plan| plan.settle));
    plan.keep_free = sum::of(plans().map(|plan| plan.keep_free));
    plan
}

/// The worst of all ends, with the guests whose it was.
fn outcome(shards: &[Run]) -> Outcome {
    let rank = |run: &&Run| match run.outcome {
        Outcome::Complete => 0,
        Outcome::Full(_) => 1,
        Outcome::Running => 2,
        Outcome::Interrupted => 3,
        Outcome::Failed(_) => 4,
    };
    let worst = shards.iter().max_by_key(rank);
    worst.map_or(Outcome::Complete, |run| match &run.outcome {
        Outcome::Full(why) => Outcome::Full(format!("guests {}: {why}", name(run))),
        Outcome::Failed(why) => Outcome::Failed(format!("guests {}: {why}", name(run))),
        other => other.clone(),
    })
}

fn events(shards: &[Run]) -> Vec<Happening> {
    let mut events: Vec<_> = shards
        .iter()
        .flat_map(|run| {
            run.events.iter().map(|event| Happening {
                at_ms: event.at_ms,
                what: format!("guests {}: {}", name(run), event.what),
            })
        })
        .collect();
    events.sort_by_key(|event| event.at_ms);
    events
}

#[cfg(test)]
mod tests;
