//! A control group of a test's own, to run a command with less than the host
//! has.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

/// What a control group limits.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// Bytes of memory.
    Memory(u64),
    /// Processes and threads.
    Pids(u64),
}

/// A control group, removed when dropped.
#[derive(Debug)]
pub struct Confined {
    folder: PathBuf,
}

impl Confined {
    /// A group below the root of its hierarchy, of version 1 or 2, which takes
    /// root.
    #[must_use]
    pub fn new(name: &str, limit: Limit) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let (controller, value) = match limit {
            Limit::Memory(bytes) => ("memory", bytes),
            Limit::Pids(number) => ("pids", number),
        };
        let v1 = root.join(controller);
        let is_v1 = v1.join("tasks").exists();
        let (mount, file) = match limit {
            Limit::Memory(_) if is_v1 => (v1, "memory.limit_in_bytes"),
            Limit::Pids(_) if is_v1 => (v1, "pids.max"),
            Limit::Memory(_) => (root.to_path_buf(), "memory.max"),
            Limit::Pids(_) => (root.to_path_buf(), "pids.max"),
        };
        if !is_v1 {
            fs::write(
                mount.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )
            .expect("root may hand controllers down");
        }
        let folder = mount.join(format!("imgbuild-test-{}-{name}", std::process::id()));
        fs::create_dir(&folder).expect("root may make groups");
        let confined = Self { folder };
        fs::write(confined.folder.join(file), value.to_string()).expect("the group is ours");
        confined
    }

    /// Has `command` run in this group, and all that it starts.
    pub fn run<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let procs = self.folder.join("cgroup.procs");
        // SAFETY: between fork and exec the closure opens a file and writes a
        // byte to it; the path was made before, and other threads hold no lock
        // that it takes.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) }
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // The kernel may take a moment to forget the last process.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        eprintln!("{} is left behind", self.folder.display());
    }
}
