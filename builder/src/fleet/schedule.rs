//! What a VMM's threads got of the CPU, as the kernel counts it.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// CPU time of a process up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Spent on a CPU by all its threads.
    pub cpu: Duration,
    /// Spent waiting for one by the thread that waited longest: of a guest's
    /// threads only the vCPU's has much to do.
    pub waited: Duration,
    /// Whether it is stopped by a signal or a debugger.
    pub stopped: bool,
}

impl Schedule {
    /// Of a process that has just begun.
    pub(super) const NONE: Self = Self {
        cpu: Duration::ZERO,
        waited: Duration::ZERO,
        stopped: false,
    };

    /// Of the process `pid`; nothing of one that has ended.
    pub(super) fn of(pid: u32) -> Self {
        Self::read(&Path::new("/proc").join(pid.to_string()))
    }

    fn read(process: &Path) -> Self {
        let mut schedule = Self {
            stopped: fs::read_to_string(process.join("stat"))
                .is_ok_and(|stat| matches!(state(&stat), Some('T' | 't'))),
            ..Self::NONE
        };
        for thread in fs::read_dir(process.join("task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            if let Some((cpu, waited)) = times(&text) {
                schedule.cpu += cpu;
                schedule.waited = schedule.waited.max(waited);
            }
        }
        schedule
    }
}

/// The state in a line of `/proc/PID/stat`, whose second field is a name in
/// parentheses that may hold anything (proc_pid_stat(5)).
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The first two fields of `schedstat`, in nanoseconds (kernel document
/// scheduler/sched-stats).
fn times(text: &str) -> Option<(Duration, Duration)> {
    let mut fields = text.split_ascii_whitespace().map(str::parse);
    let mut next = || Some(Duration::from_nanos(fields.next()?.ok()?));
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_parentheses_hides_no_state() {
        assert_eq!(state("7 (qemu) S 1 7 7"), Some('S'));
        assert_eq!(state("7 (a) R (b) T 1 7 7"), Some('T'));
        assert_eq!(state("7 (cut"), None);
        assert_eq!(state(""), None);
    }

    #[test]
    fn threads_are_summed_and_the_longest_wait_counts() {
        let process = tempfile::tempdir().unwrap();
        fs::write(process.path().join("stat"), "7 (q) t 1").unwrap();
        for (thread, text) in [
            ("7", "100 5 3\n"),
            ("8", "200 50 3\n"),
            ("9", "many"),
            ("10", ""),
        ] {
            let folder = process.path().join("task").join(thread);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("schedstat"), text).unwrap();
        }
        let expected = Schedule {
            cpu: Duration::from_nanos(300),
            waited: Duration::from_nanos(50),
            stopped: true,
        };
        assert_eq!(Schedule::read(process.path()), expected);
        assert!(!Schedule::read(Path::new("/nowhere")).stopped);
    }

    #[test]
    fn a_process_that_works_gets_cpu_time() {
        let before = Schedule::of(std::process::id());
        let mut sum = 0_u64;
        while Schedule::of(std::process::id()).cpu == before.cpu {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(!before.stopped);
    }
}
