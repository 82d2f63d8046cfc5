//! Folders that play groups. What the kernel does with real ones is held to in
//! the integration test `placement`.

use super::*;

const V2: (&str, &str) = (
    "0::/outer/own\n",
    "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
);
const V1: (&str, &str) = (
    "4:memory:/deep/own\n1:cpu:/own\n",
    "31 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
     32 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
);
const NAME: &str = "imgbuild-demo-00";

/// A host with these files below `/sys/fs/cgroup`.
fn host((membership, mounts): (&str, &str), files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/self/cgroup", membership);
    write("proc/self/mountinfo", mounts);
    for (name, text) in files {
        write(&format!("sys/fs/cgroup/{name}"), text);
    }
    root
}

fn groups(root: &tempfile::TempDir) -> PathBuf {
    root.path().join("sys/fs/cgroup")
}

#[test]
fn the_innermost_group_that_hands_the_controller_down_is_taken() {
    let root = host(
        V2,
        &[
            ("cgroup.procs", ""),
            ("cgroup.subtree_control", "memory cpu"),
            ("outer/cgroup.procs", ""),
            ("outer/cgroup.subtree_control", "pids"),
            // Without the file, as a write to it would fail.
            ("outer/own/cgroup.procs", "1"),
        ],
    );
    let place = place(root.path(), NAME).unwrap();
    assert_eq!(place.folder, groups(&root).join("outer").join(NAME));
    assert_eq!(place.hierarchy, Hierarchy::V2);
    let control = |group: &str| {
        fs::read_to_string(groups(&root).join(group).join("cgroup.subtree_control")).unwrap()
    };
    assert_eq!(control("outer"), "+cpu");
    assert_eq!(control(""), "memory cpu");
    assert_eq!(memory_place(root.path(), NAME, &place), Some(place.folder));
}

#[test]
fn a_group_that_hands_it_down_already_is_left_as_it_is() {
    let root = host(
        V2,
        &[
            ("cgroup.procs", ""),
            ("cgroup.subtree_control", "cpuset cpu memory\n"),
            ("outer/own/cgroup.procs", "1"),
        ],
    );
    let place = place(root.path(), NAME).unwrap();
    assert_eq!(place.folder, groups(&root).join(NAME));
    assert_eq!(
        memory_place(root.path(), NAME, &place),
        Some(place.folder.clone())
    );
    let control = fs::read_to_string(groups(&root).join("cgroup.subtree_control")).unwrap();
    assert_eq!(control, "cpuset cpu memory\n");
}

#[test]
fn version_1_has_a_group_in_each_hierarchy_below_this_process() {
    let root = host(
        V1,
        &[
            ("cpu/own/cgroup.procs", "1"),
            ("memory/deep/own/cgroup.procs", "1"),
        ],
    );
    let place = place(root.path(), NAME).unwrap();
    assert_eq!(place.hierarchy, Hierarchy::V1);
    assert_eq!(place.folder, groups(&root).join("cpu/own").join(NAME));
    assert_eq!(
        memory_place(root.path(), NAME, &place),
        Some(groups(&root).join("memory/deep/own").join(NAME))
    );
}

#[test]
fn a_host_without_groups_is_an_error_only_if_one_is_needed() {
    let cannot = [("outer/own/cgroup.procs", "1")];
    let spec = PlacementSpec {
        cpu_max: Some(1.0),
        ..PlacementSpec::default()
    };
    for (root, missing) in [
        (
            tempfile::tempdir().unwrap(),
            "--cpu-max needs a cgroup for the fleet, and no hierarchy with the CPU controller is \
             mounted; launch as root",
        ),
        (
            host(V2, &cannot),
            "sys/fs/cgroup/outer/own or above; launch as root",
        ),
    ] {
        let none = FleetCgroup::create(root.path(), NAME, &PlacementSpec::default());
        assert!(none.unwrap().is_none());
        let error = FleetCgroup::create(root.path(), NAME, &spec).unwrap_err();
        assert!(error.to_string().contains(missing), "{error}");
        assert!(FleetCgroup::open(root.path(), NAME).unwrap().is_none());
    }
}

#[test]
fn memory_without_its_controller_is_refused_and_nothing_is_left() {
    let root = host(
        (V1.0, V1.1.split_inclusive('\n').next().unwrap()),
        &[("cpu/own/cgroup.procs", "1")],
    );
    let spec = PlacementSpec {
        memory_max: crate::units::ByteSize::new(1),
        ..PlacementSpec::default()
    };
    let error = FleetCgroup::create(root.path(), NAME, &spec).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("--memory-max needs a cgroup with the memory controller, and the memory"),
        "{error}"
    );
    assert!(existing(root.path(), Controller::Cpu, NAME).is_none());
}

#[test]
fn a_group_that_does_not_take_a_value_is_removed_again() {
    // A new folder here has no file for the weight.
    let root = host(V1, &[("cpu/own/cgroup.procs", "1")]);
    let error = FleetCgroup::create(root.path(), NAME, &PlacementSpec::default()).unwrap_err();
    assert!(matches!(error, CpuError::Cgroup { .. }), "{error}");
    assert!(error.to_string().contains("cpu.shares"), "{error}");
    assert!(existing(root.path(), Controller::Cpu, NAME).is_none());
}

#[test]
fn a_group_is_found_wherever_it_was_made() {
    let file = |name: &str| format!("elsewhere/{NAME}/{name}");
    let (own, urgent) = (file("cgroup.procs"), file("urgent/cgroup.procs"));
    let (running, events) = (file("running/cgroup.procs"), file("memory.events"));
    let root = host(
        V2,
        &[
            ("outer/own/cgroup.procs", "1"),
            (&own, ""),
            (&urgent, "12\n"),
            (&running, "7\n3\n"),
            (&file("cgroup.controllers"), "cpu memory\n"),
            (&events, "low 0\noom 3\noom_kill 2\n"),
        ],
    );
    let group = FleetCgroup::open(root.path(), NAME).unwrap().unwrap();
    assert_eq!(group.members().unwrap(), BTreeSet::from([3, 7, 12]));
    assert_eq!(group.oom_kills(), Some(2));
    assert_eq!(group.kind(), "cgroup v2");
    group.move_to(Class::Running, 99).unwrap();
    let moved = fs::read_to_string(groups(&root).join(&running)).unwrap();
    assert!(moved.starts_with("99"), "{moved}");
}

#[test]
fn two_fleets_have_two_names() {
    let name = |fleet, byte| group_name(fleet, Instance([byte; 12]));
    assert_eq!(name("demo", 1), "imgbuild-demo-010101010101010101010101");
    assert_ne!(name("demo", 1), name("demo", 2));
    assert_ne!(name("demo", 1), name("other", 1));
}
