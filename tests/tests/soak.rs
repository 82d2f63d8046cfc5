//! Placement and a fleet under cgroup version 2 alone, whatever this machine
//! has, and under a clock that jumps: in a guest with a distribution's kernel,
//! whose root file system is made of this machine's programs. Fleets in it are
//! guests in a guest, both under TCG, so this takes minutes.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use imgbuild_tests::root::Root;
use imgbuild_tests::stand_in::QEMU;
use imgbuild_tests::{TestEnv, binary, workspace};

/// Asks for the tests that take minutes.
const ASKED: &str = "IMGBUILD_SOAK";
/// Where `./bootstrap soak` unpacks the kernel.
const KERNELS: &str = ".tools/linux-image/boot";
/// Seconds that the guest may take: it only keeps a hang from lasting for ever.
const PATIENCE: &str = "3600";

/// What the tests and imgbuild call in the guest, and QEMU's firmware.
const PROGRAMS: [&str; 8] = [
    "/bin/busybox",
    "/usr/bin/sh",
    "/usr/bin/head",
    "/usr/bin/tail",
    "/usr/bin/sleep",
    "/usr/bin/qemu-img",
    "/usr/bin/qemu-system-x86_64",
    // QEMU loads it once it is asked for TCG.
    "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so",
];
const FIRMWARE: [&str; 2] = ["usr/share/qemu/qboot.rom", "usr/share/qemu/pvh.bin"];

/// The guest's first process: each step's exit code is told on the console.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/usr/bin:/bin HOME=/root TMPDIR=/tmp RUST_BACKTRACE=0
export XDG_STATE_HOME=/root/state XDG_RUNTIME_DIR=/run
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox mount -t tmpfs tmpfs /tmp
busybox ln -s /proc/self/fd /dev/fd
exec </dev/null >/dev/ttyS0 2>&1
busybox ifconfig lo 127.0.0.1 up

step() {
    name=$1
    shift
    "$@"
    echo "step $name: $?"
}

# Sets the clock so many seconds forward.
jump() { busybox date -s "@$(($(busybox date +%s) + $1))"; }

# The supervisor, and what a guest does not keep if it is started again.
lives() { imgbuild ps --json | busybox grep -oE '"(id|state|pid|restarts)": *[^,}]+'; }

beats() { busybox grep -c heartbeat /tmp/said; }

# Waits for answers to two questions after health, of which the first may have
# been asked before.
healthy() {
    wanted=$(($(beats) + 2))
    for second in $(busybox seq 300); do
        [ "$(beats)" -lt $wanted ] || return 0
        sleep 1
    done
    return 1
}

answered() {
    for guest in g00000 g00001; do
        echo status | imgbuild console $guest | busybox grep "id=$guest" || return
    done
}

# All is as before a jump, and goes on.
unmoved() {
    step health$1 healthy
    step same$1 [ "$(lives)" = "$before" ]
    step answers$1 answered
}

step placement /test/placement --test-threads=1
step launch imgbuild launch /test/out --detach --count 2 --accel tcg --sharing none --no-canary \
    --memory-max 512M --cpu-max 1.5 --health 10s
step ready imgbuild wait --quiet --ready --timeout 20m
step ps imgbuild ps --json
group=$(echo /sys/fs/cgroup/imgbuild-*)
step memory busybox grep -x 536870912 "$group/memory.max"
step cpu busybox grep -x '150000 100000' "$group/cpu.max"
step members [ "$(busybox wc -l <"$group/running/cgroup.procs")" = 2 ]
imgbuild console --follow g00000 >/tmp/said &
before=$(lives)
echo "$before"
# Those of both together come first.
step lives [ "$(echo "$before" | busybox grep -c '"restarts": *0')" = 3 ]
step day jump 86400
unmoved 1
step back jump -172800
unmoved 2
step stop imgbuild stop --all
step removed [ ! -e "$group" ]
step over true
busybox reboot -f
"#;

/// The steps, in order.
const STEPS: [&str; 19] = [
    "placement",
    "launch",
    "ready",
    "ps",
    "memory",
    "cpu",
    "members",
    "lives",
    "day",
    "health1",
    "same1",
    "answers1",
    "back",
    "health2",
    "same2",
    "answers2",
    "stop",
    "removed",
    "over",
];

#[test]
fn placement_and_a_fleet_hold_under_cgroup_v2_and_jumps_of_the_clock() {
    if std::env::var_os(ASKED).is_none() {
        // Past the harness, which keeps what a test that passes prints.
        writeln!(
            std::io::stderr(),
            "skipped: cgroup v2 in a guest takes minutes; `./bootstrap soak` runs it"
        )
        .unwrap();
        return;
    }
    let env = TestEnv::new();
    let root = Root::new(env.path().join("root"));
    for program in PROGRAMS {
        root.program(program);
    }
    for file in FIRMWARE {
        root.copy(&Path::new("/").join(file), file);
    }
    add_stripped(&root, binary(), "usr/bin/imgbuild");
    add_stripped(&root, &placement(), "test/placement");
    // An emulated CPU that emulates one takes its time.
    let patient = ("[guest]", "[guest]\nboot_timeout = \"20m\"");
    root.copy(&env.changed_artifacts(&[patient]), "test/out");
    root.script("init", INIT);

    let output = env
        .command("timeout")
        .args([PATIENCE, QEMU, "-machine", "q35", "-accel", "tcg"])
        .args(["-cpu", "max", "-smp", "2", "-m", "3G", "-nodefaults"])
        .args(["-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 quiet cgroup_no_v1=all panic=-1"])
        .arg("-kernel")
        .arg(kernel())
        .arg("-initrd")
        .arg(root.pack())
        .output()
        .unwrap();
    let console = String::from_utf8_lossy(&output.stdout);
    println!("{console}");
    let told = |step: &&str| console.contains(&format!("step {step}: 0\r\n"));
    let failed: Vec<_> = STEPS.iter().filter(|step| !told(step)).collect();
    assert!(failed.is_empty(), "{failed:?} failed");
}

/// The test of placement, which cargo has put beside this one.
fn placement() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let entries = fs::read_dir(own.parent().unwrap()).unwrap().flatten();
    let built = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("placement-") && !name.contains('.')
    });
    let newest = built.max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    newest.expect("`just soak` builds it")
}

/// The newest of the distribution's kernels that were unpacked.
fn kernel() -> PathBuf {
    let entries = fs::read_dir(workspace().join(KERNELS))
        .into_iter()
        .flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    let kernels = paths.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("vmlinuz-")
    });
    kernels.max().expect("./bootstrap soak unpacks one")
}

/// Adds a program without what a debugger wants, which is most of it.
fn add_stripped(root: &Root, program: &Path, path: &str) {
    root.copy(program, path);
    let place = root.place(path);
    let stripped = Command::new("strip").arg(&place).status().unwrap();
    assert!(stripped.success(), "{stripped}");
    root.libraries(path);
}
