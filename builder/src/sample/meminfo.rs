//! The host's memory: `/proc/meminfo` and files of its form, `/proc/vmstat`, and the
//! memory pressure.

use std::collections::HashMap;
use std::path::Path;

use super::source::{Source, counter};

/// The fields of `/proc/meminfo`, or of what has its form: a NUMA node's, or a
/// process's `status`.
pub(crate) fn fields(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect()
}

/// The bytes of a size such as `24684092 kB`.
pub(crate) fn bytes(size: &str) -> Option<u64> {
    let kibibytes: u64 = size.strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// A size in `/proc/meminfo`, in bytes.
pub(crate) fn size(source: &mut Source, name: &str) -> Option<u64> {
    let text = source.text("proc/meminfo")?;
    bytes(fields(&text).get(name)?)
}

/// Memory that the kernel could give to processes, in bytes.
pub(crate) fn available(source: &mut Source) -> Option<u64> {
    size(source, "MemAvailable")
}

/// Share of the last ten seconds in which some task waited for `memory`, the `cpu` or
/// `io`, in percent (kernel document accounting/psi).
pub(crate) fn pressure(source: &mut Source, of: &str) -> Option<f64> {
    let text = source.text(format!("proc/pressure/{of}"))?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let figure = some
        .split(' ')
        .find_map(|word| word.strip_prefix("avg10="))?;
    let percent: f64 = figure.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

/// How many processes the kernel has killed for want of memory since the boot,
/// in a cgroup or on the whole host; 0 where it does not tell.
pub(crate) fn oom_kills(root: &Path) -> u64 {
    let text = Source::new(root, &mut Vec::new()).text("proc/vmstat");
    text.and_then(|text| counter(&text, "oom_kill"))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_cut_or_makes_no_sense_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join("proc").join(name);
        fs::create_dir_all(path("pressure")).unwrap();
        let mut unseen = Vec::new();
        let endless = "MemAvailable: 1 kB\n".repeat(1 << 17);
        for (text, bytes) in [
            ("MemTotal:  9 kB\nMemAvailable:    3 kB\n", Some(3 << 10)),
            ("MemAvailable: 3 k", None),
            ("MemAvail", None),
            ("MemAvailable: -3 kB\n", None),
            ("MemAvailable: 18446744073709551615 kB\n", None),
            ("MemAvailable: \u{fffd} kB\n", None),
            (&endless, None),
        ] {
            fs::write(path("meminfo"), text).unwrap();
            let mut source = Source::new(root.path(), &mut unseen);
            assert_eq!(available(&mut source), bytes, "{text:.40}");
        }
        for (text, percent) in [
            ("some avg10=1.50 avg60=0.00\nfull avg10=9.00", Some(1.5)),
            ("full avg10=9.00 avg60=0.00\n", None),
            ("some avg10=", None),
            ("some avg10=NaN avg60=0.00\n", None),
            ("some avg10=1e300 avg60=0.00\n", None),
            ("some avg10=-1 avg60=0.00\n", None),
        ] {
            fs::write(path("pressure/memory"), text).unwrap();
            let mut source = Source::new(root.path(), &mut unseen);
            assert_eq!(pressure(&mut source, "memory"), percent, "{text:?}");
        }
        for (text, kills) in [("oom_kill 7\n", 7), ("oom_kill", 0), ("oom_kill -7\n", 0)] {
            fs::write(path("vmstat"), text).unwrap();
            assert_eq!(oom_kills(root.path()), kills, "{text:?}");
        }
    }
}
