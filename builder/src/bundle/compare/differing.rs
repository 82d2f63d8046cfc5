//! The conditions in which runs differ.

use std::collections::BTreeSet;

use serde::Serialize;

use super::super::conditions::{Condition, Weight, guest, host};
use super::super::figures::bytes;
use super::super::types::{Conditions, Run};

/// How far the host memory of two runs may be apart, as a share of the larger: kernels
/// keep different amounts for themselves.
const MEMORY_BOUND: f64 = 0.01;
/// How far the load from elsewhere of two runs may be apart, in CPU seconds a second
/// for each CPU.
const LOAD_BOUND: f64 = 0.05;

/// A condition in which runs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// Its name.
    pub condition: String,
    /// What it is, for people.
    pub title: String,
    /// Whether it alone may explain other figures.
    pub matters: bool,
    /// Its value in each run; null where that does not say.
    pub values: Vec<Option<String>>,
}

/// All of them, those that matter first.
pub(super) fn differing(runs: &[Run]) -> Vec<Differing> {
    let runs: Vec<_> = runs.iter().map(|run| &run.conditions).collect();
    let mut all = Vec::new();
    for condition in host::ALL {
        all.extend(by_name(&runs, condition, |run| {
            run.host.get(condition.name)
        }));
    }
    for condition in guest::ALL {
        all.extend(by_name(&runs, condition, |run| {
            run.guest.get(condition.name)
        }));
    }
    all.extend(measured(&runs));
    all.extend(artifacts(&runs));
    all.extend(settings(&runs));
    all.extend(unknown(&runs));
    all.sort_by_key(|differing| !differing.matters);
    all
}

/// A condition, where its values are not the same.
fn of(name: &str, title: &str, weight: Weight, values: Vec<Option<String>>) -> Option<Differing> {
    let is_same = values.windows(2).all(|pair| pair[0] == pair[1]);
    (!is_same).then(|| Differing {
        condition: name.to_owned(),
        title: title.to_owned(),
        matters: weight == Weight::Matters,
        values,
    })
}

