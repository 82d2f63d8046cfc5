//! On which CPUs guests run, with which memory, and with which share of both.
//!
//! A guest's placement is that of its whole VMM process: helper threads run on the
//! vCPU's CPU. They are idle while a guest burns. On another CPU they would take
//! time from another guest that the experiment has to charge to this one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::thread::{CpuSet, sched_setaffinity};

use self::cgroup::{Entries, FleetCgroup};
use self::nice::{Autogroups, OwnNice};
use self::numa::NodeMask;
use self::topology::Topology;
use crate::host::snapshot::cgroup::Controller;
use crate::placement::around::{Around, around};

pub(crate) mod around;
pub mod cgroup;
mod class;
mod error;
mod list;
mod nice;
mod numa;
pub(crate) mod pin;
mod settings;
mod spec;
pub(crate) mod topology;
mod trial_group;

pub use class::Class;
pub use error::CpuError;
pub use spec::{Pin, PlacementSpec};
pub use trial_group::TrialGroup;

/// What tells urgent guests from others to the kernel.
#[derive(Debug)]
pub enum Classes {
    /// A cgroup for each class.
    Cgroup(FleetCgroup),
    /// Nice values: this process's own for urgent guests, 19 for others.
    Nice {
        /// Of urgent guests.
        urgent: i32,
        /// Whether sessions share the CPU as groups.
        autogroups: Autogroups,
    },
    /// Nothing: every guest has the nice value that was asked for.
    Alike {
        /// That value.
        nice: i32,
        /// Whether sessions share the CPU as groups.
        autogroups: Autogroups,
    },
}

impl Classes {
    /// Those that this process may have, the first of the above. `name` is the
    /// cgroup's ([`cgroup::group_name`]), which is taken over if it is there;
    /// `root` stands for `/`.
    pub fn of(spec: &PlacementSpec, name: &str, root: &Path) -> Result<Self, CpuError> {
        if let Some(nice) = spec.nice
            && !nice::is_allowed(nice)
        {
            return Err(CpuError::Nice { nice });
        }
        if let Some(cgroup) = FleetCgroup::create(root, name, spec)? {
            return Ok(Self::Cgroup(cgroup));
        }
        let autogroups = Autogroups::of(root);
        Ok(match spec.nice {
            Some(nice) => Self::Alike { nice, autogroups },
            None => Self::Nice {
                urgent: nice::own(),
                autogroups,
            },
        })
    }

    /// Moves a guest to a class; `pid` is its VMM's, which leads a session.
    ///
    /// [`io::ErrorKind::WouldBlock`]: its processes are moved, its session is not,
    /// and may be in a tenth of a second; only without a cgroup and CAP_SYS_ADMIN
    /// (sched(7), "The autogroup feature").
    pub fn set(&self, class: Class, pid: u32) -> io::Result<()> {
        match (self, class) {
            (Self::Cgroup(cgroup), class) => cgroup.move_to(class, pid),
            // Its process has it since the start; its session may not.
            (
                Self::Alike {
                    nice,
                    autogroups: Autogroups::On,
                },
                _,
            ) => nice::set(pid, *nice, Autogroups::On),
            (Self::Alike { .. }, _) => Ok(()),
            (Self::Nice { autogroups, .. }, Class::Running) => {
                nice::set(pid, nice::LAST, *autogroups)
            }
            (Self::Nice { urgent, autogroups }, Class::Urgent) => {
                match nice::set(pid, *urgent, *autogroups) {
                    // Users may not take back what they gave, and a guest is
                    // no worse off for having been asked.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                    result => result,
                }
            }
        }
    }

    /// What they are, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Cgroup(cgroup) => format!("cpu {}", cgroup.kind()),
            Self::Nice { .. } => "nice".to_owned(),
            Self::Alike { nice, .. } => format!("none, all at nice {nice}"),
        }
    }

    /// The fleet's cgroup.
    pub fn cgroup(&self) -> Option<&FleetCgroup> {
        match self {
            Self::Cgroup(cgroup) => Some(cgroup),
            Self::Nice { .. } | Self::Alike { .. } => None,
        }
    }

    /// Removes what was made, once the guests have ended.
    pub fn close(self) -> io::Result<()> {
        match self {
            Self::Cgroup(cgroup) => cgroup.remove(),
            Self::Nice { .. } | Self::Alike { .. } => Ok(()),
        }
    }
}

/// Where a fleet's guests run.
#[derive(Debug)]
pub struct Placement {
    classes: Classes,
    seats: Seats,
    memory: Option<NodeMask>,
    nice: Option<OwnNice>,
    charged: Option<Around>,
}

/// The CPUs that guests may use.
#[derive(Debug)]
enum Seats {
    Inherited,
    Any(CpuSet),
    /// One each, in this order.
    InTurn(Vec<u32>),
}

