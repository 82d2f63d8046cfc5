//! The control groups around this process, as they are now.

use std::path::{Path, PathBuf};

use crate::host::snapshot::cgroup::{Controller, folders, limit, limits, membership, memberships};
use crate::host::snapshot::{Group, mounts};
use crate::sample::cgroup::Hierarchy;
use crate::sample::source::Source;

/// A controller's hierarchy, and where this process is in it.
#[derive(Debug)]
pub(crate) struct Around {
    pub hierarchy: Hierarchy,
    /// The folders of its group and of what can be seen of that one's
    /// ancestors, the innermost first; never empty.
    pub folders: Vec<PathBuf>,
}

impl Around {
    /// What is around the group with the folder `group` instead, if that is in
    /// the same mount.
    pub(crate) fn of(mut self, group: &Path) -> Self {
        if let Some(top) = self.folders.last()
            && group.starts_with(top)
        {
            let folders = group.ancestors();
            let below = folders.take_while(|folder| folder.starts_with(top));
            self.folders = below.map(Path::to_path_buf).collect();
        }
        self
    }

    /// Memory that the tightest of the groups still allows, in bytes; `None`
    /// without a limit.
    pub(crate) fn memory_room(&self) -> Option<u64> {
        let rooms = self.folders.iter().map(|folder| {
            let mut unseen = Vec::new();
            let mut source = Source::new(Path::new("/"), &mut unseen);
            // Statistics take the kernel time, and mostly there is no limit.
            limit(&mut source, &folder.join(self.hierarchy.memory_max()))?;
            let mut group = Group {
                path: folder.clone(),
                ..Group::default()
            };
            limits(&mut source, self.hierarchy, Controller::Memory, &mut group);
            group.memory_room()
        });
        rooms.flatten().min()
    }
}

/// Where this process is in the hierarchy of `controller`, which is mounted
/// below `root`; `None` without one.
pub(crate) fn around(root: &Path, controller: Controller) -> Option<Around> {
    // What cannot be seen cannot be used either.
    let mut unseen = Vec::new();
    let mut source = Source::new(root, &mut unseen);
    let mounts = mounts::read(&mut source);
    let memberships = memberships(&mut source);
    let membership = membership(&memberships, controller)?;
    let folders: Vec<_> = folders(&mut source, &mounts, membership)
        .iter()
        .map(|folder| source.place(folder))
        .collect();
    (!folders.is_empty()).then(|| Around {
        hierarchy: Hierarchy::of(membership),
        folders,
    })
}
