//! Placement and a fleet under cgroup version 2 alone, whatever this machine
//! has, and under a clock that jumps: in a guest with a distribution's kernel,
//! whose root file system is made of this machine's programs. Fleets in it are
//! guests in a guest, both under TCG, so this takes minutes.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use imgbuild_tests::TestEnv;
use imgbuild_tests::machine::{Emulated, Machine, Release};

/// Asks for the tests that take minutes.
const ASKED: &str = "IMGBUILD_SOAK";
/// Seconds that the machine may take.
const PATIENCE: &str = "3600";

/// What it runs.
const SCRIPT: &str = r#"# Sets the clock so many seconds forward.
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
    let emulated = Emulated {
        release: Release::Own,
        accel: "tcg",
        cpu: "max",
        cpus: 2,
        append: "cgroup_no_v1=all",
    };
    let machine = Machine::new(&env.path().join("root"), emulated);
    machine.add_stripped(&placement(), "test/placement");
    // An emulated CPU that emulates one takes its time.
    let patient = ("[guest]", "[guest]\nboot_timeout = \"20m\"");
    let out = env.changed_artifacts(&[patient]);
    machine.root().copy(&out, "test/out");
    let console = machine.run(SCRIPT, PATIENCE);
    println!("{}", console.text);
    console.assert_steps(&STEPS.map(|step| (step, 0)));
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
