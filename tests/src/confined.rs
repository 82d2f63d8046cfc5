//! A control group of a test's own, to run a command with less than the host
//! has.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
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
    /// Dropped after the group is removed.
    _handed_down: Option<HandedDown>,
}

/// A controller that the groups below a group of version 2 may use; taken back
/// when the last of these is dropped, if it was not handed down before.
#[derive(Debug)]
struct HandedDown {
    control: PathBuf,
    controller: String,
}

/// How many of each this process has.
static HANDED_DOWN: Mutex<BTreeMap<(PathBuf, String), usize>> = Mutex::new(BTreeMap::new());

impl HandedDown {
    /// `None` where others have handed `controller` down to the groups below
    /// `group`.
    fn new(group: &Path, controller: &str) -> Option<Self> {
        let control = group.join("cgroup.subtree_control");
        let mut users = HANDED_DOWN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = (control.clone(), controller.to_owned());
        if let Some(users) = users.get_mut(&key) {
            *users += 1;
        } else {
            let before = fs::read_to_string(&control).expect("the group is there");
            if before.split_ascii_whitespace().any(|on| on == controller) {
                return None;
            }
            fs::write(&control, format!("+{controller}")).expect("root may hand controllers down");
            users.insert(key, 1);
        }
        Some(Self {
            control,
            controller: controller.to_owned(),
        })
    }
}

impl Drop for HandedDown {
    fn drop(&mut self) {
        let key = (self.control.clone(), self.controller.clone());
        let mut all = HANDED_DOWN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let left = all.get(&key).map_or(0, |users| users - 1);
        if left > 0 {
            all.insert(key, left);
            return;
        }
        all.remove(&key);
        if let Err(error) = fs::write(&self.control, format!("-{}", self.controller)) {
            let (control, controller) = (self.control.display(), &self.controller);
            eprintln!("{controller} stays in {control}: {error}");
        }
    }
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
        let handed_down = (!is_v1)
            .then(|| HandedDown::new(&mount, controller))
            .flatten();
        let folder = mount.join(format!("imgbuild-test-{}-{name}", std::process::id()));
        fs::create_dir(&folder).expect("root may make groups");
        let confined = Self {
            folder,
            _handed_down: handed_down,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in a file of a folder that plays a group, where each write
    /// replaces what was there.
    fn control(group: &Path) -> String {
        fs::read_to_string(group.join("cgroup.subtree_control")).unwrap()
    }

    fn group(controllers: &str) -> tempfile::TempDir {
        let group = tempfile::tempdir().unwrap();
        fs::write(group.path().join("cgroup.subtree_control"), controllers).unwrap();
        group
    }

    #[test]
    fn a_controller_is_taken_back_by_the_last_who_needs_it() {
        let group = group("cpu\n");
        let first = HandedDown::new(group.path(), "pids").unwrap();
        assert_eq!(control(group.path()), "+pids");
        let second = HandedDown::new(group.path(), "pids").unwrap();
        drop(first);
        assert_eq!(control(group.path()), "+pids");
        drop(second);
        assert_eq!(control(group.path()), "-pids");
    }

    #[test]
    fn a_controller_that_others_handed_down_stays() {
        let group = group("cpu pids\n");
        drop(HandedDown::new(group.path(), "pids"));
        assert_eq!(control(group.path()), "cpu pids\n");
    }
}
