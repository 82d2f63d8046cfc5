//! The values that are written into the files of a fleet's cgroup.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use super::class::Class;
use super::error::CpuError;
use super::spec::PlacementSpec;
use crate::sample::cgroup::Hierarchy;

/// Weight of a group that nobody gave one (`cpu.weight`; version 1 calls it
/// 1,024 shares).
const DEFAULT: u64 = 100;
const DEFAULT_SHARES: u64 = 1024;
/// Weight of the urgent guests against the others' [`DEFAULT`]: four fifths of
/// the fleet's CPU time if they want it, however many there are of each. Half
/// is promised. The kernel splits a group's weight over CPUs by what it
/// estimates to run there, and the estimate lags.
const URGENT: u64 = 400;
/// Period of a quota, in microseconds; the kernel's own default.
const PERIOD: f64 = 100_000.0;
/// Smallest quota that the kernel takes, in microseconds.
const QUOTA_MIN: f64 = 1000.0;

/// A file of a group, and what it is to say.
pub(crate) type Setting = (&'static str, String);

/// Writes settings into a group.
pub(crate) fn write(group: &Path, settings: Vec<Setting>) -> Result<(), CpuError> {
    for (file, value) in settings {
        let path = group.join(file);
        let opened = OpenOptions::new().write(true).open(&path);
        let written = opened.and_then(|mut file| file.write_all(value.as_bytes()));
        written.map_err(|source| CpuError::Cgroup {
            what: format!("write {value} to"),
            path,
            source,
        })?;
    }
    Ok(())
}

/// The flags of `spec` that only a cgroup can carry out.
pub(crate) fn asked(spec: &PlacementSpec) -> String {
    let flags = [
        ("--cpu-weight", spec.cpu_weight.is_some()),
        ("--cpu-max", spec.cpu_max.is_some()),
        ("--memory-max", spec.memory_max.is_some()),
    ];
    let asked: Vec<_> = flags
        .into_iter()
        .filter_map(|(flag, asked)| asked.then_some(flag))
        .collect();
    asked.join(" with ")
}

/// Of the fleet's group, for CPU time.
pub(crate) fn cpu(hierarchy: Hierarchy, spec: &PlacementSpec) -> Vec<Setting> {
    // A nice value counts within a group only, so the group gets the weight of
    // a process with it.
    let weight = spec
        .nice
        .map_or(spec.cpu_weight, |nice| Some(of_nice(nice)));
    let quota = spec.cpu_max.map(quota);
    let weight = weight.map(|weight| self::weight(hierarchy, weight));
    let quota = quota.map(|quota| match hierarchy {
        Hierarchy::V1 => ("cpu.cfs_quota_us", quota.to_string()),
        Hierarchy::V2 => ("cpu.max", format!("{quota} {PERIOD}")),
    });
    weight.into_iter().chain(quota).collect()
}

/// Of the fleet's group, for memory.
pub(crate) fn memory(hierarchy: Hierarchy, spec: &PlacementSpec) -> Vec<Setting> {
    let file = match hierarchy {
        Hierarchy::V1 => "memory.limit_in_bytes",
        Hierarchy::V2 => "memory.max",
    };
    let max = spec.memory_max.map(|max| (file, max.bytes().to_string()));
    max.into_iter().collect()
}

/// Of the group of a class.
pub(crate) fn class(hierarchy: Hierarchy, class: Class) -> Vec<Setting> {
    let weight = match class {
        Class::Urgent => URGENT,
        Class::Running => DEFAULT,
    };
    vec![self::weight(hierarchy, weight)]
}

fn weight(hierarchy: Hierarchy, weight: u64) -> Setting {
    match hierarchy {
        Hierarchy::V1 => {
            let shares = weight * DEFAULT_SHARES / DEFAULT;
            ("cpu.shares", shares.to_string())
        }
        Hierarchy::V2 => ("cpu.weight", weight.to_string()),
    }
}

/// The weight of a process with a nice value: a quarter more for each step
/// (sched(7)), within what `cpu.weight` takes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "1 to 10,000"
)]
fn of_nice(nice: i32) -> u64 {
    let weight = DEFAULT as f64 / 1.25_f64.powi(nice);
    weight.round().clamp(1.0, 10_000.0) as u64
}

/// Microseconds of CPU time in a [`PERIOD`].
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts from floating point saturate, and the kernel refuses what is too large"
)]
fn quota(cpus: f64) -> u64 {
    (cpus * PERIOD).round().max(QUOTA_MIN) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ByteSize;

    #[test]
    fn flags_become_files() {
        let spec = PlacementSpec {
            cpu_weight: Some(250),
            cpu_max: Some(1.5),
            memory_max: ByteSize::new(1 << 20),
            ..PlacementSpec::default()
        };
        let setting = |file, value: &str| (file, value.to_owned());
        assert_eq!(
            cpu(Hierarchy::V2, &spec),
            [
                setting("cpu.weight", "250"),
                setting("cpu.max", "150000 100000")
            ]
        );
        assert_eq!(
            cpu(Hierarchy::V1, &spec),
            [
                setting("cpu.shares", "2560"),
                setting("cpu.cfs_quota_us", "150000")
            ]
        );
        assert_eq!(
            memory(Hierarchy::V2, &spec),
            [setting("memory.max", "1048576")]
        );
        assert_eq!(
            memory(Hierarchy::V1, &spec),
            [setting("memory.limit_in_bytes", "1048576")]
        );
        assert_eq!(
            asked(&spec),
            "--cpu-weight with --cpu-max with --memory-max"
        );
        let none = PlacementSpec::default();
        assert!(cpu(Hierarchy::V1, &none).is_empty() && memory(Hierarchy::V2, &none).is_empty());
        assert_eq!(asked(&none), "");
    }

    #[test]
    fn urgent_guests_weigh_more_than_all_others() {
        let value = |hierarchy, of| class(hierarchy, of)[0].clone();
        assert_eq!(
            value(Hierarchy::V2, Class::Urgent),
            ("cpu.weight", "400".to_owned())
        );
        assert_eq!(
            value(Hierarchy::V2, Class::Running),
            ("cpu.weight", "100".to_owned())
        );
        assert_eq!(
            value(Hierarchy::V1, Class::Urgent),
            ("cpu.shares", "4096".to_owned())
        );
        assert_eq!(
            value(Hierarchy::V1, Class::Running),
            ("cpu.shares", "1024".to_owned())
        );
    }

    #[test]
    fn a_nice_value_is_a_weight() {
        // The kernel's own: 335 of 1,024 at 5, 15 at 19, 88,761 at -20.
        for (nice, weight) in [(0, 100), (5, 33), (19, 1), (-5, 305), (-20, 8674)] {
            assert_eq!(of_nice(nice), weight);
        }
    }

    #[test]
    fn a_quota_is_never_less_than_the_kernel_takes() {
        for (cpus, microseconds) in [(0.000_1, 1000), (0.25, 25_000), (64.0, 6_400_000)] {
            assert_eq!(quota(cpus), microseconds);
        }
    }
}
