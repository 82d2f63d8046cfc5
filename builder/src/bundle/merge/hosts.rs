//! What hosts of shards are, and what was seen of them over time.

use std::collections::{BTreeMap, BTreeSet};

use super::super::conditions::{guest, host};
use super::super::types::{Conditions, Moment, Run, Setting};
use super::{name, sum};

/// The conditions of all; a value that differs names all.
pub(super) fn conditions(shards: &[Run]) -> Conditions {
    let all = || shards.iter().map(|run| &run.conditions);
    let first = &shards[0].conditions;
    let findings: BTreeSet<_> = all().flat_map(|run| &run.findings).collect();
    Conditions {
        host: joined(all().map(|run| &run.host)),
        guest: joined(all().map(|run| &run.guest)),
        argv: first.argv.clone(),
        artifacts: first.artifacts.clone(),
        settings: settings(shards),
        findings: findings.into_iter().cloned().collect(),
        memory: sum::of(all().map(|run| run.memory)),
        cpus: sum::count(all().map(|run| run.cpus)),
        guest_memory: first.guest_memory,
        guest_disk: first.guest_disk,
        load: all().map(|run| run.load).sum(),
        available: sum::of(all().map(|run| run.available)),
    }
}

fn joined<'a>(
    maps: impl Iterator<Item = &'a BTreeMap<String, String>>,
) -> BTreeMap<String, String> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in maps.flatten() {
        let values = values.entry(name.clone()).or_default();
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    let join = |(name, values): (_, Vec<_>)| (name, values.join("; "));
    values.into_iter().map(join).collect()
}

/// Settings of all hosts; one that is not the same on all is named with the guests of
/// its host.
fn settings(shards: &[Run]) -> Vec<Setting> {
    let is_common = |setting: &Setting| {
        let mut all = shards.iter();
        all.all(|run| run.conditions.settings.contains(setting))
    };
    let mut settings = Vec::new();
    for (place, run) in shards.iter().enumerate() {
        for setting in &run.conditions.settings {
            let mut setting = setting.clone();
            if is_common(&setting) {
                if place > 0 {
                    continue;
                }
            } else {
                setting.name = format!("{} (guests {})", setting.name, name(run));
            }
            settings.push(setting);
        }
    }
    settings
}

/// What differs between hosts, a line for each: every fact of the host, and QEMU.
pub(super) fn differing(shards: &[Run]) -> Vec<String> {
    let mut lines = Vec::new();
    let names = shards.iter().flat_map(|run| run.conditions.host.keys());
    let names: BTreeSet<_> = names.map(String::as_str).collect();
    // Of two hosts it always does.
    for name in names.into_iter().filter(|name| *name != host::BOOT.name) {
        lines.extend(line(shards, name, |run| {
            run.conditions.host.get(name).cloned()
        }));
    }
    for condition in [guest::QEMU, guest::QEMU_SHA256] {
        let value = |run: &Run| run.conditions.guest.get(condition.name).cloned();
        lines.extend(line(shards, condition.name, value));
    }
    let number = |value: u64| Some(value.to_string());
    lines.extend(line(shards, "memory", |run| number(run.conditions.memory)));
    lines.extend(line(shards, "cpus", |run| {
        number(run.conditions.cpus.into())
    }));
    lines
}

fn line(shards: &[Run], what: &str, value: impl Fn(&Run) -> Option<String>) -> Option<String> {
    let values: Vec<_> = shards.iter().map(value).collect();
    if values.windows(2).all(|pair| pair[0] == pair[1]) {
        return None;
    }
    let values = shards.iter().zip(values).map(|(run, value)| {
        let value = value.unwrap_or_else(|| "unknown".to_owned());
        format!("{value} (guests {})", name(run))
    });
    Some(format!("{what}: {}", values.collect::<Vec<_>>().join(", ")))
}

/// The fleet at each time at which one of its hosts was looked at: what is known of the
/// others is what was seen last.
pub(super) fn series(shards: &[Run]) -> Vec<Moment> {
    let mut times: Vec<_> = shards
        .iter()
        .flat_map(|run| run.series.iter().map(|moment| moment.at))
        .collect();
    times.sort_by(f64::total_cmp);
    times.dedup();
    let mut seen: Vec<_> = shards.iter().map(before).collect();
    let mut next = vec![0; shards.len()];
    let mut series = Vec::new();
    for at in times {
        for ((run, seen), next) in shards.iter().zip(&mut seen).zip(&mut next) {
            while let Some(moment) = run.series.get(*next).filter(|moment| moment.at <= at) {
                seen.clone_from(moment);
                *next += 1;
            }
        }
        series.push(together(at, &seen));
    }
    series
}

/// A host before it was looked at.
fn before(run: &Run) -> Moment {
    Moment {
        at: 0.0,
        ready: 0,
        alive: 0,
        available: Some(run.conditions.available),
        unmerged: Some(0),
        saved: Some(0),
        ksmd: Some(0.0),
    }
}

fn together(at: f64, hosts: &[Moment]) -> Moment {
    let hosts = || hosts.iter();
    Moment {
        at,
        ready: sum::count(hosts().map(|host| host.ready)),
        alive: sum::count(hosts().map(|host| host.alive)),
        available: sum::all(hosts().map(|host| host.available)),
        unmerged: sum::all(hosts().map(|host| host.unmerged)),
        saved: sum::all(hosts().map(|host| host.saved)),
        ksmd: sum::all_shares(hosts().map(|host| host.ksmd)),
    }
}
