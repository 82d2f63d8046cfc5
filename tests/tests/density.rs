//! What makes thousands of guests fit on one host: each touches little memory,
//! has most of it in common with the others, and sleeps when it has nothing to
//! do. `docs/density.md` has the numbers.

use std::fs;
use std::path::Path;
use std::time::Duration;

use imgbuild::vmm::Net;
use imgbuild_tests::fleet::Fleet;
use imgbuild_tests::guest::{Guest, Way};
use imgbuild_tests::{TestEnv, rights, run, workspace};
use serde_json::Value;

/// Windows watched for one without a wakeup. Timers of the first minute, and
/// whatever else a busy machine does to QEMU, fall into some, not into all.
const WINDOWS: usize = 6;
const WINDOW: Duration = Duration::from_secs(10);

#[test]
fn guests_of_a_fleet_touch_little_share_most_and_sleep() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let pair = Guest::fleet(&out, Way::Ours(Net::User), 2);
    for guest in &pair {
        let touched = guest.touched_mib();
        assert!(touched <= 10.0, "{touched} MiB touched");
    }
    let difference = pair[0].difference(&pair[1]);
    assert!(difference.by_content <= 1.0, "{difference:?}");

    let wakeups = Guest::wakeups(&[&pair[0], &pair[1]], WINDOWS, WINDOW);
    for guest in &wakeups {
        let least = guest.iter().map(|seen| seen.vcpu).min();
        assert_eq!(least, Some(0), "{wakeups:?}");
    }
}

#[test]
fn guests_that_share_all_are_loaded_and_laid_out_alike() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "alike", 2, &["--sharing", "all"]);
    let maps = fleet.ps().guests.into_iter().map(|guest| {
        let process = Path::new("/proc").join(guest.pid.unwrap().to_string());
        let read = |name: &str| fs::read_to_string(process.join(name)).unwrap();
        // ADDR_NO_RANDOMIZE (personality(2)).
        assert_eq!(read("personality").trim(), "00040000");
        assert!(read("ksm_stat").contains("ksm_merge_any: yes"));
        let maps = read("maps");
        assert!(maps.contains("libjemalloc"), "{maps}");
        let of_files = maps.lines().filter(|line| line.contains("/usr/"));
        of_files.map(str::to_owned).collect::<Vec<_>>()
    });
    let maps: Vec<_> = maps.collect();
    assert_eq!(maps[0], maps[1]);
    fleet.end();
}

/// What imgbuild says that a fleet costs is what a script reads from its control group.
fn assert_agrees(env: &TestEnv, fleet: &Fleet<'_>, bytes: impl Fn() -> f64) {
    let guests = fleet.ps().guests;
    let pids = guests.iter().map(|guest| guest.pid.unwrap());
    let pids: Vec<_> = [fleet.supervisor()]
        .into_iter()
        .chain(pids)
        .map(|pid| pid.to_string())
        .collect();
    // Other processes of this machine share QEMU's files: when one comes or goes,
    // the fleet's part of them changes.
    let mut seen = Vec::new();
    let agree = (0..5).any(|_| {
        let before = bytes();
        let mut script = env.command(workspace().join("tests/fleet-memory"));
        let read = run(script.args(&pids)).succeeds();
        let read: f64 = read.stdout.trim().parse().unwrap();
        let after = bytes();
        seen.push((before, read, after));
        read >= before.min(after) * 0.97 && read <= before.max(after) * 1.03
    });
    assert!(
        agree,
        "imgbuild's figure, the script's, imgbuild's: {seen:?}"
    );
}

#[test]
fn what_a_fleet_costs_is_what_its_cgroup_says() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "m", 6, &[]);
    let memory = || -> Value {
        let shown = run(&mut fleet.imgbuild(["ps", "--memory", "--json"])).succeeds();
        serde_json::from_str(&shown.stdout).unwrap()
    };
    let figure = |shown: &Value, pointer: &str| shown.pointer(pointer).unwrap().as_f64().unwrap();
    let shown = memory();
    let parts = ["cannot_merge", "shared_by_all", "kernel", "ksm"];
    let parts = parts.map(|part| figure(&shown, &format!("/parts/{part}")));
    let sum: f64 = parts.iter().sum();
    assert_eq!(figure(&shown, "/bytes").to_bits(), sum.to_bits(), "{shown}");
    // Whether KSM runs is for other tests to say; somebody watches it.
    assert!(shown["ksm"].is_string(), "{shown}");
    let seen = figure(&shown, "/page_tables") + figure(&shown, "/kernel_stacks");
    assert!(figure(&shown, "/parts/kernel") >= seen, "{shown}");

    if rights::is_root("make control groups") {
        assert_agrees(&env, &fleet, || figure(&memory(), "/bytes"));
    }

    // People see the figure first, and of these guests alone.
    let text = run(&mut fleet.imgbuild(["ps", "--memory", "1-2"])).succeeds();
    assert!(text.stdout.starts_with("m: "), "{}", text.stdout);
    let rows = text.stdout.lines().filter(|line| line.starts_with("g0"));
    assert_eq!(rows.count(), 2, "{}", text.stdout);
    assert!(
        text.stdout.contains(" a guest, 6 guests, "),
        "{}",
        text.stdout
    );
    run(&mut fleet.imgbuild(["ps", "--memory", "--state", "ready"])).exits(2);

    // An orphaned fleet costs the same, less its supervisor.
    fleet.kill_supervisor();
    fleet.wait_until_unsupervised();
    let orphaned = run(&mut fleet.imgbuild(["ps", "--memory", "--json"])).succeeds();
    let orphaned: Value = serde_json::from_str(&orphaned.stdout).unwrap();
    assert_eq!(orphaned["supervisor"], 0);
    assert!(orphaned["ksm"].is_null(), "{orphaned}");
    assert_eq!(orphaned["guests"].as_array().unwrap().len(), 6);
    fleet.resume().succeeds();
    fleet.end();
}
