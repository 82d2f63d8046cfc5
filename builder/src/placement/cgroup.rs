//! The fleet's cgroup: its share of the CPU and its limits, and below it one
//! group for guests that start or are asked, and one for those that run (kernel
//! documents admin-guide/cgroup-v2 and admin-guide/cgroup-v1).
//!
//! Version 2 has one folder, `imgbuild-FLEET-INSTANCE`, with `urgent` and
//! `running` in it, which alone have processes. It stands below the innermost
//! group around this process in which the CPU controller can be enabled for
//! children. The controller stays enabled there, because others may have begun
//! to use it. Version 1 has such a folder in the hierarchy of `cpu`, and one
//! without children in that of `memory`, each below this process's group there.
//!
//! A move costs 3 µs, and 6 ms (14 at most) when there was none in the last
//! few milliseconds: the kernel waits for all CPUs to take notice
//! (`cgroup_threadgroup_rwsem`). 1,000 in a row took 12 ms. Measured with
//! version 1 on 2 CPUs, processes of 3 threads.
//!
//! This module makes groups itself and does not use the crate cgroups-rs, for
//! these reasons (as of version 0.5.1):
//! - It expects version 2 at /sys/fs/cgroup. If version 1 is mounted beside it
//!   without `cpu`, it reports that it made a group although it did not.
//! - Its paths begin at the mount, so this process's own group, delegation and
//!   stepping aside would still need code here. It does not check whether a
//!   controller was enabled.
//! - It treats a list of members that it cannot read as empty, so living guests
//!   would count as gone. In version 2, it does not wait to remove a group.
//! - It opens a file for each move, and does not count kills in version 2.
//! - It requires a D-Bus client: 38 crates, to replace some 30 lines.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::geteuid;

use super::class::Class;
use super::error::CpuError;
use super::settings;
use super::spec::PlacementSpec;
use crate::host::snapshot::cgroup::{Controller, is_writable};
use crate::placement::around::{Around, around};
use crate::plain::if_there;
use crate::sample::account::Charged;
use crate::sample::cgroup::Hierarchy;
use crate::units::Instance;
use crate::vmm;

/// How often a folder that is still busy is tried again, and how long apart:
/// the kernel takes a moment to forget a process that ended.
pub(crate) const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// A fleet's cgroup.
#[derive(Debug)]
pub struct FleetCgroup {
    hierarchy: Hierarchy,
    /// The group with the CPU controller.
    cpu: PathBuf,
    /// The group with the memory controller, where there is one.
    memory: Option<PathBuf>,
    entries: Arc<Entries>,
}

/// The `cgroup.procs` by which processes come in, held open so that the way
/// takes one system call.
#[derive(Debug)]
pub(crate) struct Entries {
    urgent: File,
    running: File,
    /// Of a memory group in a hierarchy of its own.
    memory: Option<File>,
}

impl Entries {
    /// Has the calling process come in as an urgent one; async-signal-safe.
    pub(crate) fn enter(&self) -> io::Result<()> {
        // In a group, 0 stands for the writer. What the kernel allocates for
        // the process counts from here on, so memory comes first.
        for mut entry in self.memory.iter().chain([&self.urgent]) {
            entry.write_all(b"0")?;
        }
        Ok(())
    }
}

/// The name of a fleet's group: no other fleet has it, of whatever user.
pub fn group_name(fleet: &str, instance: Instance) -> String {
    format!("imgbuild-{fleet}-{}", String::from(instance))
}

impl FleetCgroup {
    /// Makes the group `name` and sets what `spec` says, or does so with the
    /// one that is there. `root` stands for `/`.
    ///
    /// `None` where this process may not, and `spec` has nothing that takes it.
    pub fn create(root: &Path, name: &str, spec: &PlacementSpec) -> Result<Option<Self>, CpuError> {
        let cpu = match place(root, name) {
            Ok(place) => place,
            Err(missing) => return refusal(settings::asked(spec), missing),
        };
        let memory = memory_place(root, name, &cpu);
        if spec.memory_max.is_some() && memory.is_none() {
            return Err(CpuError::NoMemoryController {
                missing: why_no_memory(&cpu),
            });
        }
        let made = Self::make(&cpu, memory.as_deref(), spec);
        if made.is_err() {
            // Not what was there: guests keep a group from going.
            let _ = remove_all(&cpu.folder, memory.as_deref(), 1);
        }
        made.map(Some)
    }

