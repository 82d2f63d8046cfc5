//! Control groups: the one of this process, and those around it.
//!
//! A hierarchy is found by its mount, and the group in it by
//! `/proc/self/cgroup` (cgroups(7)). Both paths count from the root of the
//! process's cgroup namespace, and from above it by `/..` (cgroup_namespaces(7)).

use std::io::Cursor;
use std::path::{Path, PathBuf};

use procfs_core::{FromBufRead as _, ProcessCGroup, ProcessCGroups};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::mounts::Mount;
use super::{Cgroup, CgroupVersion, Group};
use crate::sample::cgroup::Hierarchy;
use crate::sample::source::{Source, unexpected};

const MEMBERSHIP: &str = "proc/self/cgroup";
/// A limit that no host reaches: version 1 has no word for "none", and shows
/// the largest number of pages that fit.
const NO_LIMIT: u64 = 1 << 60;

/// The control groups of this process.
pub(crate) fn read(source: &mut Source, mounts: &[Mount]) -> Cgroup {
    let memberships = memberships(source);
    let first = memberships.iter().any(|membership| {
        let mut mounts = mounts.iter().filter(|mount| mount.kind == "cgroup");
        mounts.any(|mount| controllers(membership).any(|name| mount.options.contains(name)))
    });
    let second = mounts.iter().any(|mount| mount.kind == "cgroup2");
    let version = match (first, second) {
        (true, true) => CgroupVersion::Hybrid,
        (true, false) => CgroupVersion::V1,
        (false, true) => CgroupVersion::V2,
        (false, false) => return Cgroup::default(),
    };
    let mut groups: Vec<Group> = Vec::new();
    let mut delegated = false;
    for controller in [Controller::Pids, Controller::Memory, Controller::Cpu] {
        let Some(membership) = membership(&memberships, controller) else {
            continue;
        };
        let hierarchy = Hierarchy::of(membership);
        let folders = folders(source, mounts, membership);
        if let (Controller::Cpu, Some(innermost)) = (controller, folders.first()) {
            delegated = hierarchy.is_delegated(source, innermost);
        }
        for folder in folders {
            let known = groups.iter().position(|group| group.path == folder);
            let place = known.unwrap_or_else(|| {
                groups.push(Group {
                    path: folder,
                    ..Group::default()
                });
                groups.len() - 1
            });
            limits(source, hierarchy, controller, &mut groups[place]);
        }
    }
    Cgroup {
        version: Some(version),
        delegated,
        favours_moves: Some(mounts.iter().any(favours_moves)),
        groups,
    }
}

/// Whether a hierarchy favours moves; one that does does it for all of them
/// (Linux's `cgroup_favor_dynmods()`: there is one lock).
fn favours_moves(mount: &Mount) -> bool {
    mount.kind.starts_with("cgroup") && mount.options.contains("favordynmods")
}

/// A controller that limits guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    Pids,
    Memory,
    Cpu,
}

impl Controller {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pids => "pids",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        }
    }
}

impl Hierarchy {
    pub(crate) fn of(membership: &ProcessCGroup) -> Self {
        if membership.hierarchy == 0 {
            Self::V2
        } else {
            Self::V1
        }
    }

    /// The file of a group's memory limit.
    pub(crate) fn memory_max(self) -> &'static str {
        match self {
            Self::V1 => "memory.limit_in_bytes",
            Self::V2 => "memory.max",
        }
    }

    /// Whether this process may make groups with CPU weights in `folder`
    /// (kernel document admin-guide/cgroup-v2, "Delegation").
    fn is_delegated(self, source: &mut Source, folder: &Path) -> bool {
        let has_cpu = match self {
            Self::V1 => true,
            Self::V2 => {
                let controllers = source.text(folder.join("cgroup.controllers"));
                let controllers = controllers.unwrap_or_default();
                let mut names = controllers.split_ascii_whitespace();
                names.any(|name| name == "cpu")
                    && is_writable(&source.place(folder.join("cgroup.subtree_control")))
            }
        };
        has_cpu && is_writable(&source.place(folder))
    }
}

