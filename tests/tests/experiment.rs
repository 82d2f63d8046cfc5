//! The experiment as one command, on real guests: what it measures is what /proc says,
//! what it changed is as before, and no end of it costs what it had reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use imgbuild::bundle::types::{Outcome, Run};
use imgbuild_tests::fleet::{self, Fleet, kill};
use imgbuild_tests::{TestEnv, finish, rights, run, start, wait_until, workspace};
use rustix::process::Signal;

/// Held by the one test that runs: KSM's settings, the CPUs and the memory are the whole
/// machine's.
static MACHINE: Mutex<()> = Mutex::new(());

fn whole_machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every setting of KSM.
fn ksm() -> Vec<(PathBuf, String)> {
    let counters = [
        "pages_shared",
        "pages_sharing",
        "pages_unshared",
        "pages_volatile",
    ];
    let is_setting = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        !counters.contains(&&*name)
            && [
                "full_scans",
                "general_profit",
                "pages_scanned",
                "ksm_zero_pages",
                "stable_node",
            ]
            .iter()
            .all(|counter| !name.starts_with(counter))
    };
    let files = fs::read_dir("/sys/kernel/mm/ksm").unwrap();
    let files = files.map(|file| file.unwrap().path());
    let mut settings: Vec<_> = (files.filter(|path| is_setting(path)))
        .filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?)))
        .collect();
    settings.sort();
    settings
}

/// `imgbuild density` of a fleet of that name.
fn density(env: &TestEnv, name: &str, arguments: &[&str]) -> Command {
    let mut command = env.imgbuild(["density", "--accel", "tcg", "--no-canary", "--name", name]);
    command.args(arguments).arg(env.artifacts("tty-burn"));
    command
}

fn bundle(env: &TestEnv) -> PathBuf {
    env.path().join("bundle")
}

/// The run as it is written; none while there is none.
fn written(folder: &Path) -> Option<Run> {
    let text = fs::read_to_string(folder.join("run.json")).ok()?;
    Some(serde_json::from_str(&text).expect("it is a run at any time"))
}

fn wait_for_stage(folder: &Path, guests: u32) {
    wait_until("a stage is written", || {
        let run = written(folder);
        run.is_some_and(|run| run.stages.iter().any(|stage| stage.guests == guests))
    });
}

