//! What the processes of a control group use (kernel documents
//! admin-guide/cgroup-v1/memory and admin-guide/cgroup-v2).

use std::path::Path;

use super::source::{Source, counter};

/// What kind of hierarchy a group is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    V1,
    V2,
}

impl Hierarchy {
    /// Memory that the group with this folder uses, in bytes.
    pub(crate) fn memory(self, source: &mut Source, folder: &Path) -> Option<u64> {
        source.number(folder.join(match self {
            Self::V1 => "memory.usage_in_bytes",
            Self::V2 => "memory.current",
        }))
    }

    /// What of that is page cache, in bytes.
    pub(crate) fn memory_cache(self, source: &mut Source, folder: &Path) -> Option<u64> {
        let [inactive, active] = match self {
            Self::V1 => ["total_inactive_file", "total_active_file"],
            Self::V2 => ["inactive_file", "active_file"],
        };
        let expected = format!("a list with {inactive} and {active}");
        source.parsed(folder.join("memory.stat"), &expected, |text| {
            counter(text, inactive)?.checked_add(counter(text, active)?)
        })
    }

    /// What of that the kernel has for the group's processes, in bytes: page tables,
    /// stacks and objects; `None` where it is not counted.
    pub(crate) fn kernel_memory(self, source: &mut Source, folder: &Path) -> Option<u64> {
        match self {
            Self::V1 => source.number(folder.join("memory.kmem.usage_in_bytes")),
            Self::V2 => counter(&source.text(folder.join("memory.stat"))?, "kernel"),
        }
    }

    /// How many of its processes the kernel has killed for want of memory, since it
    /// was made; `None` where it is not counted.
    pub(crate) fn oom_kills(self, folder: &Path) -> Option<u64> {
        let text = Source::new(folder, &mut Vec::new()).text(match self {
            Self::V1 => "memory.oom_control",
            Self::V2 => "memory.events",
        });
        counter(&text?, "oom_kill")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_group_uses_is_read_in_either_version_and_nothing_of_what_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let group = Path::new("group");
        fs::create_dir(folder.path().join(group)).unwrap();
        let (mut unseen, endless) = (Vec::new(), "1".repeat(2 << 20));
        for (hierarchy, usage, stat, used, cache) in [
            (
                Hierarchy::V1,
                "41\n",
                "cache 1\ntotal_inactive_file 2\ntotal_active_file 3\n",
                Some(41),
                Some(5),
            ),
            (
                Hierarchy::V2,
                "42\n",
                "anon 1\ninactive_file 4\nactive_file 5\n",
                Some(42),
                Some(9),
            ),
            (Hierarchy::V2, "", "inactive_file 4\nactive_fi", None, None),
            (
                Hierarchy::V2,
                "-1",
                "inactive_file -4\nactive_file 5\n",
                None,
                None,
            ),
            (
                Hierarchy::V2,
                &endless,
                "inactive_file 18446744073709551615\nactive_file 1\n",
                None,
                None,
            ),
            (Hierarchy::V1, "18446744073709551616", &endless, None, None),
        ] {
            let write = |name, text| fs::write(folder.path().join("group").join(name), text);
            write("memory.usage_in_bytes", usage).unwrap();
            write("memory.current", usage).unwrap();
            write("memory.stat", stat).unwrap();
            let mut source = Source::new(folder.path(), &mut unseen);
            assert_eq!(hierarchy.memory(&mut source, group), used);
            assert_eq!(hierarchy.memory_cache(&mut source, group), cache);
        }
        // What makes no sense is noted.
        assert_eq!(unseen.len(), 8);
    }

    #[test]
    fn kills_are_counted_where_the_kernel_counts_them() {
        let folder = tempfile::tempdir().unwrap();
        for (hierarchy, text, kills) in [
            (
                Hierarchy::V2,
                "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n",
                Some(1),
            ),
            (
                Hierarchy::V1,
                "oom_kill_disable 0\nunder_oom 0\noom_kill 12\n",
                Some(12),
            ),
            (Hierarchy::V1, "oom_kill_disable 0\nunder_oom 0\n", None),
            (Hierarchy::V2, "oom_kill", None),
            (Hierarchy::V2, "oom_kill x", None),
            (Hierarchy::V2, "oom_kill -1", None),
            (Hierarchy::V2, "", None),
        ] {
            for file in ["memory.events", "memory.oom_control"] {
                fs::write(folder.path().join(file), text).unwrap();
            }
            assert_eq!(hierarchy.oom_kills(folder.path()), kills, "{text:?}");
        }
        assert_eq!(Hierarchy::V2.oom_kills(Path::new("/nowhere")), None);
    }
}
