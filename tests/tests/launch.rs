//! `imgbuild launch`: real guests under TCG.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, PipeReader, PipeWriter, Write as _, pipe};
use std::path::Path;
use std::process::Command;

use imgbuild_tests::fleet::{Fleet, detached, launch};
use imgbuild_tests::{TestEnv, finish, rights, run, start, wait_until};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[test]
fn twenty_guests_burn_and_leave_nothing_behind() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let finished = run(env
        .imgbuild([
            "launch", "--count", "20", "--accel", "tcg", "--for", "20s", "--json",
        ])
        .arg(&out))
    .succeeds();

    let mut rounds: HashMap<String, Vec<u64>> = HashMap::new();
    let events = finished.json_lines();
    for event in events
        .iter()
        .filter(|event| event["event"] == "guest" && event["state"] == "ready")
    {
        assert!(event["pid"].as_u64().is_some(), "{event}");
        rounds
            .entry(event["id"].as_str().unwrap().to_owned())
            .or_default()
            .push(event["burn"]["rounds"].as_u64().unwrap());
    }
    assert_eq!(rounds.len(), 20);
    for (guest, rounds) in rounds {
        assert!(rounds.first() < rounds.last(), "{guest}: {rounds:?}");
    }
    let summary = events.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(
        [&summary["ready"], &summary["burning"], &summary["failed"]],
        [20, 20, 0]
    );
    assert_eq!(summary["restarts"], 0);
    assert_eq!(summary["ending"], "over");
    env.assert_no_process_left();
    env.assert_no_fleet_left();
    run(env.imgbuild(["verify"]).arg(&out)).succeeds();
}

#[test]
fn interrupt_stops_the_fleet() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let launch = start(
        env.imgbuild(["launch", "--count", "3", "--accel", "tcg"])
            .arg(&out),
    );
    wait_until("a guest runs", || !env.guests().is_empty());
    kill_process(Pid::from_child(&launch), Signal::INT).unwrap();
    finish(launch).exits(130);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

/// A pipe that takes nothing more, as one of a reader that does not read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    let refused = loop {
        if let Err(error) = writer.write(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

#[test]
fn a_reader_that_does_not_read_holds_up_neither_guests_nor_an_interrupt() {
    let env = TestEnv::new();
    for arguments in [&["--json", "--log-format", "json"][..], &[]] {
        let (_reader, writer) = full_pipe();
        let launch = launch(&env, "f", 2)
            .arg("--verbose")
            .args(arguments)
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let fleet = env.path().join("run/imgbuild/f/control");
        wait_until("it is supervised", || fleet.exists());
        run(&mut env.imgbuild(["wait", "--ready", "--timeout", "280s"])).succeeds();
        kill_process(Pid::from_child(&launch), Signal::INT).unwrap();
        let ended = launch.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(130));
        env.assert_no_process_left();
        env.assert_no_fleet_left();
    }
}

