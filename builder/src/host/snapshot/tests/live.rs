//! This host against what other programs say of it.

use std::process::Command;

use super::*;
use crate::interrupt::Interrupt;
use crate::vmm::qemu::Program;

fn here() -> Host {
    let places = Places {
        root: "/".into(),
        state: "/var/lib/no-such-folder/fleets".into(),
        runtime: "/run/no-such-folder".into(),
        kvm: KvmProbe::Skip,
        qemu: Program::installed(),
    };
    Host::read(&places, &Interrupt::never().unwrap())
}

/// The standard output of `sh -c script`.
fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn number(script: &str) -> u64 {
    let text = sh(script);
    text.parse().unwrap_or_else(|_| panic!("{script}: {text}"))
}

#[test]
fn this_host_is_seen_as_others_see_it() {
    let host = here();
    assert_eq!(host.privileged, number("id -u") == 0);
    assert_eq!(host.kernel.release.clone().unwrap(), sh("uname -r"));
    assert_eq!(
        host.boot_id.clone().unwrap().to_string(),
        sh("cat /proc/sys/kernel/random/boot_id")
    );
    assert_eq!(host.cpu.online, number("getconf _NPROCESSORS_ONLN"));
    assert_eq!(host.cpu.allowed, number("nproc"));
    assert_eq!(
        host.cpu.vendor.clone().unwrap(),
        sh("lscpu | sed -n 's/^Vendor ID: *//p'")
    );
    assert_eq!(
        host.memory.total.unwrap(),
        number("free -b | awk '/^Mem:/ { print $2 }'")
    );
    assert_eq!(
        host.memory.swap.unwrap(),
        number("free -b | awk '/^Swap:/ { print $2 }'")
    );
    let available = number("free -b | awk '/^Mem:/ { print $7 }'");
    assert!(host.memory.available.unwrap().abs_diff(available) < available / 2);
    assert_eq!(
        host.processes.pid_max.unwrap(),
        number("sysctl -n kernel.pid_max")
    );
    assert_eq!(host.files.nr_open.unwrap(), number("sysctl -n fs.nr_open"));
    let hard = sh("ulimit -Hn");
    assert_eq!(
        host.files
            .open_max
            .map_or("unlimited".to_owned(), |n| n.to_string()),
        hard
    );
    assert!(host.processes.threads.unwrap() >= number("ls -d /proc/[0-9]* | wc -l") / 2);
    assert_eq!(host.ksm.is_some(), Path::new("/sys/kernel/mm/ksm").is_dir());
    let with_memory = "cat /sys/devices/system/node/node*/meminfo 2> /dev/null | \
                       awk '/MemTotal/ && $4 > 0' | wc -l";
    assert_eq!(host.nodes.len() as u64, number(with_memory));
}

#[test]
fn this_hosts_tools_and_file_systems_are_seen_as_others_see_them() {
    let host = here();
    let Qemu::Found {
        path,
        version,
        microvm,
    } = &host.qemu
    else {
        panic!("{:?}", host.qemu);
    };
    let found = path.as_ref().unwrap().to_str().unwrap();
    assert_eq!(found, sh("command -v qemu-system-x86_64"));
    assert_eq!(*version, sh("qemu-system-x86_64 --version | head -n 1"));
    assert!(microvm);
    let state = &host.storage[&Store::State];
    assert_eq!(state.path, Path::new("/var/lib"));
    assert_eq!(
        state.size,
        number("df --output=size -B1 /var/lib | tail -n 1")
    );
    let kind = sh("findmnt -no FSTYPE -T /var/lib");
    assert_eq!(state.kind.clone().unwrap(), kind);
    if let Some(shm) = host.storage.get(&Store::Shm) {
        assert_eq!(
            shm.kind.clone().unwrap(),
            sh("findmnt -no FSTYPE -T /dev/shm | tail -n 1")
        );
    }
}

/// A child that listens must be counted.
#[test]
fn a_port_that_is_listened_on_counts() {
    let before = here().network.listening.unwrap();
    let listeners: Vec<_> = (0..20)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let after = here().network.listening.unwrap();
    drop(listeners);
    // Other tests open and close some meanwhile.
    assert!(after >= before + 10, "{before}, then {after}");
}
