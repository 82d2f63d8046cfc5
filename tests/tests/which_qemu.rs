//! Guests run on the QEMU that the user names, or that is found off PATH, and
//! on that one for as long as their fleet lives.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use imgbuild_tests::fleet::{self, Fleet, detached};
use imgbuild_tests::stand_in::{QEMU, find, without_kvm};
use imgbuild_tests::{TestEnv, binary, rights, run};
use serde_json::Value;

/// An environment that every user may look into, with a copy of QEMU in it: below
/// a prefix of its own, by which QEMU finds its modules.
fn with_copy(name: &str) -> (TestEnv, PathBuf) {
    let env = TestEnv::new();
    fs::set_permissions(env.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let prefix = env.path().join("prefix");
    fs::create_dir_all(prefix.join("bin")).unwrap();
    for shared in ["lib", "share"] {
        symlink(Path::new("/usr").join(shared), prefix.join(shared)).unwrap();
    }
    let copy = prefix.join("bin").join(name);
    fs::copy(find(QEMU), &copy).unwrap();
    (env, copy)
}

/// Has `command` find no QEMU on its PATH.
fn without_qemu<'a>(env: &TestEnv, command: &'a mut Command) -> &'a mut Command {
    let tools = [
        "make", "gcc", "ld", "objcopy", "strip", "flex", "bison", "bc", "mke2fs",
    ];
    command.env("PATH", env.path_of_only(&tools))
}

/// What `ps` and `/proc` show of a guest's process.
fn shown(pid: u32) -> [PathBuf; 2] {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let first = line.split(|byte| *byte == 0).next().unwrap();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    [PathBuf::from(str::from_utf8(first).unwrap()), exe]
}

fn pid(fleet: &Fleet<'_>, guest: usize) -> u32 {
    fleet.guest(guest).pid.unwrap()
}

#[test]
fn a_fleet_runs_on_the_qemu_that_was_named_until_its_end() {
    let (env, copy) = with_copy("vmm-of-mine");
    let both = [copy.clone(), copy.clone()];
    let mut command = detached(&env, "f", 1);
    run(without_qemu(
        &env,
        command.args(["--qemu", "prefix/bin/vmm-of-mine"]),
    ))
    .succeeds();
    let fleet = Fleet::of(&env, "f");
    fleet.wait();
    let qemu = fleet.spec()["qemu"].clone();
    assert_eq!(qemu["path"], copy.to_str().unwrap());
    let version = qemu["version"].as_str().unwrap();
    assert!(version.starts_with("QEMU emulator version "), "{version}");
    let first = pid(&fleet, 0);
    assert_eq!(shown(first), both);

    // Another supervisor, whatever its environment says.
    fleet.kill_supervisor();
    let mut resume = fleet.imgbuild(["launch", "--resume", "f", "--detach"]);
    resume.env("IMGBUILD_QEMU", "/no/such/qemu");
    run(without_qemu(&env, &mut resume)).succeeds();
    run(&mut fleet.imgbuild(["scale", "2"])).succeeds();
    fleet.wait();
    assert_eq!(pid(&fleet, 0), first);
    assert_eq!(shown(pid(&fleet, 1)), both);

    // One in its place is reported by whoever starts a guest on it.
    let next = env.path().join("next");
    let mut bytes = fs::read(&copy).unwrap();
    bytes.push(0);
    fs::write(&next, bytes).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&next, &copy).unwrap();
    let told = format!("f: {} was replaced", copy.display());
    assert!(!fleet.talk().contains(&told));
    let before = pid(&fleet, 1);
    fleet.kill_guests(&[1]);
    fleet.until("it is started again", |fleet| {
        fleet.guests[1].pid != Some(before) && fleet::all_ready(fleet)
    });
    assert_eq!(shown(pid(&fleet, 1)), both);
    assert_eq!(fleet.talk().matches(&told).count(), 1);

    // Without one, living guests go on and no other is started.
    fs::remove_file(&copy).unwrap();
    let gone = format!(
        "{}, the QEMU that the fleet was launched with, is out of reach",
        copy.display()
    );
    run(&mut fleet.imgbuild(["scale", "3"]))
        .exits(1)
        .says(&[&gone]);
    fleet.kill_supervisor();
    fleet.resume().succeeds();
    assert!(fleet.talk().contains(&gone));
    let ps = fleet.until("they answer", fleet::all_ready);
    assert_eq!((ps.guests.len(), ps.guests[0].pid), (2, Some(first)));
    fleet.end();
}