    fn make(cpu: &Place, memory: Option<&Path>, spec: &PlacementSpec) -> Result<Self, CpuError> {
        make_folder(&cpu.folder)?;
        settings::write(&cpu.folder, settings::cpu(cpu.hierarchy, spec))?;
        if let Some(memory) = memory {
            make_folder(memory)?;
            settings::write(memory, settings::memory(cpu.hierarchy, spec))?;
        }
        if cpu.hierarchy == Hierarchy::V2 {
            let handed_down = hand_down(&cpu.folder, Controller::Cpu);
            handed_down
                .map_err(|error| failure("enable the CPU controller below", &cpu.folder, error))?;
        }
        for class in [Class::Urgent, Class::Running] {
            let folder = cpu.folder.join(class.name());
            make_folder(&folder)?;
            settings::write(&folder, settings::class(cpu.hierarchy, class))?;
        }
        Self::opened(cpu, memory)
    }

    /// The group `name`, as another process left it; `None` if there is none.
    pub fn open(root: &Path, name: &str) -> Result<Option<Self>, CpuError> {
        let Some(cpu) = existing(root, Controller::Cpu, name) else {
            return Ok(None);
        };
        let memory = match cpu.hierarchy {
            Hierarchy::V1 => existing(root, Controller::Memory, name).map(|place| place.folder),
            Hierarchy::V2 => has(&cpu.folder, "cgroup.controllers", Controller::Memory)
                .then(|| cpu.folder.clone()),
        };
        Self::opened(&cpu, memory.as_deref()).map(Some)
    }

    fn opened(cpu: &Place, memory: Option<&Path>) -> Result<Self, CpuError> {
        let entry = |folder: &Path| {
            let path = folder.join("cgroup.procs");
            let opened = OpenOptions::new().write(true).open(&path);
            let opened = opened.and_then(|file| vmm::out_of_the_way(&file));
            opened.map_err(|error| failure("open", &path, error))
        };
        let beside = memory.filter(|memory| *memory != cpu.folder);
        Ok(Self {
            hierarchy: cpu.hierarchy,
            cpu: cpu.folder.clone(),
            memory: memory.map(Path::to_path_buf),
            entries: Arc::new(Entries {
                urgent: entry(&cpu.folder.join(Class::Urgent.name()))?,
                running: entry(&cpu.folder.join(Class::Running.name()))?,
                memory: beside.map(entry).transpose()?,
            }),
        })
    }

    /// Moves a process and all its threads to a class. Its memory stays where
    /// it was charged.
    pub fn move_to(&self, class: Class, pid: u32) -> io::Result<()> {
        let mut entry = match class {
            Class::Urgent => &self.entries.urgent,
            Class::Running => &self.entries.running,
        };
        entry.write_all(pid.to_string().as_bytes())
    }

    /// The way in for a process about to be a VMM.
    pub(crate) fn entries(&self) -> Arc<Entries> {
        Arc::clone(&self.entries)
    }

    /// The group that guests' memory is charged to, or one below it; `None` if
    /// that is where their starter is.
    pub(crate) fn charged(&self) -> Option<&Path> {
        let own = match self.hierarchy {
            Hierarchy::V1 => None,
            Hierarchy::V2 => Some(&self.cpu),
        };
        self.memory.as_ref().or(own).map(PathBuf::as_path)
    }

    /// Where the kernel accounts for the memory of its processes; `None` if it does
    /// so for no group of theirs alone.
    pub(crate) fn accounted(&self) -> Option<Charged> {
        Some(Charged {
            hierarchy: self.hierarchy,
            folder: self.memory.clone()?,
        })
    }

