use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use tempfile::TempDir;

use super::read::System;
use super::*;

mod cgroup;
mod hostile;
mod live;
mod saved;

/// A root that holds these files.
pub(crate) fn tree<T: AsRef<[u8]>>(files: &[(&str, T)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, content) in files {
        put(root.path(), path, content.as_ref());
    }
    root
}

pub(crate) fn put(root: &Path, path: &str, content: &[u8]) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

/// What system calls would have said of the host of a fixture.
fn system() -> System {
    System {
        probe: None,
        privileged: true,
        release: Some("6.12.63".to_owned()),
        allowed: 6,
        open_max: Some(20_000),
        open_raisable: true,
        user_max: None,
        user: None,
        missing_capabilities: vec!["CAP_KILL".to_owned()],
        storage: BTreeMap::from([(
            Store::State,
            FileSystem {
                path: "/var".into(),
                kind: Some("ext4".to_owned()),
                size: 1 << 40,
                free: 1 << 39,
                files_free: Some(1 << 20),
            },
        )]),
        memory_merge: Some(MemoryMerge::Kept),
    }
}

pub(crate) fn look(root: &TempDir) -> Host {
    Host::below(root.path(), system(), Vec::new(), || Qemu::Missing)
}

fn seen(root: &TempDir) -> Host {
    let host = look(root);
    assert_eq!(host.unseen, []);
    host
}

