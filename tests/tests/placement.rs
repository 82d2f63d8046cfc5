//! Where guests run: what the kernel makes of it, with the cgroups that this
//! machine has, of version 1 or 2.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use imgbuild::placement::cgroup::{FleetCgroup, group_name};
use imgbuild::placement::{Class, CpuError, Placement};
use imgbuild::placement::{Pin, PlacementSpec};
use imgbuild::units::ByteSize;
use imgbuild::units::Instance;
use imgbuild_tests::rights;

/// A fleet of ordinary processes, ended and removed when dropped.
struct Fleet {
    name: String,
    placement: Option<Placement>,
    children: Vec<Child>,
}

impl Fleet {
    fn new(test: u8, spec: &PlacementSpec) -> Self {
        let mut instance = [test; 12];
        instance[..4].copy_from_slice(&std::process::id().to_be_bytes());
        let name = group_name("placement", Instance(instance));
        let placement = Placement::of(spec, &name).expect("this host can place guests");
        Self {
            name,
            placement: Some(placement),
            children: Vec::new(),
        }
    }

    fn placement(&self) -> &Placement {
        self.placement.as_ref().expect("it is there until the end")
    }

    fn cgroup(&self) -> &FleetCgroup {
        let cgroup = self.placement().classes().cgroup();
        cgroup.expect("this process may make cgroups: run the test as root")
    }

    /// Starts a process as guest `guest` is started.
    fn start(&mut self, guest: u32, line: &[&str]) -> u32 {
        let prepared = self.placement().prepared(guest);
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).stdout(Stdio::null());
        // SAFETY: the closure makes system calls only, on values made before.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                prepared.in_child()
            });
        }
        self.children.push(command.spawn().unwrap());
        self.children.last().unwrap().id()
    }

    fn busy_loop(&mut self, class: Class) -> u32 {
        let pid = self.start(0, &["sh", "-c", "while :; do :; done"]);
        self.placement().classes().set(class, pid).unwrap();
        pid
    }

    /// The folders of this fleet's groups.
    fn folders(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(inner.map(|entry| entry.path()));
            if folder.ends_with(&self.name) {
                found.push(folder);
            }
        }
        found
    }

    /// What a file of the fleet's group says, by the name of whichever version.
    fn says(&self, files: [&str; 2]) -> String {
        let folders = self.folders();
        let mut paths = folders
            .iter()
            .flat_map(|folder| files.map(|file| folder.join(file)));
        let text = paths.find_map(|path| fs::read_to_string(path).ok());
        text.expect("one of them is there").trim().to_owned()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(placement) = self.placement.take()
            && let Err(error) = placement.close()
        {
            eprintln!("{} stays: {error}", self.name);
        }
    }
}

fn threads(pid: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(|task| task.unwrap().path()).collect()
}

/// CPU time that a process has used, in ticks (proc_pid_stat(5)).
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_ascii_whitespace()
        .collect();
    let number = |at: usize| fields[at].parse::<u64>().unwrap();
    number(11) + number(12)
}

fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let fields: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    fields[field].trim().to_owned()
}

#[test]
fn a_vmm_moves_with_all_its_threads_and_nothing_is_left() {
    if !rights::is_root("make control groups") {
        return;
    }
    let mut fleet = Fleet::new(1, &PlacementSpec::default());
    let pid = fleet.start(
        0,
        &[
            "qemu-system-x86_64",
            "-M",
            "none",
            "-display",
            "none",
            "-nodefaults",
        ],
    );
    while threads(pid).len() < 2 {
        sleep(Duration::from_millis(10));
    }
    let name = fleet.name.clone();
    let is_in = |class: &str| {
        let end = format!("/{name}/{class}");
        threads(pid).iter().all(|thread| {
            let groups = fs::read_to_string(thread.join("cgroup")).unwrap();
            groups.lines().any(|line| line.ends_with(&end))
        })
    };
    assert!(is_in("urgent"));
    fleet.cgroup().move_to(Class::Running, pid).unwrap();
    assert!(is_in("running"));
    fleet.cgroup().move_to(Class::Urgent, pid).unwrap();
    assert!(is_in("urgent"));
    assert_eq!(fleet.cgroup().members().unwrap(), [pid].into());

    // Another process finds the group, and takes it over as it is.
    let found = FleetCgroup::open(Path::new("/"), &name).unwrap().unwrap();
    assert_eq!(found.members().unwrap(), [pid].into());
    let again = Placement::of(&PlacementSpec::default(), &name).unwrap();
    let cgroup = again.classes().cgroup().unwrap();
    assert_eq!(cgroup.members().unwrap(), [pid].into());
    assert!(is_in("urgent"));

    assert!(again.close().is_err(), "a guest lives in it");
    fleet.children[0].kill().unwrap();
    // Not reaped, it is gone for the group all the same once it has ended.
    fleet.children[0].wait().unwrap();
    fleet.placement.take().unwrap().close().unwrap();
    assert_eq!(fleet.folders(), [] as [PathBuf; 0]);
    assert!(FleetCgroup::open(Path::new("/"), &name).unwrap().is_none());
}