    /// `cgroup v1` or `cgroup v2`.
    pub fn kind(&self) -> &'static str {
        match self.hierarchy {
            Hierarchy::V1 => "cgroup v1",
            Hierarchy::V2 => "cgroup v2",
        }
    }

    /// The processes in it, by id.
    pub fn members(&self) -> io::Result<BTreeSet<u32>> {
        let children = [Class::Urgent, Class::Running].map(|class| self.cpu.join(class.name()));
        let folders = children.iter().chain([&self.cpu]).chain(&self.memory);
        let mut members = BTreeSet::new();
        for folder in folders {
            let text = fs::read_to_string(folder.join("cgroup.procs"))?;
            members.extend(text.lines().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        Ok(members)
    }

    /// How many of its processes the kernel has killed for want of memory,
    /// since the group was made; `None` where it is not counted.
    pub fn oom_kills(&self) -> Option<u64> {
        self.hierarchy.oom_kills(self.memory.as_ref()?)
    }

    /// Removes it once its processes have ended; waits for the last of them up
    /// to a second.
    pub fn remove(self) -> io::Result<()> {
        remove_all(&self.cpu, self.memory.as_deref(), TRIES)
    }
}

/// Where a group is or is to be.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    hierarchy: Hierarchy,
    folder: PathBuf,
}

/// `missing` as an error, unless nothing was `asked`.
fn refusal<T>(asked: String, missing: String) -> Result<Option<T>, CpuError> {
    if asked.is_empty() {
        tracing::debug!("no cgroup: {missing}");
        return Ok(None);
    }
    Err(CpuError::NoCgroup { asked, missing })
}

/// The place for the group `name`; an error says what is missing.
fn place(root: &Path, name: &str) -> Result<Place, String> {
    if let Some(place) = existing(root, Controller::Cpu, name) {
        return Ok(place);
    }
    let around = around(root, Controller::Cpu)
        .ok_or_else(|| "no hierarchy with the CPU controller is mounted".to_owned())?;
    let parent = match around.hierarchy {
        Hierarchy::V1 => around.folders.first().filter(|folder| is_writable(folder)),
        Hierarchy::V2 => around.folders.iter().find(|folder| may_hold(folder)),
    };
    let parent = parent.map(PathBuf::as_path);
    match parent.or_else(|| step_aside(&around)) {
        Some(parent) => Ok(Place {
            hierarchy: around.hierarchy,
            folder: parent.join(name),
        }),
        None => Err(format!(
            "this process may not make groups with CPU weights in {} or above",
            around.folders[0].display()
        )),
    }
}

/// The place for memory: the same folder in version 2, one of the same name in
/// version 1.
fn memory_place(root: &Path, name: &str, cpu: &Place) -> Option<PathBuf> {
    match cpu.hierarchy {
        Hierarchy::V2 => {
            let parent = cpu.folder.parent()?;
            hand_down(parent, Controller::Memory).ok()?;
            Some(cpu.folder.clone())
        }
        Hierarchy::V1 => {
            if let Some(place) = existing(root, Controller::Memory, name) {
                return Some(place.folder);
            }
            let around = around(root, Controller::Memory)?;
            let parent = around.folders.into_iter().next()?;
            (around.hierarchy == Hierarchy::V1 && is_writable(&parent)).then(|| parent.join(name))
        }
    }
}

/// Why the group `cpu` has no place for memory beside it.
fn why_no_memory(cpu: &Place) -> String {
    match cpu.hierarchy {
        Hierarchy::V1 => "the memory hierarchy of cgroup v1 is not mounted, or this process may \
                          not make groups in it"
            .to_owned(),
        Hierarchy::V2 => {
            let parent = cpu.folder.parent().unwrap_or(&cpu.folder);
            let control = parent.join("cgroup.subtree_control");
            format!("`+memory` cannot be written to {}", control.display())
        }
    }
}

