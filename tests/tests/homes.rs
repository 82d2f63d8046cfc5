//! Where a fleet lives: found from anywhere, made in nobody else's folder, and
//! what a death in the middle left is found again.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::time::Duration;

use imgbuild::control::types::Stage;
use imgbuild_tests::fleet::{Fleet, all_ready, detached, folder};
use imgbuild_tests::{TestEnv, finish, rights, run, start, wait_until};
use rustix::process::geteuid;
use serde_json::{Value, json};

/// A user that this machine need not have.
const TESTER: u32 = 12_345;

#[test]
fn a_fleet_is_found_and_resumed_whatever_the_environment_says() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &["--health", "1s"]);
    let pids = |fleet: &Fleet<'_>| fleet.ps().guests.iter().map(|guest| guest.pid).collect();
    let before: Vec<_> = pids(&fleet);
    // As from cron, and with what `su` leaves.
    let elsewhere = env.path().join("elsewhere");
    let from = |runtime: Option<&Path>, verb: &[&str]| {
        let mut command = fleet.imgbuild(verb);
        match runtime {
            Some(runtime) => command.env("XDG_RUNTIME_DIR", runtime),
            None => command.env_remove("XDG_RUNTIME_DIR"),
        };
        run(&mut command).succeeds()
    };
    for runtime in [None, Some(elsewhere.as_path())] {
        from(runtime, &["ps"]).shows(&["f is up"]);
    }
    fleet.kill_supervisor();
    from(Some(&elsewhere), &["launch", "--resume", "f", "--detach"]);
    assert_eq!(pids(&fleet), before);

    // As at a log-out: under a supervisor, and under none.
    let sockets = env.path().join("run/imgbuild");
    fs::remove_dir_all(&sockets).unwrap();
    wait_until("there are sockets again", || {
        sockets.join("f/control").exists()
    });
    fleet.kill_guests(&[1]);
    fleet.until("it is started again", |fleet| {
        all_ready(fleet) && fleet.guests[1].restarts == 1
    });
    let before: Vec<_> = pids(&fleet);
    fleet.kill_supervisor();
    fs::remove_dir_all(&sockets).unwrap();
    assert_eq!(fleet.ps().stage, Stage::Orphaned);
    fleet.resume().succeeds();
    assert_eq!(pids(&fleet), before);
    fleet.until("they answer", all_ready);

    // Who supervises it is said where that stands in the way.
    let supervisor = format!("process {}", fleet.supervisor());
    for verb in [
        &["rm", "--force", "f"][..],
        &["launch", "--resume", "f", "--detach"],
    ] {
        run(&mut fleet.imgbuild(verb)).exits(1).says(&[&supervisor]);
    }
    fleet.end();
}

#[test]
fn a_fleet_of_another_host_is_shown_as_that_hosts_and_left_alone() {
    let env = TestEnv::new();
    let fleet = Fleet::launch(&env, "f", 1, &[]);
    fleet.kill_supervisor();
    let here = fleet.spec()["host"].clone();
    fleet.change_spec(|spec| {
        spec["host"] = json!({"name": "node7", "machine": "0", "boot": "00000000-0000-4000-8000-000000000000"});
    });
    run(&mut fleet.imgbuild(["ps"]))
        .succeeds()
        .shows(&["f is on host node7"]);
    let shown = fleet.ps();
    assert_eq!((shown.stage, &*shown.host), (Stage::Elsewhere, "node7"));
    for verb in [
        &["stop", "--all"][..],
        &["rm", "--force", "f"],
        &["launch", "--resume", "f"],
        &["ssh", "g00000", "--", "status"],
    ] {
        run(&mut fleet.imgbuild(verb))
            .exits(1)
            .says(&["f is on host node7"]);
    }
    run(&mut env.imgbuild(["rm", "--all-fleets", "--force"])).succeeds();
    fleet.change_spec(|spec| spec["host"] = here);
    run(&mut env.imgbuild(["rm", "--force", "f"])).succeeds();
    fleet.assert_gone();
}

#[test]
fn folders_of_others_are_refused_with_the_reason() {
    let env = TestEnv::new();
    let run_folder = env.path().join("run");
    let refused = |why: &[&str]| {
        run(&mut detached(&env, "f", 1)).exits(1).says(why);
        assert!(env.guests().is_empty());
    };
    // What `su` leaves root: whose it is could swap what is in it.
    if rights::is_root("give files away") {
        chown(&run_folder, Some(TESTER), None).unwrap();
        refused(&["belongs to user 12345", "unset XDG_RUNTIME_DIR"]);
        chown(&run_folder, Some(0), None).unwrap();
    }
    fs::create_dir(run_folder.join("imgbuild")).unwrap();
    let open = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    open(&run_folder.join("imgbuild"), 0o777);
    refused(&["written to by others", "unset XDG_RUNTIME_DIR"]);
    open(&run_folder.join("imgbuild"), 0o700);
    let state = env.path().join("state/imgbuild");
    fs::create_dir(&state).unwrap();
    open(&state, 0o777);
    refused(&["state/imgbuild", "written to by others"]);
    run(&mut env.imgbuild(["ps"]))
        .exits(1)
        .says(&["written to by others"]);
    open(&state, 0o700);
    let cache = env.path().join("cache/imgbuild");
    fs::create_dir_all(&cache).unwrap();
    open(&cache, 0o777);
    run(env.own_cache(&mut env.imgbuild(["kernel", "config"])))
        .exits(1)
        .says(&["written to by others", "XDG_CACHE_HOME"]);
}

