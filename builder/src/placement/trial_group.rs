//! A control group for one process on trial, like a fleet's but without limits: no
//! controller is enabled below it.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::{TRIES, remove_folder};
use crate::host::snapshot::cgroup::{Controller, is_writable};
use crate::placement::around::around;

/// How such groups are called, before the process id of who made them; no fleet's
/// has a dot there.
const PREFIX: &str = "imgbuild.trial.";

/// A group that goes with this value. One that was left by a process that was
/// killed goes when the next is made.
#[derive(Debug)]
pub struct TrialGroup {
    folder: PathBuf,
}

impl TrialGroup {
    /// Makes a group below the innermost around this process, in the hierarchy of
    /// the CPU controller, that it may make some in; `None` where it may not.
    /// `root` stands for `/`.
    pub fn make(root: &Path) -> Option<Self> {
        let around = around(root, Controller::Cpu)?;
        // A process is moved only by who may write to that of the common ancestor.
        let may_hold =
            |folder: &&PathBuf| is_writable(folder) && is_writable(&folder.join("cgroup.procs"));
        let parent = around.folders.iter().find(may_hold)?;
        sweep(parent);
        let folder = parent.join(format!("{PREFIX}{}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => Some(Self { folder }),
            Err(error) => {
                tracing::debug!("no group on trial at {}: {error}", folder.display());
                None
            }
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for TrialGroup {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.folder, TRIES) {
            tracing::debug!("{} stays: {error}", self.folder.display());
        }
    }
}

/// Removes what others left; what is in use stays.
fn sweep(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let is_ours = |name: &str| name.starts_with(PREFIX);
        if entry.file_name().to_str().is_some_and(is_ours) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with a hierarchy of version 2, and this process in `/one`.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let mounts = "30 22 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
        for (path, text) in [
            ("proc/self/mountinfo", mounts),
            ("proc/self/cgroup", "0::/one\n"),
            ("sys/fs/cgroup/cgroup.procs", ""),
            ("sys/fs/cgroup/one/cgroup.procs", ""),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_group_goes_with_its_value_and_one_that_was_left_with_the_next() {
        let root = root();
        let parent = root.path().join("sys/fs/cgroup/one");
        let left = parent.join(format!("{PREFIX}1"));
        // In use, as the kernel tells of one by refusing; and a fleet's.
        let used = parent.join(format!("{PREFIX}2"));
        let fleet = parent.join("imgbuild-trial-abab");
        for folder in [&left, &used.join("child"), &fleet] {
            fs::create_dir_all(folder).unwrap();
        }
        let group = TrialGroup::make(root.path()).unwrap();
        assert_eq!(group.folder().parent(), Some(&*parent));
        assert!(group.folder().is_dir() && !left.exists());
        let folder = group.folder().to_path_buf();
        drop(group);
        assert!(!folder.exists() && used.exists() && fleet.exists());
    }

    #[test]
    fn there_is_none_without_a_hierarchy() {
        assert!(TrialGroup::make(tempfile::tempdir().unwrap().path()).is_none());
    }
}