/// Whether groups with CPU weights may be made in a group of version 2, and
/// processes of this one's be moved there, which takes the right to write to
/// `cgroup.procs` of their common ancestor.
fn may_hold(folder: &Path) -> bool {
    is_writable(folder)
        && is_writable(&folder.join("cgroup.procs"))
        && hand_down(folder, Controller::Cpu).is_ok()
}

/// Where this process is alone in a group that is delegated to it, as a service
/// or scope of systemd with `Delegate=yes` is: moves it to a child of that, for
/// a group with processes hands no controller down.
fn step_aside(around: &Around) -> Option<&Path> {
    let own = around.folders.first()?;
    let is_delegated = around.hierarchy == Hierarchy::V2
        && is_writable(own)
        && has(own, "cgroup.controllers", Controller::Cpu);
    if !is_delegated {
        return None;
    }
    let aside = own.join("imgbuild-supervisor");
    make_folder(&aside).ok()?;
    let moved = fs::write(aside.join("cgroup.procs"), "0");
    if moved.is_ok() && may_hold(own) {
        return Some(own);
    }
    // Others are in it too: back, as if nothing had been.
    let _ = fs::write(own.join("cgroup.procs"), "0");
    let _ = fs::remove_dir(aside);
    None
}

/// Has the groups in a group of version 2 use `controller`.
fn hand_down(folder: &Path, controller: Controller) -> io::Result<()> {
    if has(folder, "cgroup.subtree_control", controller) {
        return Ok(());
    }
    let control = folder.join("cgroup.subtree_control");
    let mut control = OpenOptions::new().write(true).open(control)?;
    control.write_all(format!("+{}", controller.name()).as_bytes())
}

/// Whether a file of a group of version 2 lists `controller`.
fn has(folder: &Path, file: &str, controller: Controller) -> bool {
    let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
    text.split_ascii_whitespace()
        .any(|name| name == controller.name())
}

/// The group `name` in the hierarchy of `controller`, wherever it is: who
/// launched the fleet may have been in another group than this process. One of
/// another user, who may have groups made below some, is not meant.
fn existing(root: &Path, controller: Controller, name: &str) -> Option<Place> {
    let around = around(root, controller)?;
    let mut folders = vec![around.folders.last()?.clone()];
    while let Some(folder) = folders.pop() {
        let is_ours = || {
            let owner = fs::metadata(&folder).map(|folder| folder.uid());
            owner.is_ok_and(|owner| owner == geteuid().as_raw())
        };
        if folder.ends_with(name) && is_ours() {
            return Some(Place {
                hierarchy: around.hierarchy,
                folder,
            });
        }
        // Groups come and go meanwhile.
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(groups.map(|entry| entry.path()));
    }
    None
}

fn make_folder(path: &Path) -> Result<(), CpuError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(failure("make the group", path, error))
        }
        _ => Ok(()),
    }
}

fn failure(what: &str, path: &Path, source: io::Error) -> CpuError {
    CpuError::Cgroup {
        what: what.to_owned(),
        path: path.to_path_buf(),
        source,
    }
}

fn remove_all(cpu: &Path, memory: Option<&Path>, tries: u32) -> io::Result<()> {
    let children = [Class::Urgent, Class::Running].map(|class| cpu.join(class.name()));
    let beside = memory.filter(|memory| *memory != cpu);
    let folders = children.iter().map(PathBuf::as_path);
    for folder in folders.chain([cpu]).chain(beside) {
        remove_folder(folder, tries)?;
    }
    Ok(())
}

pub(crate) fn remove_folder(folder: &Path, tries: u32) -> io::Result<()> {
    for _ in 1..tries {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => sleep(PAUSE),
            result => return if_there(result).map(drop),
        }
    }
    if_there(fs::remove_dir(folder)).map(drop)
}

#[cfg(test)]
#[path = "cgroup/tests.rs"]
mod tests;