/// The paths that could not be seen.
pub(crate) fn unseen(host: &Host) -> Vec<&str> {
    host.unseen
        .iter()
        .map(|unseen| unseen.what.as_str())
        .collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

const MEMINFO: &str = "\
MemTotal:       536870912 kB
MemFree:        400000000 kB
MemAvailable:   500000000 kB
SwapTotal:       1048576 kB
SwapFree:        1048000 kB
CommitLimit:    269484032 kB
Committed_AS:      59608 kB
HugePages_Total:     512
Hugepagesize:       2048 kB
Hugetlb:         3145728 kB
";

const CPUINFO: &str = "\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum
flags\t\t: fpu vmx cx16 xsave ept vpid constant_tsc nonstop_tsc
vmx flags\t: vnmi preemption_timer posted_intr flexpriority apicv tsc_offset ept vpid unrestricted_guest shadow_vmcs ept_1gb
power management:

processor\t: 1
vendor_id\t: AuthenticAMD
flags\t\t: svm
";

const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   2: 0100007F:9C40 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0
";

const TCP6: &str = "  sl  local_address                         remote_address  st
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0
   1: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0
";

const MOUNTINFO: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
";

/// What tells that a process is root's.
const ROOT_S: &str = "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t \nThreads:\t1\n";
/// And that it is another's.
const A_USER_S: &str = "Uid:\t33\t33\t33\t33\nGid:\t7\t7\t7\t7\nGroups:\t \nThreads:\t1\n";

const DEVICES_AND_PROC: &[(&str, &str)] = &[
    ("boot/config-6.12.63", "CONFIG_NUMA=y\nCONFIG_VHOST_NET=m\n"),
    ("dev/kvm", ""),
    ("dev/net/tun", ""),
    ("etc/group", "root:x:0:\n"),
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nann:x:40000:40000::/:/bin/sh\n",
    ),
    ("etc/subgid", "ann:50000:65536\n"),
    ("etc/subuid", "ann:50000:65536\n"),
    ("proc/1/comm", "systemd\n"),
    ("proc/77/comm", "ksmtuned\n"),
    ("proc/77/status", ROOT_S),
    ("proc/78/comm", "uksmd\n"),
    // A program, and the kernel's thread.
    ("proc/36/comm", "ksmd\n"),
    (
        "proc/36/stat",
        "36 (ksmd) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 39 19 1 0 70\n",
    ),
    ("proc/37/comm", "ksmd\n"),
    (
        "proc/37/stat",
        "37 (ksmd) S 2 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 25 5 1 0 60\n",
    ),
    ("proc/78/status", A_USER_S),
    ("proc/379/comm", "kvm-pit/1234\n"),
    ("proc/379/status", ROOT_S),
    ("proc/380/comm", "kvm-pit/1235\n"),
    ("proc/380/status", A_USER_S),
    ("proc/cpuinfo", CPUINFO),
    ("proc/loadavg", "0.67 0.40 0.84 3/1289 3897\n"),
    ("proc/meminfo", MEMINFO),
    ("proc/net/tcp", TCP),
    ("proc/net/tcp6", TCP6),
    ("proc/pressure/memory", "some avg10=0.00 avg60=0.00\n"),
    ("proc/self/cgroup", "0::/user.slice/session\n"),
    ("proc/self/gid_map", "0 100000 65536\n"),
    ("proc/self/mountinfo", MOUNTINFO),
    ("proc/self/setgroups", "deny\n"),
    ("proc/self/uid_map", "0 1000 1\n1 100000 70000\n"),
    ("proc/sys/fs/aio-max-nr", "65536\n"),
    ("proc/sys/fs/aio-nr", "12\n"),
    ("proc/sys/fs/file-max", "9223372036854775807\n"),
    ("proc/sys/fs/file-nr", "1024\t0\t9223372036854775807\n"),
    ("proc/sys/fs/inotify/max_user_instances", "128\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("proc/sys/kernel/pid_max", "32768\n"),
    (
        "proc/sys/kernel/random/boot_id",
        "5f0c6b0e-8a55-4d5b-9d3e-0f3f1c2b7a11\n",
    ),
    ("proc/sys/kernel/sched_autogroup_enabled", "1\n"),
    ("proc/sys/kernel/threads-max", "192000\n"),
    ("proc/sys/net/core/netdev_max_backlog", "1000\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/ipv4/neigh/default/gc_thresh3", "1024\n"),
    ("proc/sys/vm/max_map_count", "65530\n"),
    ("proc/sys/vm/overcommit_memory", "0\n"),
];

const SYS: &[(&str, &str)] = &[
    ("sys/devices/system/cpu/online", "0-3,8,10-11\n"),
    (
        "sys/devices/system/cpu/vulnerabilities/itlb_multihit",
        "KVM: Mitigation: VMX disabled\n",
    ),
    ("sys/devices/system/node/node0/cpulist", "0-3\n"),
    (
        "sys/devices/system/node/node0/meminfo",
        "Node 0 MemTotal:  1024 kB\nNode 0 MemFree:  512 kB\n",
    ),
    ("sys/devices/system/node/node10/cpulist", "8\n"),
    (
        "sys/devices/system/node/node10/meminfo",
        "Node 10 MemTotal:  2048 kB\nNode 10 MemFree:  1 kB\n",
    ),
    ("sys/devices/system/node/node2/cpulist", "10-11\n"),
    (
        "sys/devices/system/node/node2/meminfo",
        "Node 2 MemTotal:  4096 kB\nNode 2 MemFree:  2 kB\n",
    ),
    ("sys/devices/system/node/node3/cpulist", "\n"),
    (
        "sys/devices/system/node/node3/meminfo",
        "Node 3 MemTotal:  0 kB\nNode 3 MemFree:  0 kB\n",
    ),
    ("sys/kernel/mm/ksm/advisor_mode", "[none] scan-time\n"),
    ("sys/kernel/mm/ksm/full_scans", "13\n"),
    ("sys/kernel/mm/ksm/max_page_sharing", "256\n"),
    ("sys/kernel/mm/ksm/merge_across_nodes", "1\n"),
    ("sys/kernel/mm/ksm/pages_shared", "8\n"),
    ("sys/kernel/mm/ksm/pages_sharing", "9\n"),
    ("sys/kernel/mm/ksm/pages_to_scan", "100\n"),
    ("sys/kernel/mm/ksm/pages_unshared", "11\n"),
    ("sys/kernel/mm/ksm/pages_volatile", "12\n"),
    ("sys/kernel/mm/ksm/run", "1\n"),
    ("sys/kernel/mm/ksm/sleep_millisecs", "20\n"),
    ("sys/kernel/mm/ksm/smart_scan", "1\n"),
    ("sys/kernel/mm/ksm/use_zero_pages", "0\n"),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never\n",
    ),
];

const GROUPS: &[(&str, &str)] = &[
    ("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n"),
    ("sys/fs/cgroup/user.slice/memory.current", "4000000\n"),
    ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
    (
        "sys/fs/cgroup/user.slice/memory.stat",
        "anon 5\ninactive_file 300\nactive_file 4\n",
    ),
    ("sys/fs/cgroup/user.slice/pids.current", "70\n"),
    ("sys/fs/cgroup/user.slice/pids.max", "10813\n"),
    (
        "sys/fs/cgroup/user.slice/session/cgroup.controllers",
        "cpu memory pids\n",
    ),
    (
        "sys/fs/cgroup/user.slice/session/cgroup.subtree_control",
        "\n",
    ),
    (
        "sys/fs/cgroup/user.slice/session/cpu.max",
        "150000 100000\n",
    ),
    (
        "sys/fs/cgroup/user.slice/session/memory.current",
        "3000000\n",
    ),
    (
        "sys/fs/cgroup/user.slice/session/memory.max",
        "4294967296\n",
    ),
    (
        "sys/fs/cgroup/user.slice/session/memory.stat",
        "inactive_file 30\nactive_file 4\n",
    ),
    ("sys/fs/cgroup/user.slice/session/pids.current", "7\n"),
    ("sys/fs/cgroup/user.slice/session/pids.max", "max\n"),
];