#[test]
fn weights_and_limits_are_the_kernels() {
    if !rights::is_root("make control groups") {
        return;
    }
    let fleet = Fleet::new(
        2,
        &PlacementSpec {
            cpu_weight: Some(200),
            cpu_max: Some(0.5),
            memory_max: ByteSize::new(64 << 20),
            ..PlacementSpec::default()
        },
    );
    assert!(["200", "2048"].contains(&&*fleet.says(["cpu.weight", "cpu.shares"])));
    assert!(["50000 100000", "50000"].contains(&&*fleet.says(["cpu.max", "cpu.cfs_quota_us"])));
    assert_eq!(
        fleet.says(["memory.max", "memory.limit_in_bytes"]),
        "67108864"
    );
    let urgent = fleet.says(["urgent/cpu.weight", "urgent/cpu.shares"]);
    assert!(["400", "4096"].contains(&&*urgent));
    assert_eq!(fleet.cgroup().oom_kills(), Some(0));
}

#[test]
fn memory_beyond_the_limit_is_killed_and_counted() {
    if !rights::is_root("make control groups") {
        return;
    }
    let mut fleet = Fleet::new(
        3,
        &PlacementSpec {
            memory_max: ByteSize::new(16 << 20),
            ..PlacementSpec::default()
        },
    );
    // Without an end of line, tail keeps it all.
    fleet.start(0, &["sh", "-c", "head -c 256M /dev/zero | tail"]);
    let ended = fleet.children[0].wait().unwrap();
    assert!(
        ended.code() == Some(137) || ended.signal() == Some(9),
        "{ended}"
    );
    assert!(fleet.cgroup().oom_kills() >= Some(1));
}

#[test]
fn urgent_guests_get_half_of_the_cpu_however_many_others_there_are() {
    if !rights::is_root("make control groups") {
        return;
    }
    let mut fleet = Fleet::new(4, &PlacementSpec::default());
    let cpus = std::thread::available_parallelism().unwrap().get();
    let running: Vec<_> = (0..4 * cpus)
        .map(|_| fleet.busy_loop(Class::Running))
        .collect();
    let urgent: Vec<_> = (0..cpus).map(|_| fleet.busy_loop(Class::Urgent)).collect();
    let used = |pids: &[u32]| pids.iter().copied().map(ticks).sum::<u64>();
    let before = [used(&urgent), used(&running)];
    // By CPU time and not by the clock: others may use this machine too.
    let (urgent, running) = loop {
        let now = [used(&urgent), used(&running)];
        let (urgent, running) = (now[0] - before[0], now[1] - before[1]);
        if urgent + running >= 300 {
            break (urgent, running);
        }
        sleep(Duration::from_millis(100));
    };
    assert!(
        urgent >= running,
        "urgent guests got {urgent} ticks, others {running}"
    );
    assert!(running > 0, "others are not starved");
}

#[test]
fn a_guest_has_its_cpu_and_its_nice_value() {
    let allowed = status(std::process::id(), "Cpus_allowed_list");
    let last = allowed.rsplit([',', '-']).next().unwrap().parse().unwrap();
    let mut fleet = Fleet::new(
        5,
        &PlacementSpec {
            pin: Some(Pin::List(vec![last])),
            nice: Some(10),
            ..PlacementSpec::default()
        },
    );
    let pid = fleet.start(3, &["sleep", "600"]);
    assert_eq!(status(pid, "Cpus_allowed_list"), last.to_string());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(stat.split_ascii_whitespace().nth(18), Some("10"));
    if !rights::is_root("make control groups") {
        return;
    }
    // The weight of a process at 10, of a whole 100 or 1,024.
    let weight = fleet.says(["cpu.weight", "cpu.shares"]);
    assert!(["11", "112"].contains(&&*weight), "{weight}");
}

#[test]
fn a_guest_on_a_numa_node_takes_memory_there() {
    let spec = PlacementSpec {
        numa_node: Some(0),
        ..PlacementSpec::default()
    };
    let mut fleet = Fleet::new(6, &spec);
    let pid = fleet.start(0, &["sleep", "600"]);
    // A kernel without NUMA has no such file.
    if let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/numa_maps")) {
        let policy = |map: &str| map.split(' ').nth(1) == Some("bind:0");
        assert!(maps.lines().all(policy), "{maps}");
    }
    let elsewhere = PlacementSpec {
        numa_node: Some(1023),
        ..PlacementSpec::default()
    };
    let error = Placement::of(&elsewhere, &format!("{}-not", fleet.name)).unwrap_err();
    assert!(matches!(error, CpuError::NoNode { node: 1023, .. }));
}
