use super::super::cgroup::Controller;
use super::*;
use crate::placement::around::around;

fn group(path: &str) -> Group {
    Group {
        path: path.into(),
        ..Group::default()
    }
}

#[test]
fn unified_groups_limit_up_to_the_root() {
    let host = seen(&tree(&full()));
    let session = Group {
        memory_max: Some(4 << 30),
        memory: Some(3_000_000),
        memory_cache: Some(34),
        cpu_max_millis: Some(1500),
        pids: Some(7),
        ..group("/sys/fs/cgroup/user.slice/session")
    };
    let slice = Group {
        pids_max: Some(10_813),
        pids: Some(70),
        memory: Some(4_000_000),
        memory_cache: Some(304),
        ..group("/sys/fs/cgroup/user.slice")
    };
    assert_eq!(host.cgroup.version, Some(CgroupVersion::V2));
    assert_eq!(
        host.cgroup.groups,
        [session, slice, group("/sys/fs/cgroup")]
    );
    assert!(host.cgroup.delegated);
}

#[test]
fn unified_groups_without_a_cpu_controller_are_not_delegated() {
    let root = tree(&full());
    let folder = "sys/fs/cgroup/user.slice/session";
    put(
        root.path(),
        &format!("{folder}/cgroup.controllers"),
        b"cpuset memory pids\n",
    );
    assert!(!seen(&root).cgroup.delegated);
    put(
        root.path(),
        &format!("{folder}/cgroup.controllers"),
        b"cpu\n",
    );
    assert!(seen(&root).cgroup.delegated);
    fs::remove_file(root.path().join(folder).join("cgroup.subtree_control")).unwrap();
    assert!(!seen(&root).cgroup.delegated);
}

const V1_MOUNTS: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
";

fn v1(mounts: &str, memberships: &str) -> TempDir {
    tree(&[
        ("proc/self/mountinfo", mounts),
        ("proc/self/cgroup", memberships),
        ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        (
            "sys/fs/cgroup/memory/m/memory.limit_in_bytes",
            "1073741824\n",
        ),
        ("sys/fs/cgroup/memory/m/memory.usage_in_bytes", "4096\n"),
        (
            "sys/fs/cgroup/memory/m/memory.stat",
            "inactive_file 1\nactive_file 1\ntotal_inactive_file 20\ntotal_active_file 3\n",
        ),
        (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        ),
        ("sys/fs/cgroup/pids/p/pids.max", "max\n"),
        ("sys/fs/cgroup/pids/p/pids.current", "3\n"),
        ("sys/fs/cgroup/unified/cgroup.controllers", "\n"),
    ])
}

fn v1_groups() -> Vec<Group> {
    vec![
        Group {
            pids: Some(3),
            ..group("/sys/fs/cgroup/pids/p")
        },
        group("/sys/fs/cgroup/pids"),
        Group {
            memory_max: Some(1 << 30),
            memory: Some(4096),
            memory_cache: Some(23),
            ..group("/sys/fs/cgroup/memory/m")
        },
        group("/sys/fs/cgroup/memory"),
        Group {
            cpu_max_millis: Some(500),
            ..group("/sys/fs/cgroup/cpu,cpuacct/a")
        },
        group("/sys/fs/cgroup/cpu,cpuacct"),
    ]
}

const V1_MEMBERSHIPS: &str = "9:name=systemd:/init\n8:pids:/p\n4:memory:/m\n2:cpu,cpuacct:/a\n";

#[test]
fn each_controller_of_version_1_has_its_own_groups() {
    let host = seen(&v1(V1_MOUNTS, V1_MEMBERSHIPS));
    assert_eq!(host.cgroup.version, Some(CgroupVersion::V1));
    assert_eq!(host.cgroup.groups, v1_groups());
    assert!(host.cgroup.delegated);
}

#[test]
fn the_tightest_group_says_what_memory_is_left() {
    let tree = v1(V1_MOUNTS, V1_MEMBERSHIPS);
    let own = || around(tree.path(), Controller::Memory).unwrap();
    let left = (1 << 30) - (4096 - 23);
    assert_eq!(own().memory_room(), Some(left));
    // A group of the fleet's own, within that of its starter.
    let fleet = tree.path().join("sys/fs/cgroup/memory/m/fleet");
    let set = |file, text| fs::write(fleet.join(file), text).unwrap();
    fs::create_dir(&fleet).unwrap();
    set("memory.limit_in_bytes", "8192\n");
    set("memory.usage_in_bytes", "8000\n");
    assert_eq!(own().of(&fleet).memory_room(), Some(192));
    set("memory.limit_in_bytes", "9223372036854771712\n");
    assert_eq!(own().of(&fleet).memory_room(), Some(left));
    // One beside its starter's, and one of another mount.
    let beside = fleet.parent().unwrap().with_file_name("other");
    assert_eq!(own().of(&beside).memory_room(), None);
    let elsewhere = own().of(Path::new("/elsewhere"));
    assert_eq!(elsewhere.memory_room(), Some(left));
}