/// Every file that is read of a host with three nodes that have memory, and
/// unified control groups.
fn full() -> Vec<(&'static str, Vec<u8>)> {
    let config = gzip("# a comment\nCONFIG_KSM=y\nCONFIG_KVM=m\nCONFIG_HZ=100\nCONFIG_PSI=n\n");
    let text = [DEVICES_AND_PROC, SYS, GROUPS].concat();
    let mut files: Vec<_> = text
        .iter()
        .map(|(path, content)| (*path, content.as_bytes().to_vec()))
        .collect();
    files.push(("proc/config.gz", config));
    files
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn memory_and_its_sharing_are_read() {
    let host = seen(&tree(&full()));
    let expected = Memory {
        total: Some(536_870_912 << 10),
        available: Some(500_000_000 << 10),
        swap: Some(1 << 30),
        swap_free: Some(1_048_000 << 10),
        huge_pages: Some(3 << 30),
        commit_limit: Some(269_484_032 << 10),
        committed: Some(59_608 << 10),
        overcommit: Some(0),
        transparent_huge_pages: Some("madvise".to_owned()),
        pressure: true,
    };
    assert_eq!(host.memory, expected);
    let expected = Ksm {
        run: Some(1),
        pages_to_scan: Some(100),
        sleep_millisecs: Some(20),
        smart_scan: Some(1),
        use_zero_pages: Some(0),
        max_page_sharing: Some(256),
        merge_across_nodes: Some(1),
        advisor_mode: Some("none".to_owned()),
        pages_shared: Some(8),
        pages_sharing: Some(9),
        pages_unshared: Some(11),
        pages_volatile: Some(12),
        full_scans: Some(13),
        ksmd_nice: Some(5),
    };
    assert_eq!(host.ksm, Some(expected));
    assert_eq!(host.memory_merge, Some(MemoryMerge::Kept));
}

#[test]
fn huge_pages_of_an_older_kernel_are_counted() {
    let text = "MemTotal: 8 kB\nHugePages_Total:     512\nHugepagesize:       2048 kB\n";
    let host = seen(&tree(&[("proc/meminfo", text)]));
    assert_eq!(host.memory.huge_pages, Some(1 << 30));
}

#[test]
fn processors_and_nodes_are_read() {
    let host = seen(&tree(&full()));
    let expected = Cpu {
        vendor: Some("GenuineIntel".to_owned()),
        model: Some("Intel(R) Xeon(R) Platinum".to_owned()),
        online: 7,
        allowed: 6,
        flags: set(&[
            "constant_tsc",
            "cx16",
            "ept",
            "nonstop_tsc",
            "vmx",
            "vmx:apicv",
            "vmx:ept",
            "vmx:ept_1gb",
            "vmx:flexpriority",
            "vmx:posted_intr",
            "vmx:shadow_vmcs",
            "vmx:tsc_offset",
            "vmx:unrestricted_guest",
            "vmx:vnmi",
            "vmx:vpid",
            "vpid",
            "xsave",
        ]),
        itlb_multihit: Some("KVM: Mitigation: VMX disabled".to_owned()),
    };
    assert_eq!(host.cpu, expected);
    let node = |id, total, free, cpus: &str| Node {
        id,
        total,
        free,
        cpus: cpus.to_owned(),
    };
    let expected = [
        node(0, 1 << 20, 1 << 19, "0-3"),
        node(2, 4 << 20, 2 << 10, "10-11"),
        node(10, 2 << 20, 1 << 10, "8"),
    ];
    assert_eq!(host.nodes, expected);
}

#[test]
fn the_kernels_own_configuration_is_preferred() {
    let files = full();
    let root = tree(&files);
    let options = |host: &Host| {
        host.kernel
            .config
            .clone()
            .unwrap()
            .into_iter()
            .collect::<Vec<_>>()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let built_in = [pair("CONFIG_KSM", "y"), pair("CONFIG_KVM", "m")];
    assert_eq!(options(&seen(&root)), built_in);
    fs::remove_file(root.path().join("proc/config.gz")).unwrap();
    let installed = [pair("CONFIG_NUMA", "y"), pair("CONFIG_VHOST_NET", "m")];
    assert_eq!(options(&seen(&root)), installed);
    fs::remove_dir_all(root.path().join("boot")).unwrap();
    assert_eq!(seen(&root).kernel.config, None);
}

#[test]
fn tables_and_network_are_read() {
    let host = seen(&tree(&full()));
    assert_eq!(
        host.boot_id,
        "5f0c6b0e-8a55-4d5b-9d3e-0f3f1c2b7a11".parse().ok()
    );
    let expected = Processes {
        pid_max: Some(32_768),
        threads_max: Some(192_000),
        threads: Some(1289),
        user_max: None,
        user_threads: None,
        autogroup: Some(true),
    };
    assert_eq!(host.processes, expected);
    let expected = Files {
        open_max: Some(20_000),
        open_raisable: true,
        nr_open: Some(1_048_576),
        file_max: Some(i64::MAX.unsigned_abs()),
        open: Some(1024),
        max_map_count: Some(65_530),
        aio_max: Some(65_536),
        aio: Some(12),
        inotify_instances: Some(128),
    };
    assert_eq!(host.files, expected);
    let expected = Network {
        ephemeral: Some([32_768, 60_999]),
        // 22 of either, 8080 and 443.
        listening: Some(3),
        tun: true,
        taps: None,
        forwards: None,
        neighbours_max: Some(1024),
        backlog: Some(1000),
    };
    assert_eq!(host.network, expected);
    assert_eq!(host.daemons, set(&["ksmtuned"]));
}

/// What is seen by a user other than root.
fn seen_by(user: u32, root: &TempDir) -> Host {
    let system = System {
        privileged: false,
        user: Some(user),
        ..system()
    };
    Host::below(root.path(), system, Vec::new(), || Qemu::Missing)
}

#[test]
fn threads_of_a_user_are_those_of_its_own_processes() {
    let root = tree(&full());
    for (process, real, effective, threads) in [
        (1, 0, 0, 1),
        (79, 1000, 1000, 3),
        // passwd(1) counts for who runs it, and a root that became this user
        // does not.
        (80, 1000, 0, 40),
        (81, 0, 1000, 500),
        (82, 10000, 10000, 6000),
    ] {
        let status = format!(
            "Name:\tUid: 1000\nUid:\t{real}\t{effective}\t{effective}\t{effective}\n\
             Groups:\t4 1000 \nThreads:\t{threads}\nSigQ:\t0/1\n"
        );
        put(
            root.path(),
            &format!("proc/{process}/status"),
            status.as_bytes(),
        );
    }
    // It has ended meanwhile.
    fs::create_dir(root.path().join("proc/83")).unwrap();
    let host = seen_by(1000, &root);
    assert_eq!(host.unseen, []);
    assert_eq!(host.processes.user_threads, Some(43));
    assert_eq!(seen_by(1001, &root).processes.user_threads, None);
    assert_eq!(seen(&root).processes.user_threads, None);
}

#[test]
fn a_status_that_makes_no_sense_is_noted() {
    let root = tree(&full());
    put(
        root.path(),
        "proc/79/status",
        b"Uid:\t1000\nThreads:\tmany\n",
    );
    let host = seen_by(1000, &root);
    assert_eq!(unseen(&host), ["/proc/79/status"]);
    assert_eq!(host.processes.user_threads, None);
}

#[test]
fn user_ids_that_there_are_and_nobody_has_are_counted() {
    let expected = UserIds {
        mapped: 65_536,
        // From 1,000 up to those of ann.
        guests: 39_000,
        missing: vec!["CAP_KILL".to_owned()],
        groups_denied: true,
        qemu_barrier: None,
    };
    assert_eq!(seen(&tree(&full())).users, expected);
}

#[test]
fn a_host_that_shows_nothing_has_nothing() {
    let root = tempfile::tempdir().unwrap();
    let host = seen(&root);
    assert_eq!(host.memory, Memory::default());
    assert_eq!(host.ksm, None);
    assert_eq!(host.nodes, []);
    assert_eq!(host.cgroup, Cgroup::default());
    assert_eq!(host.network, Network::default());
    assert_eq!(host.kernel.config, None);
    assert_eq!(host.kvm.device, crate::host::kvm::Device::Absent);
    assert_eq!((host.cpu.online, host.cpu.vendor), (6, None));
    assert!(host.daemons.is_empty());
}