/// `command` as a shell's script runs it after `before`.
fn after(env: &TestEnv, before: &str, command: &Command) -> Command {
    let script = format!("{before}\nexec \"$@\"");
    let mut shell = env.command("sh");
    shell.args([OsStr::new("-c"), OsStr::new(&script), OsStr::new("sh")]);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

#[test]
fn nohup_keeps_a_fleet_from_ending_with_its_terminal() {
    let env = TestEnv::new();
    let mut command = launch(&env, "f", 1);
    command.arg("--for=1s");
    let launch = start(&mut after(&env, "trap '' HUP", &command));
    wait_until("a guest runs", || !env.guests().is_empty());
    kill_process(Pid::from_child(&launch), Signal::HUP).unwrap();
    finish(launch).exits(0).shows(&["1 of 1 ready"]);
}

#[test]
fn a_supervisor_of_its_own_holds_nothing_of_a_script_s() {
    let env = TestEnv::new();
    let launch = detached(&env, "f", 1);
    let before = "exec 9>lock\nflock -n 9 || exit 9";
    run(&mut after(&env, before, &launch)).succeeds();
    let fleet = Fleet::of(&env, "f");
    run(env.command("flock").args(["-n", "lock", "true"])).succeeds();
    let folder = fs::read_link(format!("/proc/{}/cwd", fleet.supervisor())).unwrap();
    assert_eq!(folder, Path::new("/"));
    fleet.end();
}

#[test]
fn guests_outlive_a_launcher_that_is_killed_and_are_adopted() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let again = ["launch", "--count", "2", "--accel", "tcg", "--no-canary"];
    let launch = start(env.imgbuild(again).arg(&out));
    wait_until("both guests run", || env.guests().len() == 2);
    let mut guests = env.guests();
    guests.sort_unstable();
    kill_process(Pid::from_child(&launch), Signal::KILL).unwrap();
    assert_eq!(finish(launch).status.code(), None);

    run(env.imgbuild(again).arg(&out)).exits(1).says(&[
        "died: it left 2 living guests",
        "imgbuild launch --resume tty-idle",
        "imgbuild rm --force tty-idle",
    ]);
    let events = env.path().join("events");
    let resumed = env
        .imgbuild(["launch", "--resume", "tty-idle", "--json"])
        .stdout(File::create(&events).unwrap())
        .spawn()
        .unwrap();
    let mut ready = Vec::new();
    wait_until("both guests answer", || {
        let text = fs::read_to_string(&events).unwrap();
        // A last line may be half written.
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        ready = events
            .filter(|event| event["state"] == "ready")
            .map(|event| u32::try_from(event["pid"].as_u64().unwrap()).unwrap())
            .collect();
        ready.len() == 2
    });
    ready.sort_unstable();
    assert_eq!(ready, guests);
    let mut living = env.guests();
    living.sort_unstable();
    assert_eq!(living, guests);

    kill_process(Pid::from_child(&resumed), Signal::INT).unwrap();
    let ended = resumed.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

#[test]
fn two_fleets_of_one_name_are_refused() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let first = start(
        env.imgbuild(["launch", "--count", "1", "--accel", "tcg"])
            .arg(&out),
    );
    wait_until("a guest runs", || !env.guests().is_empty());
    run(env
        .imgbuild(["launch", "--count", "1", "--accel", "tcg"])
        .arg(&out))
    .exits(1)
    .says(&["a fleet named tty-idle is running", "--name"]);
    run(env
        .imgbuild([
            "launch", "--count", "1", "--accel", "tcg", "--for", "1s", "--name", "other",
        ])
        .arg(&out))
    .succeeds();
    kill_process(Pid::from_child(&first), Signal::INT).unwrap();
    finish(first).exits(130);
}