#[test]
fn a_hybrid_host_is_read_by_version_1() {
    let mounts =
        format!("{V1_MOUNTS}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    let host = seen(&v1(&mounts, &format!("{V1_MEMBERSHIPS}0::/init\n")));
    assert_eq!(host.cgroup.version, Some(CgroupVersion::Hybrid));
    assert_eq!(host.cgroup.groups, v1_groups());
}

#[test]
fn a_name_alone_does_not_make_a_host_hybrid() {
    let root = tree(&full());
    let mounts =
        format!("{MOUNTINFO}40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup c rw,name=systemd\n");
    put(root.path(), "proc/self/mountinfo", mounts.as_bytes());
    put(
        root.path(),
        "proc/self/cgroup",
        b"1:name=systemd:/\n0::/user.slice/session\n",
    );
    let host = seen(&root);
    assert_eq!(host.cgroup.version, Some(CgroupVersion::V2));
    assert_eq!(host.cgroup.groups.len(), 3);
}

#[test]
fn without_mounts_there_are_no_groups() {
    let root = tree(&full());
    put(
        root.path(),
        "proc/self/mountinfo",
        b"27 1 254:0 / / rw - overlay overlay rw\n",
    );
    assert_eq!(seen(&root).cgroup, Cgroup::default());
}

/// A mount's root and a group's path, with how many groups can be seen.
#[test]
fn a_container_sees_what_is_mounted_for_it() {
    let seen_with = |mount_root: &str, group: &str| {
        let mounts = format!("30 22 0:26 {mount_root} /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
        let host = look(&tree(&[
            ("proc/self/mountinfo", mounts.as_str()),
            ("proc/self/cgroup", format!("0::{group}\n").as_str()),
            ("sys/fs/cgroup/pids.max", "1000\n"),
            ("sys/fs/cgroup/in/pids.max", "10\n"),
            ("sys/fs/cgroup/in/ner/pids.max", "1\n"),
        ]));
        let innermost = host.cgroup.groups.first().and_then(|group| group.pids_max);
        (host.cgroup.groups.len(), innermost, host.unseen.len())
    };
    // With a namespace of its own.
    assert_eq!(seen_with("/", "/"), (1, Some(1000), 0));
    assert_eq!(seen_with("/", "/in/ner"), (3, Some(1), 0));
    // A bind mount of its group, without a namespace.
    assert_eq!(seen_with("/docker/abc", "/docker/abc"), (1, Some(1000), 0));
    assert_eq!(seen_with("/docker/abc", "/docker/abc/in"), (2, Some(10), 0));
    // The host's mount, with a namespace further down: an ancestor at least.
    assert_eq!(seen_with("/../..", "/"), (1, Some(1000), 0));
    assert_eq!(seen_with("/..", "/../in"), (2, Some(10), 0));
    // A group that is gone from where it is said to be.
    assert_eq!(seen_with("/", "/elsewhere/deep"), (1, Some(1000), 0));
    // A group outside of what is mounted.
    assert_eq!(seen_with("/docker/abc", "/docker/other"), (0, None, 1));
    assert_eq!(seen_with("/docker/abc", "/docker/abcdef"), (0, None, 1));
    assert_eq!(seen_with("/", "/../in"), (0, None, 1));
}

#[test]
fn a_mount_cannot_lead_out_of_the_root() {
    let root = tree(&[
        (
            "proc/self/mountinfo",
            "30 22 0:26 / /../../../../../../tmp rw - cgroup2 cgroup rw\n",
        ),
        ("proc/self/cgroup", "0::/\n"),
        ("tmp/pids.max", "77\n"),
    ]);
    assert_eq!(seen(&root).cgroup.groups[0].pids_max, Some(77));
}

#[test]
fn limits_that_make_no_sense_are_noted() {
    let folder = "sys/fs/cgroup/user.slice/session";
    for (file, content) in [
        ("pids.max", "many"),
        ("pids.max", "-1"),
        ("memory.max", "99999999999999999999999"),
        ("cpu.max", "100000"),
        ("cpu.max", "100000 0"),
        ("cpu.max", "18446744073709551615 1"),
        ("cpu.max", ""),
        ("memory.stat", "anon 1\n"),
        (
            "memory.stat",
            "inactive_file 18446744073709551615\nactive_file 1\n",
        ),
    ] {
        let root = tree(&full());
        put(root.path(), &format!("{folder}/{file}"), content.as_bytes());
        let host = look(&root);
        assert_eq!(unseen(&host), [format!("/{folder}/{file}")], "{content}");
    }
}
