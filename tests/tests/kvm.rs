//! What every user does, under real KVM: in a machine that QEMU's TCG emulates
//! with AMD's SVM and nested paging, so that `kvm_amd` loads there and imgbuild's
//! guests run under it.

use std::io::Write as _;

use imgbuild_tests::TestEnv;
use imgbuild_tests::machine::{Machine, Release};
use serde_json::Value;

/// Asks for the test that takes minutes, and says under which kernel.
const ASKED: &str = "IMGBUILD_KVM";
/// Seconds that the machine may take.
const PATIENCE: &str = "1800";

const SCRIPT: &str = r#"
guests() { imgbuild ps --json; }
as_user() {
    busybox mkdir -p -m 700 /tmp/user
    busybox chown 1000:1000 /tmp/user
    /usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups busybox env HOME=/tmp/user \
        XDG_STATE_HOME=/tmp/user/state XDG_RUNTIME_DIR=/tmp/user/run "$@"
}
# The process behind the name of a guest, or behind `supervisor`.
pid_of() { guests | busybox tr -d ' \n' | busybox grep -oE "\"$1\"[^{}]*\"pid\":[0-9]+|\"$1\":\{\"pid\":[0-9]+" | busybox grep -oE '[0-9]+$'; }
nothing_left() {
    ! busybox grep -sq qemu /proc/[0-9]*/comm && ! busybox ls -d /sys/fs/cgroup/imgbuild-* 2>/dev/null &&
        ! busybox ls -d /run/imgbuild/tty-burn 2>/dev/null &&
        ! busybox ls -d /root/state/imgbuild/fleets/*/* 2>/dev/null
}

step load kvm_module
report check imgbuild check --json
report build imgbuild tty-burn --kernel /test/vmlinux --out /root/out --json
step launch imgbuild launch /root/out --count 3 --detach
step ready imgbuild wait --quiet --ready --timeout 10m
report first guests
report ssh imgbuild ssh --all --json -- status
report console busybox sh -c 'echo status | imgbuild console g00002'

step kill busybox kill -9 $(pid_of g00001) $(pid_of supervisor)
step resume imgbuild launch --resume tty-burn --detach
step again imgbuild wait --quiet --ready --timeout 10m
report resumed guests
step restart imgbuild restart g00000
step scale imgbuild scale 4
step all imgbuild wait --quiet --ready --timeout 10m
report scaled guests
step stop imgbuild stop --all
step stopped nothing_left

step clones imgbuild launch /root/out --count 2 --start clone --detach
step poised imgbuild wait --quiet --ready --timeout 10m
report answered imgbuild ssh --all --json -- status
step kill-clone busybox kill -9 $(pid_of g00001)
step clone-again imgbuild wait --quiet --ready --timeout 10m
report cloned guests
step stop-clones imgbuild stop --all
step clones-gone nothing_left

report fix imgbuild check --fix --json /root/out
report canary imgbuild check --canary --json /root/out
step restore imgbuild check --restore
step ksm [ "$(busybox cat /sys/kernel/mm/ksm/run)" = 0 ]

step unload busybox modprobe -r kvm_amd
report unloaded imgbuild check --json
# The device is as the kernel makes it: no udev gives it to a group here.
report mend imgbuild check --fix --json
step loaded busybox grep -q '^kvm_amd ' /proc/modules
step restored imgbuild check --restore
report closed as_user imgbuild check --json
step refused as_user imgbuild launch /root/out --count 1 --detach
step open kvm_module
report opened imgbuild check --json
step end nothing_left
"#;

/// How the steps end, in order; 3 is a host that is not ready.
const STEPS: [(&str, i32); 40] = [
    ("load", 0),
    ("check", 0),
    ("build", 0),
    ("launch", 0),
    ("ready", 0),
    ("first", 0),
    ("ssh", 0),
    ("console", 0),
    ("kill", 0),
    ("resume", 0),
    ("again", 0),
    ("resumed", 0),
    ("restart", 0),
    ("scale", 0),
    ("all", 0),
    ("scaled", 0),
    ("stop", 0),
    ("stopped", 0),
    ("clones", 0),
    ("poised", 0),
    ("answered", 0),
    ("kill-clone", 0),
    ("clone-again", 0),
    ("cloned", 0),
    ("stop-clones", 0),
    ("clones-gone", 0),
    ("fix", 0),
    ("canary", 0),
    ("restore", 0),
    ("ksm", 0),
    ("unload", 0),
    ("unloaded", 3),
    ("mend", 3),
    ("loaded", 0),
    ("restored", 0),
    ("closed", 3),
    ("refused", 3),
    ("open", 0),
    ("opened", 0),
    ("end", 0),
];

/// What `check` finds there that is not as it should be, by either kernel, but for
/// [`TIMED`].
const FINDINGS: [(&str, &str); 5] = [
    ("halt-poll", "advice"),
    ("ksm-run", "advice"),
    ("kvm-exits", "advice"),
    ("nested", "advice"),
    ("nx-huge-pages", "advice"),
];

/// Findings by times, which an emulated CPU takes as it likes: never a blocker.
const TIMED: [&str; 2] = ["kvm-ring0", "vm-create"];

#[test]
fn a_fleet_lives_under_kvm() {
    let asked = std::env::var(ASKED);
    let release = match asked.as_deref() {
        Ok("stable") => Release::Own,
        Ok("sharing") => Release::Backports,
        _ => {
            // Past the harness, which keeps what a test that passes prints.
            writeln!(
                std::io::stderr(),
                "skipped: KVM in an emulated machine takes minutes; `./bootstrap kvm` runs it"
            )
            .unwrap();
            return;
        }
    };
    let env = TestEnv::new();
    let machine = Machine::with_kvm(&env, release);
    let console = machine.run(SCRIPT, PATIENCE);
    println!("{}", console.text);
    console.assert_steps(&STEPS);

    let report = |name: &str| -> Value {
        let text = console.report(name).unwrap();
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
    };
    let mut remarks_of_check = remarks(&report("check"));
    remarks_of_check
        .retain(|(id, severity)| !(TIMED.contains(&id.as_str()) && severity == "advice"));
    assert_eq!(remarks_of_check, FINDINGS.map(owned));
    for id in ["kvm-users", "kvm-pit", "apicv", "kvm-instructions"] {
        assert_eq!(finding(&report("check"), id)["severity"], "ok", "{id}");
    }
    assert_eq!(report("build")["boot"]["accel"], "kvm");
    let first = guests(&report("first"));
    assert_eq!(first.len(), 3);
    let answers = console.report("ssh").unwrap();
    assert_eq!(answers.matches("phase=ready").count(), 3, "{answers}");
    assert!(
        console
            .report("console")
            .unwrap()
            .contains("id=g00002 phase=ready")
    );

    // Those that lived through the supervisor's death are the same, the other is new.
    let resumed = guests(&report("resumed"));
    assert_eq!([&first[0], &first[2]], [&resumed[0], &resumed[2]]);
    assert_ne!(first[1].pid, resumed[1].pid);
    assert_eq!(resumed[1].restarts, first[1].restarts + 1);
    let scaled = guests(&report("scaled"));
    assert_eq!(scaled.len(), 4);
    assert_ne!(scaled[0].pid, resumed[0].pid);
    assert_eq!(scaled[1..3], resumed[1..]);

    let answered = console.report("answered").unwrap();
    assert_eq!(answered.matches("phase=ready").count(), 2, "{answered}");
    let cloned = guests(&report("cloned"));
    assert_eq!([cloned[0].restarts, cloned[1].restarts], [0, 1]);

    let canary = report("canary");
    assert_eq!(canary["want"]["cost"]["basis"], "measured");
    let merged = finding(&canary, "canary-merge");
    assert_eq!(merged["severity"], "ok", "{merged}");
    let module = finding(&report("unloaded"), "kvm-module");
    assert_eq!(module["severity"], "blocker", "{module}");
    let users = finding(&report("mend"), "kvm-users");
    assert_eq!(users["severity"], "blocker", "{users}");
    assert!(users.to_string().contains("mode 0600"), "{users}");
    let device = finding(&report("closed"), "kvm-device");
    assert_eq!(device["severity"], "blocker", "{device}");
    assert!(device.to_string().contains("udev rule"), "{device}");
}

/// A guest as `ps` tells of it.
#[derive(Debug, PartialEq, Eq)]
struct Guest {
    pid: u64,
    restarts: u64,
}

/// The guests, all of which are ready.
fn guests(ps: &Value) -> Vec<Guest> {
    let guests = ps["guests"].as_array().unwrap().iter();
    let read = guests.map(|guest| {
        assert_eq!(guest["state"], "ready", "{guest}");
        Guest {
            pid: guest["pid"].as_u64().unwrap(),
            restarts: guest["restarts"].as_u64().unwrap(),
        }
    });
    read.collect()
}

fn findings(check: &Value) -> &Vec<Value> {
    check["findings"].as_array().unwrap()
}

fn finding(check: &Value, id: &str) -> Value {
    let found = findings(check).iter().find(|finding| finding["id"] == id);
    found
        .unwrap_or_else(|| panic!("no {id} in {check}"))
        .clone()
}

/// The findings that are not `ok`, by id, with their severities.
fn remarks(check: &Value) -> Vec<(String, String)> {
    let remarks = findings(check)
        .iter()
        .filter(|finding| finding["severity"] != "ok");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut remarks: Vec<_> = remarks
        .map(|finding| (text(&finding["id"]), text(&finding["severity"])))
        .collect();
    remarks.sort();
    remarks
}

fn owned((id, severity): (&str, &str)) -> (String, String) {
    (id.to_owned(), severity.to_owned())
}
