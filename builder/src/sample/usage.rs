//! What a process uses, by files that cost the kernel little: to be read of thousands
//! of processes again and again.

use std::path::Path;
use std::time::Duration;

use super::footprint::PAGE;
use super::ksm;
use super::processes::text;
use super::schedule::Schedule;

/// What a process used up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time of its threads.
    pub cpu: Duration,
    /// Time that its threads waited for a CPU. The kernel adds a wait when it is over.
    pub waited: Duration,
    /// Bytes of memory that belong to no file, and that KSM has not merged.
    pub own: u64,
}

impl Usage {
    /// Of the process `pid` below `root`; `None` if it has ended.
    pub(crate) fn of(root: &Path, pid: u32) -> Option<Self> {
        let proc = root.join("proc");
        let process = proc.join(pid.to_string());
        let anonymous = anonymous(&text(&process, "statm").ok()?)?;
        // An older kernel does not say what it has merged.
        let merged = ksm::share(&process).unwrap_or_default().merged;
        let (cpu, waited) = Schedule::own(&proc, pid);
        Some(Self {
            cpu,
            waited,
            own: anonymous.saturating_sub(merged).saturating_mul(PAGE as u64),
        })
    }
}

/// Pages that are resident and of no file (proc_pid_statm(5)).
fn anonymous(statm: &str) -> Option<u64> {
    let mut fields = statm
        .split_ascii_whitespace()
        .skip(1)
        .map(str::parse::<u64>);
    let (resident, shared) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(resident.saturating_sub(shared))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_process_is_read_and_one_that_has_ended_is_not() {
        let root = tempfile::tempdir().unwrap();
        let process = root.path().join("proc/7");
        for (thread, schedstat) in [("7", "1000 30 5\n"), ("8", "500 70 5\n")] {
            let thread = process.join("task").join(thread);
            fs::create_dir_all(&thread).unwrap();
            fs::write(thread.join("schedstat"), schedstat).unwrap();
        }
        fs::write(process.join("statm"), "900 100 40 1 0 60 0\n").unwrap();
        fs::write(process.join("ksm_merging_pages"), "25\n").unwrap();
        let usage = Usage {
            cpu: Duration::from_nanos(1500),
            waited: Duration::from_nanos(100),
            own: 35 * 4096,
        };
        assert_eq!(Usage::of(root.path(), 7), Some(usage));
        assert_eq!(Usage::of(root.path(), 8), None);
    }

    #[test]
    fn a_count_that_is_cut_or_makes_no_sense_is_not_known() {
        for (statm, pages) in [
            ("900 100 40 1", Some(60)),
            ("900 100 400 1", Some(0)),
            ("900 100", None),
            ("900 x 40", None),
            ("900 100 -40", None),
            ("", None),
        ] {
            assert_eq!(anonymous(statm), pages, "{statm}");
        }
    }
}