/// Whether this process may write to `path`.
pub(crate) fn is_writable(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// The group of this process in each hierarchy.
pub(crate) fn memberships(source: &mut Source) -> Vec<ProcessCGroup> {
    let Some(text) = source.text(MEMBERSHIP) else {
        return Vec::new();
    };
    if let Ok(ProcessCGroups(memberships)) = ProcessCGroups::from_buf_read(Cursor::new(&text)) {
        memberships
    } else {
        source.note(MEMBERSHIP, unexpected(&text, "a list of control groups"));
        Vec::new()
    }
}

/// The controllers of a version 1 hierarchy, without the name of one that has
/// none.
fn controllers(membership: &ProcessCGroup) -> impl Iterator<Item = &String> {
    let names = membership.controllers.iter();
    names.filter(|name| !name.starts_with("name="))
}

/// The group for `controller`: of version 1 where that has it, else of 2.
pub(crate) fn membership(
    memberships: &[ProcessCGroup],
    controller: Controller,
) -> Option<&ProcessCGroup> {
    let has = |membership: &&ProcessCGroup| {
        let mut names = membership.controllers.iter();
        names.any(|name| name == controller.name())
    };
    let unified = |membership: &&ProcessCGroup| Hierarchy::of(membership) == Hierarchy::V2;
    let mut all = memberships.iter();
    all.clone().find(has).or_else(|| all.find(unified))
}

/// The folders of a group and of what can be seen of its ancestors, the
/// innermost first.
pub(crate) fn folders(
    source: &mut Source,
    mounts: &[Mount],
    membership: &ProcessCGroup,
) -> Vec<PathBuf> {
    let of_hierarchy = mounts
        .iter()
        .filter(|mount| match Hierarchy::of(membership) {
            Hierarchy::V1 => {
                let mut names = membership.controllers.iter();
                mount.kind == "cgroup" && names.any(|name| mount.options.contains(name))
            }
            Hierarchy::V2 => mount.kind == "cgroup2",
        });
    let chains = of_hierarchy.clone().filter_map(|mount| {
        let below = names_below(&mount.root, &membership.pathname)?;
        let mut folder = mount.point.clone();
        let mut chain = vec![folder.clone()];
        for name in below {
            folder.push(name);
            chain.push(folder.clone());
        }
        chain.reverse();
        Some(chain)
    });
    let visible = chains.map(|chain| {
        let there = chain
            .into_iter()
            .filter(|folder| source.place(folder).is_dir());
        // A path goes into a document, which takes text only.
        let text = there.map(|folder| folder.to_string_lossy().into_owned().into());
        text.collect::<Vec<PathBuf>>()
    });
    let longest = visible.max_by_key(Vec::len).unwrap_or_default();
    if longest.is_empty() && of_hierarchy.clone().next().is_some() {
        let group = &membership.pathname;
        source.note(
            MEMBERSHIP,
            format!("the group {group} is not in what is mounted"),
        );
    }
    longest
}

/// The names that lead from the root of a mount to a group; none where an
/// ancestor outside of the namespace is mounted, from which the way is unknown.
/// `None` if the group is not below the mount.
fn names_below<'a>(mount: &str, group: &'a str) -> Option<Vec<&'a str>> {
    let (mount_up, mount) = ascent(mount);
    let (group_up, group) = ascent(group);
    if mount_up > group_up && mount.is_empty() {
        return Some(Vec::new());
    }
    let is_below = mount_up == group_up && group.starts_with(&mount);
    is_below.then(|| group[mount.len()..].to_vec())
}

/// How often a path leads up, and the names that it leads down to then.
fn ascent(path: &str) -> (usize, Vec<&str>) {
    let names = path.split('/').filter(|name| !name.is_empty());
    let up = names.clone().take_while(|name| *name == "..").count();
    (up, names.skip(up).collect())
}

/// Reads what `controller` says of a group.
pub(crate) fn limits(
    source: &mut Source,
    hierarchy: Hierarchy,
    controller: Controller,
    group: &mut Group,
) {
    let folder = group.path.clone();
    let file = |name: &str| folder.join(name);
    match (controller, hierarchy) {
        (Controller::Pids, _) => {
            group.pids_max = limit(source, &file("pids.max"));
            group.pids = source.number(file("pids.current"));
        }
        (Controller::Memory, _) => {
            group.memory_max = limit(source, &file(hierarchy.memory_max()));
            group.memory = hierarchy.memory(source, &folder);
            group.memory_cache = hierarchy.memory_cache(source, &folder);
        }
        (Controller::Cpu, Hierarchy::V1) => {
            let period = source.number(file("cpu.cfs_period_us"));
            let expected = "-1 or a quota in microseconds";
            let path = file("cpu.cfs_quota_us");
            group.cpu_max_millis = source
                .parsed(path, expected, |quota| {
                    if quota == "-1" {
                        return Some(None);
                    }
                    // Without a period there is no share to tell.
                    period.map_or(Some(None), |period| millis(quota, period).map(Some))
                })
                .flatten();
        }
        (Controller::Cpu, Hierarchy::V2) => {
            let expected = "`max` or a quota, and a period";
            group.cpu_max_millis = source
                .parsed(file("cpu.max"), expected, |text| {
                    match text.split_once(' ')? {
                        ("max", _) => Some(None),
                        (quota, period) => millis(quota, period.parse().ok()?).map(Some),
                    }
                })
                .flatten();
        }
    }
}

/// A limit; `None` without one.
pub(crate) fn limit(source: &mut Source, path: &Path) -> Option<u64> {
    let limit = source.parsed(path, "`max` or a number", |text| match text {
        "max" => Some(u64::MAX),
        _ => text.parse().ok(),
    });
    limit.filter(|limit| *limit < NO_LIMIT)
}

/// Thousandths of a CPU that a quota for each period allows.
fn millis(quota: &str, period: u64) -> Option<u64> {
    let quota: u64 = quota.parse().ok()?;
    quota.checked_mul(1000)?.checked_div(period)
}
