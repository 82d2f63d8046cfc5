//! Reads which ids exist and who has them.

use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities};

use super::{IdRange, Mapped, joined};
use crate::sample::processes;
use crate::sample::source::Source;

impl Mapped {
    /// Those of this process's user namespace.
    pub(crate) fn read(source: &mut Source) -> Self {
        let users = map(source, "proc/self/uid_map");
        let groups = map(source, "proc/self/gid_map");
        let both = users
            .iter()
            .flat_map(|user| groups.iter().filter_map(|group| user.within(*group)));
        both.collect::<Vec<_>>().into()
    }
}

/// The ids inside that a map lists: `inside outside count` a line. All of them
/// where there are no user namespaces.
fn map(source: &mut Source, path: &str) -> Vec<IdRange> {
    let lines = |text: &str| {
        let lines = text.lines().map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(|word| word.parse().ok());
            let (first, _outside) = (numbers.next()??, numbers.next()??);
            Some(IdRange::new(first, numbers.next()??))
        });
        lines.collect::<Option<Vec<_>>>()
    };
    let expected = "a map of ids, such as `0 100000 65536`";
    source
        .parsed(path, expected, lines)
        .unwrap_or_else(|| vec![IdRange::new(0, u32::MAX)])
}

/// The ids that this host's files give to somebody: users and groups, and what
/// those may hand to containers (subuid(5), subgid(5)).
pub(crate) fn given(source: &mut Source) -> Vec<IdRange> {
    let mut given = Vec::new();
    // Names that a server knows are in no file; who runs is seen by `running`.
    for (path, columns) in [("etc/passwd", &[2, 3][..]), ("etc/group", &[2])] {
        for fields in table(source, path) {
            let ids = columns
                .iter()
                .filter_map(|column| fields.get(*column)?.parse().ok());
            given.extend(ids.map(|id| IdRange::new(id, 1)));
        }
    }
    for path in ["etc/subuid", "etc/subgid"] {
        let ranges = table(source, path).into_iter().filter_map(|fields| {
            let number = |column: usize| fields.get(column)?.parse().ok();
            Some(IdRange::new(number(1)?, number(2)?))
        });
        given.extend(ranges);
    }
    joined(given)
}

/// The fields of a file that parts them by colons.
fn table(source: &mut Source, path: &str) -> Vec<Vec<String>> {
    let text = source.text(path).unwrap_or_default();
    let fields = |line: &str| line.trim().split(':').map(str::to_owned).collect();
    text.lines().map(fields).collect()
}

/// The ids that processes run under now, as users or groups. What has ended, or
/// only others may see, has none.
pub(crate) fn running(root: &Path) -> Vec<IdRange> {
    let folders = processes::folders(root).into_iter().flatten().flatten();
    let ids = folders.filter_map(|process| processes::ids(&process).ok());
    let ids = ids.flat_map(|ids| {
        let own = [ids.users, ids.groups].concat();
        own.into_iter().chain(ids.others)
    });
    joined(ids.map(|id| IdRange::new(id, 1)).collect())
}

/// The capabilities that this process lacks to start, feed and end guests under
/// ids of their own.
pub(crate) fn missing_capabilities() -> Vec<String> {
    let needed = [
        (CapabilitySet::SETUID, "CAP_SETUID"),
        (CapabilitySet::SETGID, "CAP_SETGID"),
        (CapabilitySet::CHOWN, "CAP_CHOWN"),
        (CapabilitySet::KILL, "CAP_KILL"),
    ];
    let has = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let missing = needed.iter().filter(|(needed, _)| !has.contains(*needed));
    missing.map(|(_, name)| (*name).to_owned()).collect()
}

/// Whether the user namespace denies setgroups(2): a guest would keep this
/// process's other groups.
pub(crate) fn denies_groups(source: &mut Source) -> bool {
    let setgroups = source.text("proc/self/setgroups");
    setgroups.is_some_and(|text| text.trim() == "deny")
}
