//! How often a process's threads were given a CPU, which a process that sleeps never is.

use std::fs;
use std::io;
use std::path::Path;

use super::processes::field;

/// What counts them in `/proc/PID/task/TID/status` (proc_pid_status(5)).
const FIELDS: [&str; 2] = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];

/// Context switches of the process with this folder, up to now, in all its threads that
/// live.
pub(crate) fn of(process: &Path) -> io::Result<u64> {
    let mut switches = 0;
    for thread in fs::read_dir(process.join("task"))? {
        let thread = thread?.path();
        for name in FIELDS {
            // It may have ended in between.
            let count = field(&thread, "status", name).ok();
            let count: Option<u64> = count.and_then(|count| count.trim().parse().ok());
            switches += count.unwrap_or(0);
        }
    }
    Ok(switches)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_process_that_sleeps_is_not_switched_and_one_that_wakes_is() {
        let switches = |id: u32| of(Path::new(&format!("/proc/{id}"))).unwrap();
        let mut sleeper = Command::new("sleep").arg("100").spawn().unwrap();
        // Until it sleeps.
        let mut before = u64::MAX;
        while before != switches(sleeper.id()) {
            before = switches(sleeper.id());
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(switches(sleeper.id()), before);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        let own = switches(std::process::id());
        thread::sleep(Duration::from_millis(1));
        assert!(switches(std::process::id()) > own);
        assert!(of(Path::new("/proc/0")).is_err());
    }
}