#[test]
fn a_start_that_goes_no_further_is_given_up_with_its_reason() {
    if !rights::is_root("make control groups") {
        return;
    }
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    // Some guests are all that the group holds; clones would all fit.
    let finished = run(env
        .imgbuild(["launch", "--accel", "tcg", "--no-canary", "--json"])
        .args(["--start", "boot"])
        .args(["--count", "4", "--memory-max", "96M", "--patience", "1s"])
        .arg(&out))
    .exits(4)
    .says(&[
        "the start made no progress, with ",
        "the control group's limit leaves ",
        "--patience",
    ]);
    let events = finished.json_lines();
    let summary = events.last().unwrap();
    assert_eq!(summary["ending"], "stuck");
    let count = |what: &str| summary[what].as_u64().unwrap();
    assert!(count("ready") > 0 && count("planned") > 0, "{summary}");
    assert_eq!(count("ready") + count("planned"), 4, "{summary}");
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

/// KVM on the machines of CI opens and does not run a kernel; elsewhere it may
/// be absent, or work. In each case the answer is the one that the host earns.
#[test]
fn kvm_is_used_or_refused_and_never_replaced() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let finished = run(env
        .imgbuild(["launch", "--count", "2", "--for", "1s", "--json"])
        .arg(&out));
    match finished.code() {
        0 => assert_eq!(finished.json_lines().last().unwrap()["accel"], "kvm"),
        3 => {
            let finished = finished.says(&["kvm-", "--accel tcg"]);
            assert!(!finished.stdout.contains("\"state\":\"ready\""));
        }
        code => panic!("exit code {code}: {}", finished.stderr),
    }
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

#[test]
fn kvm_that_cannot_be_opened_is_refused() {
    if !rights::is_root("be a user whom /dev/kvm is closed to") {
        return;
    }
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    run(env.command("chown").args(["-R", "65534", "."])).succeeds();
    // As nobody, who is in no group that owns the device.
    let imgbuild = env.imgbuild(["launch", "--count", "1"]);
    run(env
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(imgbuild.get_program())
        .args(imgbuild.get_args())
        .arg(&out))
    .exits(3)
    .says(&["kvm-device: does not open", "group", "--accel tcg"]);
}

#[test]
fn kvm_that_is_absent_is_refused() {
    if !rights::has_namespaces() {
        return;
    }
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let imgbuild = env.imgbuild(["launch", "--count", "1"]);
    // A /dev of its own, in a mount namespace of its own, without the device.
    run(env
        .command("unshare")
        .args(rights::own_mounts())
        .args(["sh", "-ec"])
        .arg(
            "mkdir dev; touch dev/null dev/urandom; mount --bind /dev/null dev/null
             mount --bind /dev/urandom dev/urandom; mount --rbind dev /dev; exec \"$@\"",
        )
        .arg("sh")
        .arg(imgbuild.get_program())
        .args(imgbuild.get_args())
        .arg(&out))
    .exits(3)
    .says(&["absent", "kvm", "--accel tcg"]);
}

#[test]
fn more_guests_than_open_files_allow_are_refused() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let imgbuild = env.imgbuild(["launch", "--count", "100", "--accel", "tcg"]);
    run(env
        .command("prlimit")
        .arg("--nofile=100:200")
        .arg(imgbuild.get_program())
        .args(imgbuild.get_args())
        .arg(&out))
    .exits(3)
    .says(&[
        "open-files: 200 (hard limit)",
        "at least 248 for 100 guests",
    ]);
    env.assert_no_fleet_left();
}

#[test]
fn a_broken_artifact_is_named() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let initramfs = out.join("initramfs.cpio.gz");
    let bytes = fs::read(&initramfs).unwrap();
    fs::remove_file(&initramfs).unwrap();
    fs::write(&initramfs, &bytes[..bytes.len() - 1]).unwrap();
    run(env
        .imgbuild(["launch", "--count", "1", "--accel", "tcg"])
        .arg(&out))
    .exits(1)
    .says(&["initramfs.cpio.gz", "imgbuild verify"]);
    run(env.imgbuild(["verify"]).arg(&out)).exits(1);
}

#[test]
fn usage_is_checked_before_anything_starts() {
    let env = TestEnv::new();
    for arguments in [
        &["launch"][..],
        &["launch", "--count", "0"],
        &["launch", "--count", "100001"],
        &["launch", "--count", "1", "--accel", "hvf"],
        &["launch", "--count", "1", "--name", "../x"],
        &["launch", "--count", "1", "--for", "soon"],
        &["launch", "--count", "1", "--patience", "long"],
        // Who goes on with a fleet that is left to itself waits for ever.
        &["launch", "--count", "1", "--detach", "--patience", "1m"],
        &["launch", "--count", "1", "--memory", "many"],
        // QEMU would be told 0M, which it takes for its default.
        &["launch", "--count", "1", "--memory", "4K"],
        &["launch", "--count", "1", "--memory", "33554433"],
    ] {
        run(&mut env.imgbuild(arguments)).exits(2);
    }
    run(&mut env.imgbuild(["launch", "--count", "1", "--accel", "tcg"]))
        .exits(1)
        .says(&["manifest.json", "tty-burn"]);
}