impl Placement {
    /// What `spec` asks for on this host; see [`Classes::of`] for `name`.
    pub fn of(spec: &PlacementSpec, name: &str) -> Result<Self, CpuError> {
        // First what leaves nothing behind if it fails.
        let seats = match (&spec.pin, spec.numa_node) {
            (None, None) => Seats::Inherited,
            (None, node) => {
                let cpus = Topology::read()?.usable(node)?;
                Seats::Any(set(cpus.iter().map(|cpu| cpu.id)))
            }
            (Some(pin), node) => Seats::InTurn(pin::order(&Topology::read()?, pin, node)?),
        };
        let root = Path::new("/");
        let classes = Classes::of(spec, name, root)?;
        // In a cgroup a session's nice value has no effect.
        let autogroups = match classes {
            Classes::Alike { autogroups, .. } => autogroups,
            Classes::Cgroup(_) | Classes::Nice { .. } => Autogroups::Off,
        };
        let charged = around(root, Controller::Memory).map(|own| {
            let group = classes.cgroup().and_then(FleetCgroup::charged);
            match group {
                Some(group) => own.of(group),
                None => own,
            }
        });
        Ok(Self {
            charged,
            classes,
            seats,
            memory: spec.numa_node.and_then(NodeMask::new),
            nice: spec.nice.map(|nice| OwnNice::new(nice, autogroups)),
        })
    }

    /// What a guest's process is to do before it becomes a VMM.
    pub fn prepared(&self, guest: u32) -> Prepared {
        Prepared {
            entries: self.classes.cgroup().map(FleetCgroup::entries),
            cpus: match &self.seats {
                Seats::Inherited => None,
                Seats::Any(cpus) => Some(*cpus),
                Seats::InTurn(order) => Some(set([pin::cpu_for(order, guest)])),
            },
            memory: self.memory.clone(),
            nice: self.nice.clone(),
        }
    }

    /// What tells urgent guests from others.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Memory that the control groups of guests still allow, in bytes; `None`
    /// without a limit.
    pub fn memory_room(&self) -> Option<u64> {
        self.charged.as_ref()?.memory_room()
    }

    /// Removes what was made, once the guests have ended.
    pub fn close(self) -> io::Result<()> {
        self.classes.close()
    }
}

/// What a guest's process is to do before it becomes a VMM, computed before the
/// fork. A guest starts as an urgent one.
#[derive(Debug, Clone)]
pub struct Prepared {
    entries: Option<Arc<Entries>>,
    cpus: Option<CpuSet>,
    memory: Option<NodeMask>,
    nice: Option<OwnNice>,
}

impl Prepared {
    /// Does it, in the child between fork(2) and execve(2), after setsid(2) and
    /// before the user id is given up. It makes system calls only, all of them
    /// async-signal-safe (signal-safety(7)).
    pub fn in_child(&self) -> io::Result<()> {
        if let Some(entries) = &self.entries {
            entries.enter()?;
        }
        if let Some(cpus) = &self.cpus {
            sched_setaffinity(None, cpus)?;
        }
        if let Some(memory) = &self.memory {
            memory.bind()?;
        }
        self.nice.as_ref().map_or(Ok(()), OwnNice::apply)
    }
}

/// CPUs as sched_setaffinity(2) takes them.
fn set(cpus: impl IntoIterator<Item = u32>) -> CpuSet {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(cpu as usize);
    }
    set
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn without_a_cgroup_classes_are_nice_values() {
        let root = tempfile::tempdir().unwrap();
        let classes = Classes::of(&PlacementSpec::default(), "imgbuild-x", root.path()).unwrap();
        assert_eq!(classes.describe(), "nice");
        let mut command = Command::new("sleep");
        command.arg("60").process_group(0);
        let mut child = command.spawn().unwrap();
        let nice = || getpriority_process(Some(rustix::process::Pid::from_child(&child))).unwrap();
        let before = nice();
        classes.set(Class::Running, child.id()).unwrap();
        assert_eq!(nice(), 19);
        classes.set(Class::Urgent, child.id()).unwrap();
        let privileged = nice::is_allowed(before - 1);
        assert_eq!(nice(), if privileged { before } else { 19 });
        child.kill().unwrap();
        child.wait().unwrap();
        classes.close().unwrap();
    }

    #[test]
    fn a_nice_value_that_was_asked_for_is_every_guests() {
        let root = tempfile::tempdir().unwrap();
        let spec = PlacementSpec {
            nice: Some(19),
            ..PlacementSpec::default()
        };
        let classes = Classes::of(&spec, "imgbuild-x", root.path()).unwrap();
        assert_eq!(classes.describe(), "none, all at nice 19");
        assert!(classes.cgroup().is_none());
    }
}