#[test]
fn a_qemu_that_guests_users_cannot_reach_is_reported_before_any_is_started() {
    if !rights::is_root("give guests users of their own") {
        return;
    }
    let (env, copy) = with_copy("vmm");
    fs::set_permissions(env.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let closed = format!("the folder {} has mode 0700", env.path().display());
    run(fleet::launch(&env, "f", 1).arg("--qemu").arg(&copy))
        .exits(3)
        .says(&["qemu-users", &closed, "chmod o+x", "--run-as-base 0"]);
    run(fleet::launch(&env, "f", 1)
        .arg("--force")
        .arg("--qemu")
        .arg(&copy))
    .exits(3)
    .says(&[
        copy.to_str().unwrap(),
        "which a guest is to run as",
        &closed,
    ]);
    env.assert_no_fleet_left();
}

/// The report of a `check` under TCG that found the host ready.
fn checked(command: &mut Command) -> Value {
    let finished = run(command.args(["--accel", "tcg", "--json"])).succeeds();
    serde_json::from_str(&finished.stdout).unwrap()
}

fn qemu_finding(report: &Value) -> String {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["id"] == "qemu");
    found.unwrap()["value"].as_str().unwrap().to_owned()
}

#[test]
fn what_canaries_showed_is_kept_for_their_qemu_alone() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let link = env.path().join("link");
    symlink(find(QEMU), &link).unwrap();
    let check = |arguments: &[&str]| {
        let mut command = env.imgbuild(["check", "--sharing", "none"]);
        command.arg(&out).args(arguments);
        checked(env.own_cache(&mut command))
    };
    let report = check(&["--canary", "--qemu", "link"]);
    assert!(report["canary"].is_object());
    assert_eq!(report["qemu"]["found"]["path"], link.to_str().unwrap());
    assert!(qemu_finding(&report).ends_with(link.to_str().unwrap()));
    assert!(check(&["--qemu", "./link"])["canary"].is_object());
    let report = check(&[]);
    assert!(report["canary"].is_null());
    assert_eq!(
        report["qemu"]["found"]["path"],
        find(QEMU).to_str().unwrap()
    );
}

#[test]
fn the_place_where_a_distribution_keeps_it_is_looked_at() {
    if !rights::has_namespaces() {
        return;
    }
    let env = TestEnv::new();
    let mut command = env.command("unshare");
    command
        .args(rights::own_mounts())
        .args(["sh", "-ec"])
        .arg(
            "mkdir -p /usr/libexec; mount -t tmpfs none /usr/libexec
             ln -s \"$0\" /usr/libexec/qemu-kvm; PATH=$1; shift; exec \"$@\"",
        )
        .arg(find(QEMU))
        .arg(env.path_of_only(&[]))
        .arg(binary())
        .arg("check");
    let report = checked(&mut command);
    assert_eq!(report["qemu"]["found"]["path"], "/usr/libexec/qemu-kvm");
}

#[test]
fn a_build_is_verified_on_the_qemu_that_was_named() {
    let env = TestEnv::new();
    env.stand_in("vmm", &without_kvm());
    let vmm = env.stand_ins().join("vmm");
    let mut command = env.imgbuild(["tty-burn", "--json"]);
    without_qemu(&env, command.env("IMGBUILD_QEMU", "stand-ins/vmm"));
    let built: Value = serde_json::from_str(&run(&mut command).succeeds().stdout).unwrap();
    assert_eq!(built["boot"]["qemu"]["path"], vmm.to_str().unwrap());
}

/// What runs guests: each verb that does.
fn runners(env: &TestEnv, qemu: &Path) -> [Command; 3] {
    let mut build = env.imgbuild(["tty-burn", "--out", "other"]);
    build.arg("--qemu").arg(qemu);
    let mut launch = fleet::launch(env, "f", 1);
    launch.env("IMGBUILD_QEMU", qemu);
    let mut check = env.imgbuild(["check", "--accel", "tcg"]);
    check.arg("--qemu").arg(qemu);
    [build, launch, check]
}

#[test]
fn what_cannot_run_guests_is_refused_by_name() {
    let env = TestEnv::new();
    let script = |name: &str, script: &str| {
        env.stand_in(name, script);
        env.stand_ins().join(name)
    };
    let plain = env.path().join("plain");
    fs::write(&plain, "").unwrap();
    let modern = "[ \"$1\" = --version ] && echo QEMU emulator version 9.0.0";
    for (qemu, code, said) in [
        (env.path().join("nowhere"), 2, "No such file"),
        (env.path().to_path_buf(), 2, "not a file"),
        (plain, 2, "chmod +x"),
        (
            script("hello", "echo hello"),
            2,
            "its --version is \"hello\"",
        ),
        (script("fails", "exit 7"), 2, "exit status: 7"),
        (
            script("old", "echo QEMU emulator version 5.2.0"),
            3,
            "need: 7.2 or later",
        ),
        (
            script("small", &format!("{modern} || echo pc")),
            3,
            "microvm",
        ),
    ] {
        let [build, launch, check] = runners(&env, &qemu);
        let named = qemu.to_str().unwrap();
        for mut command in [build, launch] {
            run(&mut command).exits(code).says(&[said, named]);
        }
        let finished = run(&mut { check }).exits(code);
        let told = finished.stdout + &finished.stderr;
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(named), "{told}");
    }
    assert!(!env.path().join("other").exists());
    env.assert_no_fleet_left();
}