#[test]
fn a_fleet_is_grown_measured_held_and_struck() {
    let _machine = whole_machine();
    let env = TestEnv::new();
    let folder = bundle(&env);
    let before = ksm();
    let fix = rights::is_root("change KSM's settings");
    let mut arguments = vec!["--count", "30", "--stages", "5", "--sharing", "all"];
    arguments.extend([
        "--storm", "30%", "--hold", "15s", "--settle", "20s", "--seed", "3",
    ]);
    if fix {
        arguments.push("--fix");
    }
    arguments.extend(["--bundle", folder.to_str().unwrap()]);
    let child = start(&mut density(&env, "grown", &arguments));
    wait_for_stage(&folder, 30);

    // While it is kept, somebody else reads what it costs, stops a guest and kills one.
    let fleet = Fleet::of(&env, "grown");
    let pids = |fleet: &Fleet<'_>| {
        let guests = fleet.ps().guests.into_iter().filter_map(|guest| guest.pid);
        let all = [fleet.supervisor()].into_iter().chain(guests);
        all.map(|pid| pid.to_string()).collect::<Vec<_>>()
    };
    // From its control group, which a user's fleet does not have.
    let read = rights::is_root("make control groups").then(|| {
        let mut script = env.command(workspace().join("tests/fleet-memory"));
        let read = run(script.args(pids(&fleet))).succeeds();
        read.stdout.trim().parse::<f64>().unwrap()
    });
    run(&mut fleet.imgbuild(["stop", "7"])).succeeds();
    run(&mut fleet.imgbuild(["kill", "8"])).succeeds();
    finish(child).exits(0);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
    assert_eq!(ksm(), before);

    run(&mut env.imgbuild(["verify", folder.to_str().unwrap()])).succeeds();
    let whole = written(&folder).unwrap();
    assert_eq!(whole.outcome, Outcome::Complete);
    let guests: Vec<_> = whole.stages.iter().map(|stage| stage.guests).collect();
    assert_eq!(guests, [5, 30]);
    let last = &whole.stages[1];
    assert_eq!((last.ready, last.starts.len()), (30, 25));
    assert!(last.starts.iter().all(|start| start.ready.is_some()));
    assert_eq!((last.answers.len(), last.logins.len()), (30, 30));
    assert!(
        last.answers
            .iter()
            .chain(&last.logins)
            .all(|reply| reply.failed.is_none())
    );
    // They all burn, and nobody else has the CPU.
    assert!(
        last.burns
            .iter()
            .filter(|burn| burn.rounds > Some(0.0))
            .count()
            == 30
    );
    let cpu: f64 = last.cpu.values().sum();
    let cpus = f64::from(whole.conditions.cpus);
    assert!((cpu - cpus).abs() < 0.1 * cpus, "{:?}", last.cpu);

    let hold = whole.hold.as_ref().unwrap();
    let [begin, end] = hold.memory.each_ref().map(|memory| as_f64(memory.bytes));
    let (low, high) = (begin.min(end) * 0.9, begin.max(end) * 1.1);
    if let Some(read) = read {
        assert!((low..high).contains(&read), "{begin} to {end}, read {read}");
    }
    assert!(hold.replaced >= 1 && hold.restarts >= 1, "{hold:?}");
    assert!(hold.answers.iter().all(|reply| reply.failed.is_none()));

    let storm = whole.storm.as_ref().unwrap();
    assert_eq!((storm.killed.len(), storm.back.len()), (9, 9));
    assert!(
        storm.resumed.is_some() && storm.lost.is_empty(),
        "{storm:?}"
    );
    assert!(storm.back.iter().all(|reply| reply.failed.is_none()));

    // It names no folder of this machine, and nobody's key.
    for file in ["run.json", "samples.csv", "report.html"] {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        for secret in [
            env.path().to_str().unwrap(),
            "PRIVATE KEY",
            "/tmp/",
            "/root/",
            "/home/",
        ] {
            assert!(!text.contains(secret), "{file} has {secret}");
        }
    }
    // Compared with itself nothing differs.
    let path = folder.to_str().unwrap();
    let compare = ["compare", path, path];
    run(&mut env.imgbuild(compare)).succeeds();
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a small fleet")]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[test]
fn a_run_that_is_interrupted_or_killed_is_resumed() {
    let _machine = whole_machine();
    let env = TestEnv::new();
    let folder = bundle(&env);
    let path = folder.to_str().unwrap();
    let arguments = |count| {
        [
            "--count",
            count,
            "--stages",
            "2,4",
            "--sharing",
            "none",
            "--start",
            "clone",
        ]
    };

    // At Ctrl-C the fleet goes, and what was reached is there.
    let child = start(&mut density(
        &env,
        "cut",
        &[&arguments("6")[..], &["--bundle", path]].concat(),
    ));
    wait_for_stage(&folder, 2);
    fleet::signal(child.id(), Signal::INT);
    finish(child).exits(130);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
    run(&mut env.imgbuild(["verify", path])).succeeds();
    assert_eq!(written(&folder).unwrap().outcome, Outcome::Interrupted);

    // With another choice it would be another run.
    let mut other = vec!["--resume", path, "--count", "6", "--stages", "2,4"];
    other.extend(["--sharing", "guest", "--start", "clone"]);
    run(&mut density(&env, "cut", &other))
        .exits(1)
        .says(&["sharing was none, and is guest now"]);
    env.assert_no_process_left();

    // Killed, it leaves its fleet, which the next one takes over.
    let resumed = [&["--resume", path][..], &arguments("6")[..]].concat();
    let child = start(&mut density(&env, "cut", &resumed));
    wait_for_stage(&folder, 4);
    kill(child.id());
    let _ = finish(child);
    let fleet = Fleet::of(&env, "cut");
    let survivor = fleet.guest(0).pid;
    assert!(survivor.is_some());
    let child = start(&mut density(&env, "cut", &resumed));
    wait_for_stage(&folder, 6);
    finish(child).exits(0);
    env.assert_no_process_left();
    let whole = written(&folder).unwrap();
    assert_eq!(whole.outcome, Outcome::Complete);
    let guests: Vec<_> = whole.stages.iter().map(|stage| stage.guests).collect();
    assert_eq!(guests, [2, 4, 6]);
    // A new bundle does not replace it.
    let again = ["--count", "1", "--bundle", path];
    run(&mut density(&env, "cut", &again))
        .exits(1)
        .says(&["holds a bundle already", "--resume"]);
}

#[test]
fn a_host_is_filled_to_the_memory_that_is_to_stay_free() {
    let _machine = whole_machine();
    let env = TestEnv::new();
    let folder = bundle(&env);
    let available = meminfo("MemAvailable");
    let room = 500 << 20;
    let keep = (available - room).to_string();
    let arguments = [
        "--fill",
        "--stages",
        "3",
        "--sharing",
        "none",
        "--start",
        "clone",
    ];
    let rest = [
        "--keep-free",
        &keep,
        "--force",
        "--bundle",
        folder.to_str().unwrap(),
    ];
    let kills = memory_kills();
    run(&mut density(
        &env,
        "full",
        &[&arguments[..], &rest[..]].concat(),
    ))
    .exits(0);
    env.assert_no_process_left();
    run(&mut env.imgbuild(["verify", folder.to_str().unwrap()])).succeeds();
    let whole = written(&folder).unwrap();
    let Outcome::Full(why) = &whole.outcome else {
        panic!("{:?}", whole.outcome);
    };
    assert!(why.contains("memory"), "{why}");
    let last = whole.stages.last().unwrap();
    assert!((5..60).contains(&last.guests), "{last:?}");
    assert_eq!(last.ready, last.guests);
    assert!(last.answers.iter().all(|reply| reply.failed.is_none()));
    assert_eq!(memory_kills(), kills, "somebody was killed for memory");
}

fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Processes that the kernel has killed for want of memory.
fn memory_kills() -> String {
    let text = fs::read_to_string("/proc/vmstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("oom_kill "));
    line.unwrap_or_default().to_owned()
}