#[test]
fn what_a_launch_made_that_was_killed_is_found_and_removed() {
    if !rights::is_root("make taps") {
        return;
    }
    let env = TestEnv::new();
    // So many that it is in the middle of making their taps.
    let taps = ["--net", "tap", "--force"];
    let mut command = detached(&env, "f", 1500);
    let mut launch = start(command.args(taps));
    let spec = folder(&env, "f").join("spec.json");
    wait_until("it has begun", || spec.exists());
    let read: Value = serde_json::from_slice(&fs::read(&spec).unwrap()).unwrap();
    assert_eq!(read["unfinished"], json!(true));
    // The first bytes of it are in the names of taps.
    let instance = read["instance"].as_str().unwrap();
    let taps = || {
        let links = fs::read_dir("/sys/class/net").unwrap().flatten();
        let mut names = links.map(|link| link.file_name().into_string().unwrap());
        names.any(|name| name.starts_with(&format!("ib{}", &instance[..6])))
    };
    wait_until("there are taps", taps);
    launch.kill().unwrap();
    launch.wait().unwrap();
    run(&mut env.imgbuild(["ps", "--json"]))
        .succeeds()
        .shows(&["\"stage\":\"lost\"", "\"wanted\":1500"]);
    run(&mut env.imgbuild(["launch", "--resume", "f"]))
        .exits(1)
        .says(&["killed before it started a guest", "imgbuild rm f"]);
    // The next of its name clears it; so does who asks for that.
    let fleet = Fleet::ready(&env, "f", 1, &[]);
    assert!(!taps());
    assert_ne!(fleet.spec()["instance"], read["instance"]);
    fleet.kill_supervisor();
    run(&mut env.imgbuild(["rm", "--all-fleets"]))
        .exits(4)
        .says(&["1 living guest"]);
    run(&mut env.imgbuild(["rm", "--all-fleets", "--force"]))
        .succeeds()
        .says(&["removed f", "killed 1 guest"]);
    fleet.assert_gone();
}

#[test]
fn what_a_trial_left_that_was_killed_is_swept() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let mut check = env.imgbuild(["check", "--accel", "tcg", "--canary"]);
    let mut check = start(check.arg(&out));
    wait_until("it tries guests", || !env.guests().is_empty());
    check.kill().unwrap();
    check.wait().unwrap();
    let sockets = env.path().join("run/imgbuild");
    let left = || fs::read_dir(&sockets).unwrap().count();
    assert_eq!(left(), 1);
    env.assert_no_process_left();
    run(&mut env.imgbuild(["rm", "--all-fleets"])).succeeds();
    assert_eq!(left(), 0);
}

#[test]
fn root_acts_as_another_user() {
    if !rights::is_root("act as another user") {
        return;
    }
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let home = env.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(TESTER), Some(TESTER)).unwrap();
    for path in [env.path(), &home] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let passwd = env.path().join("passwd");
    let line = format!("tester:x:{TESTER}:{TESTER}::{}:/bin/sh\n", home.display());
    let known = fs::read_to_string("/etc/passwd").unwrap();
    fs::write(&passwd, known + &line).unwrap();
    // As in root's own folders, which are closed to others.
    let closed = env.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let (roots, anybodys) = (closed.join("imgbuild"), env.path().join("imgbuild"));
    for copy in [&roots, &anybodys] {
        fs::copy(imgbuild_tests::binary(), copy).unwrap();
    }
    // Users are the machine's: another list is seen by these commands alone.
    let among_users = |words: &str| {
        let script = format!(
            "mount --bind '{}' /etc/passwd && exec {words}",
            passwd.display()
        );
        let mut command = env.command("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]);
        command.args([&roots, &anybodys]);
        command
    };
    let as_tester = |words: &str| run(&mut among_users(&format!("\"$1\" --user tester {words}")));
    let launch = format!(
        "launch '{}' --count 1 --accel tcg --no-canary --detach",
        out.display()
    );
    as_tester(&launch).succeeds();
    // Without root's variables, as that user by any other way.
    let plain = format!(
        "setpriv --reuid {TESTER} --regid {TESTER} --clear-groups env -i HOME='{}' \"$2\"",
        home.display()
    );
    for found in [
        as_tester("ps"),
        run(&mut among_users(&format!("{plain} ps"))),
    ] {
        found.succeeds().shows(&["tty-idle is"]);
    }
    run(&mut env.imgbuild(["ps"])).exits(1).says(&["no fleet"]);
    run(&mut among_users(&format!("{plain} --user root ps")))
        .exits(2)
        .says(&["only root acts as another user"]);
    as_tester("stop --all").succeeds();
    as_tester("ps").exits(1).says(&["no fleet"]);
    run(&mut env.imgbuild(["--user", "nobody-of-that-name", "ps"]))
        .exits(2)
        .says(&["no user named nobody-of-that-name"]);
}

#[test]
fn a_fleet_waits_for_others_that_choose_and_is_heard_meanwhile() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 1, &[]);
    let record = if geteuid().is_root() {
        "/run/imgbuild".into()
    } else {
        env.path().join("run/imgbuild")
    };
    let record = File::open(record).unwrap();
    record.lock().unwrap();
    let mut scale = start(&mut fleet.imgbuild(["scale", "2"]));
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        fleet.ssh("g00000", ["status"]).succeeds();
    }
    assert!(scale.try_wait().unwrap().is_none());
    drop(record);
    finish(scale).succeeds();
    fleet.wait();
    fleet.end();
}