fn by_name<'a>(
    runs: &[&'a Conditions],
    condition: Condition,
    value: impl Fn(&'a Conditions) -> Option<&'a String>,
) -> Option<Differing> {
    let Condition {
        name,
        title,
        weight,
    } = condition;
    let values = runs.iter().map(|run| value(run).cloned());
    of(name, title, weight, values.collect())
}

/// What is a number.
fn measured(runs: &[&Conditions]) -> Vec<Differing> {
    let numbers = |value: fn(&Conditions) -> u64| {
        let values = runs.iter().map(|run| Some(value(run).to_string()));
        values.collect::<Vec<_>>()
    };
    let spread = |value: fn(&Conditions) -> f64| {
        let values = || runs.iter().map(|run| value(run));
        let most = values().fold(f64::NEG_INFINITY, f64::max);
        (most - values().fold(f64::INFINITY, f64::min), most)
    };
    let (apart, most) = spread(|run| bytes(run.memory));
    let memory = (apart > MEMORY_BOUND * most).then(|| numbers(|run| run.memory));
    let (apart, _) = spread(|run| run.load / f64::from(run.cpus.max(1)));
    let load = (apart > LOAD_BOUND).then(|| {
        let values = runs.iter().map(|run| Some(format!("{:.2} CPUs", run.load)));
        values.collect::<Vec<_>>()
    });
    let matters = Weight::Matters;
    [
        of(
            "cpus",
            "the number of CPUs",
            matters,
            numbers(|run| run.cpus.into()),
        ),
        memory.and_then(|values| of("memory", "the host's RAM, in bytes", matters, values)),
        load.and_then(|values| of("load", "load from elsewhere", matters, values)),
        of(
            "guest_memory",
            "the RAM of a guest, in bytes",
            matters,
            numbers(|run| run.guest_memory),
        ),
        of(
            "guest_disk",
            "the disk of a guest, in bytes",
            Weight::Noted,
            numbers(|run| run.guest_disk),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn artifacts(runs: &[&Conditions]) -> Vec<Differing> {
    let names: BTreeSet<_> = runs.iter().flat_map(|run| run.artifacts.keys()).collect();
    let of_name = |name: &String| {
        let digest = |run: &&Conditions| run.artifacts.get(name).map(ToString::to_string);
        let values = runs.iter().map(digest).collect();
        let (name, title) = (format!("artifacts.{name}"), format!("the artifact {name}"));
        of(&name, &title, Weight::Matters, values)
    };
    names.into_iter().filter_map(of_name).collect()
}

/// Host settings while the fleet was there.
fn settings(runs: &[&Conditions]) -> Vec<Differing> {
    let all = runs.iter().flat_map(|run| &run.settings);
    let names: BTreeSet<_> = all.map(|setting| &setting.name).collect();
    let of_name = |name: &String| {
        let during = |run: &&Conditions| {
            let mut settings = run.settings.iter();
            settings
                .find(|setting| setting.name == *name)?
                .during
                .clone()
        };
        let values = runs.iter().map(during).collect();
        let (name, title) = (format!("settings.{name}"), format!("the setting {name}"));
        of(&name, &title, Weight::Noted, values)
    };
    names.into_iter().filter_map(of_name).collect()
}

/// Conditions that a later imgbuild recorded.
fn unknown(runs: &[&Conditions]) -> Vec<Differing> {
    let known = || host::ALL.iter().chain(&guest::ALL);
    let names = runs
        .iter()
        .flat_map(|run| run.host.keys().chain(run.guest.keys()));
    let names: BTreeSet<_> = names
        .filter(|name| known().all(|condition| condition.name != **name))
        .collect();
    let of_name = |name: &String| {
        let value = |run: &&Conditions| run.host.get(name).or_else(|| run.guest.get(name)).cloned();
        of(name, name, Weight::Noted, runs.iter().map(value).collect())
    };
    names.into_iter().filter_map(of_name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::example::example;
    use super::*;
    use crate::digest::Sha256;

    /// What differs in a run that was changed so, by name, and whether it matters.
    fn changed(change: impl Fn(&mut Conditions)) -> Vec<(String, bool)> {
        let (a, mut b) = (example(), example());
        change(&mut b.conditions);
        let found = differing(&[a, b]).into_iter();
        found
            .map(|found| (found.condition, found.matters))
            .collect()
    }

    type Change = fn(&mut Conditions);

    #[test]
    fn what_matters_is_named_and_what_does_not_is_noted() {
        let one = |name: &str, matters| vec![(name.to_owned(), matters)];
        let matter = [host::KERNEL, host::CPU_MODEL];
        for condition in matter.iter().chain(&host::ALL) {
            let found = changed(|run| {
                run.host
                    .insert(condition.name.to_owned(), "other".to_owned());
            });
            let matters = matter.contains(condition);
            assert_eq!(found, one(condition.name, matters));
        }
        let matter = [
            guest::QEMU,
            guest::QEMU_SHA256,
            guest::ACCEL,
            guest::SHARING,
        ];
        for condition in matter.iter().chain(&guest::ALL) {
            let found = changed(|run| drop(run.guest.remove(condition.name)));
            let matters = matter.contains(condition);
            assert_eq!(found, one(condition.name, matters));
        }
        let vmlinux = || "vmlinux".to_owned();
        let changes: [(&str, bool, Change); 7] = [
            ("cpus", true, |run| run.cpus = 4),
            ("memory", true, |run| run.memory = 32 << 30),
            ("load", true, |run| run.load = 0.5),
            ("guest_memory", true, |run| run.guest_memory += 1),
            ("guest_disk", false, |run| run.guest_disk += 1),
            ("settings.ksm.pages_to_scan", false, |run| {
                run.settings[0].during = None;
            }),
            ("new", false, |run| {
                run.guest.insert("new".to_owned(), "1".to_owned());
            }),
        ];
        for (name, matters, change) in changes {
            assert_eq!(changed(change), one(name, matters));
        }
        let found = changed(|run| {
            run.artifacts.insert(vmlinux(), Sha256::of_bytes("other"));
        });
        assert_eq!(found, one("artifacts.vmlinux", true));
    }

    #[test]
    fn what_is_within_bounds_does_not_differ() {
        assert_eq!(changed(|run| run.memory += 1 << 20), []);
        assert_eq!(changed(|run| run.load += 0.05), []);
    }
}
