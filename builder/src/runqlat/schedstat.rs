//! The kernel's counters of each thread, where BPF is not allowed: means only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::members::Target;
use super::types::Class;
use super::waits::{Waits, bucket};
use crate::sample::processes;

/// What a thread waited up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counters {
    nanoseconds: u64,
    /// How often it got a CPU.
    times: u64,
    class: Class,
    target: Target,
}

/// All threads, by their numbers.
pub(super) type Look = BTreeMap<u32, Counters>;

/// Looks at the threads of these processes.
pub(super) fn look(processes: &[(u32, Target)]) -> Look {
    let mut look = Look::new();
    for &(pid, target) in processes {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let is_vmm = name(&process).starts_with("qemu");
        // One that ended has none.
        for entry in fs::read_dir(process.join("task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let thread = entry.path();
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let counters = processes::text(&thread, "schedstat").unwrap_or_default();
            let (Some(number), Some((nanoseconds, times))) = (number, waited(&counters)) else {
                continue;
            };
            let class = class(&name(&thread), is_vmm, number == pid);
            let counters = Counters {
                nanoseconds,
                times,
                class,
                target,
            };
            look.insert(number, counters);
        }
    }
    look
}

fn name(folder: &Path) -> String {
    processes::text(folder, "comm").unwrap_or_default()
}

/// As the program in the kernel tells them apart.
fn class(name: &str, is_vmm: bool, is_first: bool) -> Class {
    match (name.starts_with("CPU "), is_vmm, is_first) {
        (true, _, _) => Class::Vcpu,
        (_, false, _) => Class::Other,
        (_, _, true) => Class::Vmm,
        (_, _, false) => Class::Io,
    }
}

/// The last two of the three fields: nanoseconds waited, and times that it got a CPU
/// (kernel document scheduler/sched-stats).
fn waited(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_ascii_whitespace().skip(1).map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

/// What threads waited between two looks: each wait of a thread counts as their mean.
pub(super) fn between(before: &Look, after: &Look) -> BTreeMap<(Class, Target), Waits> {
    let mut sums: BTreeMap<(Class, Target), Waits> = BTreeMap::new();
    for (thread, now) in after {
        let then = before.get(thread).filter(|then| then.times <= now.times);
        let (waited, times) = then.map_or((0, 0), |then| (then.nanoseconds, then.times));
        let nanoseconds = now.nanoseconds.saturating_sub(waited);
        let count = now.times - times;
        let Some(mean) = nanoseconds.checked_div(count) else {
            continue;
        };
        let mut waits = Waits {
            count,
            nanoseconds,
            longest: mean,
            ..Waits::default()
        };
        waits.buckets[bucket(mean)] = count;
        sums.entry((now.class, now.target)).or_default().add(&waits);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(threads: &[(u32, u64, u64)]) -> Look {
        let counters = |&(thread, nanoseconds, times)| {
            let counters = Counters {
                nanoseconds,
                times,
                class: Class::Vcpu,
                target: Target::Process(7),
            };
            (thread, counters)
        };
        threads.iter().map(counters).collect()
    }

    #[test]
    fn a_thread_s_waits_count_as_their_mean() {
        let before = look(&[(1, 1_000_000, 10), (2, 5, 5), (3, 9, 9)]);
        // One waited, one did not, one's number is another's by now, and one is new.
        let after = look(&[(1, 3_000_000, 14), (2, 5, 5), (3, 8_000, 2), (4, 64_000, 1)]);
        let sums = between(&before, &after);
        let waits = sums[&(Class::Vcpu, Target::Process(7))];
        assert_eq!((waits.count, waits.nanoseconds), (7, 2_072_000));
        assert_eq!(waits.longest, 500_000);
        assert_eq!(
            (waits.buckets[8], waits.buckets[2], waits.buckets[6]),
            (4, 2, 1)
        );
    }

    #[test]
    fn counters_are_read_as_the_kernel_writes_them() {
        assert_eq!(waited("12 34 5\n"), Some((34, 5)));
        for torn in ["", "12", "12 34", "12 x 5", "12 34 x"] {
            assert_eq!(waited(torn), None, "{torn}");
        }
        assert_eq!(class("CPU 0/TCG", true, false), Class::Vcpu);
        assert_eq!(class("qemu-system-x86", true, true), Class::Vmm);
        assert_eq!(class("IO mon_iothread", true, false), Class::Io);
        assert_eq!(class("sh", false, true), Class::Other);
    }
}
