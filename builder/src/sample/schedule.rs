//! How much CPU time a process's threads got, and how long they waited for it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::processes::{stat, text};

/// CPU time of a process up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Spent on a CPU by all its threads.
    pub cpu: Duration,
    /// Spent waiting for one by the thread that waited longest: of a guest's
    /// threads only the vCPU's has much to do. The kernel adds a wait when it is
    /// over.
    pub waited: Duration,
    /// Whether a thread runs, or would if it had a CPU.
    pub runnable: bool,
    /// Whether it is stopped by a signal or a debugger.
    pub stopped: bool,
}

impl Schedule {
    /// Of a process that has just begun.
    pub const NONE: Self = Self {
        cpu: Duration::ZERO,
        waited: Duration::ZERO,
        runnable: false,
        stopped: false,
    };

    /// Of the process `pid` and of what it started, since that may do its work;
    /// nothing of one that has ended. Where the kernel does not tell of children
    /// (`CONFIG_PROC_CHILDREN`) or of waits (`CONFIG_SCHED_INFO`), there are none.
    pub fn of(pid: u32) -> Self {
        Self::below(Path::new("/proc"), &pid.to_string())
    }

    fn below(proc: &Path, pid: &str) -> Self {
        let process = proc.join(pid);
        let state_in = |folder: &Path| stat(folder).ok().map(|stat| stat.state);
        let mut schedule = Self {
            stopped: matches!(state_in(&process), Some('T' | 't')),
            ..Self::NONE
        };
        for thread in fs::read_dir(process.join("task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let thread = thread.path();
            let text = |name: &str| text(&thread, name).unwrap_or_default();
            if let Some((cpu, waited)) = times(&text("schedstat")) {
                schedule.cpu += cpu;
                schedule.waited = schedule.waited.max(waited);
            }
            schedule.runnable |= state_in(&thread) == Some('R');
            for child in text("children").split_ascii_whitespace() {
                let child = Self::below(proc, child);
                schedule.cpu += child.cpu;
                schedule.waited = schedule.waited.max(child.waited);
                schedule.runnable |= child.runnable;
            }
        }
        schedule
    }

    /// CPU time of the threads of the process `pid` alone, which goes on for longer than
    /// what it started.
    pub(crate) fn own_cpu(pid: u32) -> Duration {
        Self::own(Path::new("/proc"), pid).0
    }

    /// The same below `proc`, and the time that all of them waited for a CPU.
    pub(crate) fn own(proc: &Path, pid: u32) -> (Duration, Duration) {
        let tasks = proc.join(pid.to_string()).join("task");
        let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
        let times = tasks.filter_map(|thread| times(&text(&thread.path(), "schedstat").ok()?));
        times.fold(
            (Duration::ZERO, Duration::ZERO),
            |(cpu, waited), (more, longer)| (cpu + more, waited + longer),
        )
    }

    /// What is counted since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            waited: self.waited.saturating_sub(before.waited),
            ..self
        }
    }

    /// What of the time that passed, `wall`, was the process's own: all but what
    /// it waited for a CPU that others had. One that could run may be waiting
    /// just now, which is not counted yet: of that only what it ran is certain.
    pub fn had(self, wall: Duration) -> Duration {
        let least = self.cpu.min(wall);
        if self.runnable {
            least
        } else {
            wall.saturating_sub(self.waited).max(least)
        }
    }
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

    /// A thread of a process, in a folder that stands for `/proc`.
    fn thread(proc: &Path, process: &str, thread: &str, state: char, times: &str, children: &str) {
        let folder = proc.join(process).join("task").join(thread);
        fs::create_dir_all(&folder).unwrap();
        let stat = |state| format!("7 (q) {state} {}\n", "1 ".repeat(30));
        fs::write(proc.join(process).join("stat"), stat('t')).unwrap();
        fs::write(folder.join("stat"), stat(state)).unwrap();
        fs::write(folder.join("schedstat"), times).unwrap();
        fs::write(folder.join("children"), children).unwrap();
    }

    #[test]
    fn threads_and_children_are_summed_and_the_longest_wait_counts() {
        let proc = tempfile::tempdir().unwrap();
        let proc = proc.path();
        thread(proc, "7", "7", 'S', "100 5 3\n", "70 71 ");
        thread(proc, "7", "8", 'S', "200 50 3\n", "");
        thread(proc, "7", "9", 'S', "many", "");
        let own = Schedule {
            cpu: Duration::from_nanos(300),
            waited: Duration::from_nanos(50),
            runnable: false,
            stopped: true,
        };
        // Of a child that has just ended, nothing is left to read.
        assert_eq!(Schedule::below(proc, "7"), own);
        thread(proc, "70", "70", 'R', "1000 900 3\n", "");
        let with_child = Schedule {
            cpu: Duration::from_nanos(1300),
            waited: Duration::from_nanos(900),
            runnable: true,
            stopped: true,
        };
        assert_eq!(Schedule::below(proc, "7"), with_child);
        assert!(!Schedule::below(Path::new("/nowhere"), "7").stopped);
        let since = with_child.since(own);
        assert_eq!(
            (since.cpu, since.waited),
            (Duration::from_micros(1), Duration::from_nanos(850))
        );
    }

    #[test]
    fn one_that_could_run_is_not_charged_with_a_wait_under_way() {
        let seconds = Duration::from_secs;
        let schedule = |runnable| Schedule {
            cpu: seconds(1),
            waited: seconds(3),
            runnable,
            stopped: false,
        };
        assert_eq!(schedule(false).had(seconds(10)), seconds(7));
        assert_eq!(schedule(true).had(seconds(10)), seconds(1));
        // Of several threads, one that waits; and counters read one after another
        // need not add up.
        for runnable in [true, false] {
            assert_eq!(schedule(runnable).had(seconds(2)), seconds(1));
            assert_eq!(schedule(runnable).had(Duration::ZERO), Duration::ZERO);
        }
    }

    #[test]
    fn a_process_that_works_gets_cpu_time() {
        let before = Schedule::of(std::process::id());
        let mut sum = 0_u64;
        while Schedule::of(std::process::id()).cpu == before.cpu {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(before.runnable && !before.stopped);
    }
}
