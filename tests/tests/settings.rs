//! Host settings that `--fix` changes on this very host, and that are put back.
//!
//! They are one for the whole host, so one test runs at a time, of all checkouts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Command;

use imgbuild::guest::Phase;
use imgbuild_tests::fleet::Fleet;
use imgbuild_tests::probes::is_root_of_all;
use imgbuild_tests::{TestEnv, binary, finish, run, start, wait_until};
use rustix::process::{Pid, Signal, getpriority_process, kill_process, setpriority_process};
use serde_json::Value;

const KSM: &str = "/sys/kernel/mm/ksm";
const RECORD: &str = "/run/imgbuild/settings.json";
const KNOBS: [&str; 6] = [
    "max_page_sharing",
    "pages_to_scan",
    "run",
    "sleep_millisecs",
    "smart_scan",
    "use_zero_pages",
];

/// ksmd's rate, which a fleet sets as it needs it.
const RATE: [&str; 2] = ["pages_to_scan", "sleep_millisecs"];
/// The nice value of ksmd, among the knobs.
const NICE: &str = "nice";

type Values = BTreeMap<&'static str, String>;

/// The host's settings as they were, put back by hand when a test fails.
struct Before {
    values: Values,
    _alone: File,
}

fn now() -> Values {
    let knobs = KNOBS.into_iter();
    let knobs =
        knobs.filter_map(|knob| Some((knob, fs::read_to_string(format!("{KSM}/{knob}")).ok()?)));
    let nice = ksmd().map(|pid| {
        let priority = getpriority_process(Some(pid)).unwrap();
        (NICE, priority.to_string())
    });
    knobs.chain(nice).collect()
}

/// The kernel's thread that merges pages; none is seen in most containers.
fn ksmd() -> Option<Pid> {
    let mut pgrep = Command::new("pgrep");
    let found = pgrep.args(["-P", "2", "-x", "ksmd"]).output().unwrap();
    let pid = String::from_utf8(found.stdout).unwrap();
    Pid::from_raw(pid.trim().parse().ok()?)
}

/// The same without ksmd's rate.
fn but_for_the_rate(mut values: Values) -> Values {
    values.retain(|knob, _| !RATE.contains(knob));
    values
}

/// The right to change this host's settings, for one test at a time: the unit
/// tests that change them take it too.
fn alone() -> File {
    let path = std::env::temp_dir().join("imgbuild-live-settings.lock");
    // Root may not create what another user has made (fs.protected_regular).
    let lock = File::open(&path).or_else(|_| File::create(&path)).unwrap();
    lock.lock().unwrap();
    lock
}

/// Guests on this host, of whatever checkout.
fn guests() -> usize {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|process| fs::read_to_string(process.ok()?.path().join("cmdline")).ok())
        .filter(|line| line.contains("\0-fw_cfg\0name=opt/imgbuild/identity,"))
        .count()
}

impl Before {
    /// `None` for a user, to whom they are closed.
    fn look() -> Option<Self> {
        if !is_root_of_all("change this host's settings") {
            return None;
        }
        let alone = alone();
        assert!(
            !fs::exists(RECORD).unwrap(),
            "imgbuild has changed this host's settings ({RECORD}): stop its fleets, then run \
             `imgbuild check --restore`"
        );
        let values = now();
        assert_eq!(
            values["run"].trim(),
            "0",
            "KSM runs or has run for others, and these tests change it: stop ksmtuned and the \
             like, then `echo 0 > {KSM}/run`"
        );
        assert_eq!(
            guests(),
            0,
            "guests of imgbuild run on this host and keep its settings as they are: stop their \
             fleets"
        );
        Some(Self {
            values,
            _alone: alone,
        })
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The guests of the test that failed are gone by now.
            let _ = Command::new(binary()).args(["check", "--restore"]).status();
            for (&knob, value) in &self.values {
                if knob == NICE {
                    let _ = setpriority_process(ksmd(), value.parse().unwrap());
                } else {
                    let _ = fs::write(format!("{KSM}/{knob}"), value);
                }
            }
            let _ = fs::remove_file(RECORD);
        }
    }
}

fn check(env: &TestEnv, arguments: &[&str]) -> Command {
    let mut command = env.imgbuild(["check", "--accel", "tcg"]);
    command.args(arguments);
    command
}

fn finding(report: &Value, id: &str) -> Value {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["id"] == id);
    found.cloned().unwrap_or_default()
}

#[test]
fn canaries_merge_after_fix_and_restore_puts_everything_back() {
    let Some(before) = Before::look() else {
        return;
    };
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let report = |more: &[&str]| {
        let mut command = check(&env, &["--json", "--canary"]);
        env.own_cache(&mut command).args(more).arg(&out);
        let finished = run(&mut command).succeeds();
        (finished.json_lines().remove(0), finished)
    };
    // Without --fix nothing changes, and merging is not tried.
    let (plain, _) = report(&[]);
    assert_eq!(now(), before.values);
    assert_eq!(finding(&plain, "ksm-run")["severity"], "advice");
    assert_eq!(plain["canary"]["merging"], "ksm-stopped");
    let after_fix = plain["ceiling"]["fixed"]["guests"].as_u64().unwrap();
    assert!(after_fix > plain["ceiling"]["guest"]["guests"].as_u64().unwrap());

    let (fixed, said) = report(&["--fix"]);
    said.says(&["/sys/kernel/mm/ksm/run: 0 → 1"]);
    if let Some(nice) = before.values.get(NICE) {
        let applied = fixed["applied"].as_array().unwrap();
        let renice = applied.iter().find(|one| one["knob"] == "ksmd-nice");
        assert_eq!(renice.unwrap()["now"], -10, "from {nice}: {fixed}");
    }
    assert_eq!(now()["run"].trim(), "1");
    assert_eq!(finding(&fixed, "ksm-run")["severity"], "ok");
    // What was said of --fix has come true, and two guests' pages really merge.
    assert_eq!(finding(&fixed, "canary-merge")["severity"], "ok", "{fixed}");
    let guests = fixed["ceiling"]["guest"]["guests"].as_u64().unwrap();
    assert!(
        guests.abs_diff(after_fix) * 20 < after_fix,
        "{guests}, {after_fix}"
    );

    run(&mut check(&env, &["--restore"]))
        .succeeds()
        .says(&["/sys/kernel/mm/ksm/run: 1 → 0, restored"]);
    assert_eq!(now(), before.values);
    run(&mut check(&env, &["--restore"]))
        .succeeds()
        .shows(&["no setting to restore"]);
}

#[test]
fn the_last_of_two_fleets_puts_back() {
    let Some(before) = Before::look() else {
        return;
    };
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let launch = |name: &str| {
        let arguments = [
            "launch", "--accel", "tcg", "--count", "1", "--fix", "--name",
        ];
        let mut command = env.imgbuild(arguments);
        command.arg(name).arg(&out);
        start(&mut command)
    };
    let first = launch("first");
    wait_until("the first fleet runs", || env.guests().len() == 1);
    let second = launch("second");
    wait_until("both fleets run", || env.guests().len() == 2);
    let ours = but_for_the_rate(now());
    assert_eq!(ours["run"].trim(), "1");
    if ksmd().is_some() {
        assert_eq!(ours[NICE], "-10");
    }

    // One holds what the other let go of, also against --restore.
    kill_process(Pid::from_child(&first), Signal::INT).unwrap();
    finish(first)
        .exits(130)
        .says(&["did not restore host settings, because", "the fleet second"]);
    assert_eq!(but_for_the_rate(now()), ours);
    run(&mut check(&env, &["--restore"]))
        .succeeds()
        .says(&["stays 1, because", "second"]);
    assert_eq!(but_for_the_rate(now()), ours);
    kill_process(Pid::from_child(&second), Signal::INT).unwrap();
    finish(second).exits(130);
    assert_eq!(now(), before.values);
}

#[test]
fn restore_puts_back_what_a_killed_launch_left() {
    let Some(before) = Before::look() else {
        return;
    };
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let arguments = [
        "launch",
        "--accel",
        "tcg",
        "--count",
        "1",
        "--fix",
        "--no-canary",
    ];
    let mut command = env.imgbuild(arguments);
    let launch = start(command.arg(&out));
    wait_until("a guest runs", || env.guests().len() == 1);
    kill_process(Pid::from_child(&launch), Signal::KILL).unwrap();
    assert_eq!(finish(launch).status.code(), None);
    let ours = now();
    assert_eq!(ours["run"].trim(), "1");
    assert_ne!(ours.get(NICE), before.values.get(NICE));

    // Its guest lives on, and with it the settings.
    run(&mut check(&env, &["--restore"]))
        .succeeds()
        .says(&["/sys/kernel/mm/ksm/run stays 1, because 1 guest of another fleet may need it"]);
    assert_eq!(now(), ours);
    let guest = env.guests()[0].cast_signed();
    kill_process(Pid::from_raw(guest).unwrap(), Signal::KILL).unwrap();
    wait_until("its guest is gone", || guests() == 0);
    assert_eq!(now(), ours);

    // Meanwhile somebody else has changed one of them.
    fs::write(format!("{KSM}/sleep_millisecs"), "77").unwrap();

    let restored = run(&mut check(&env, &["--restore", "--json"])).exits(1);
    let report = &restored.json_lines()[0];
    let left = report["left"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{report}");
    assert_eq!(left[0]["knob"], "ksm-sleep-millisecs");
    let mut expected = before.values.clone();
    expected.insert("sleep_millisecs", "77\n".to_owned());
    assert_eq!(now(), expected);
    fs::write(
        format!("{KSM}/sleep_millisecs"),
        &before.values["sleep_millisecs"],
    )
    .unwrap();
    // Its cgroup has outlived it too.
    run(&mut env.imgbuild(["rm", "tty-idle"])).succeeds();
}

/// What `ps --memory` says of KSM.
fn ksm_of(fleet: &Fleet) -> Value {
    let shown = run(&mut fleet.imgbuild(["ps", "--memory", "--json"])).succeeds();
    shown.json_lines()[0]["ksm"].clone()
}

/// Pages that ksmd looks at in a second, but for the time that it takes itself.
fn rate() -> u64 {
    let [pages, sleep] = RATE.map(|knob| now()[knob].trim().parse::<u64>().unwrap());
    pages * 1000 / sleep
}

#[test]
fn ksmd_is_driven_while_a_fleet_lives_and_settles() {
    let Some(before) = Before::look() else {
        return;
    };
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "driven", 3, &["--fix"]);
    // Three guests do not need what --fix begins with, and once they are merged even
    // less.
    wait_until("ksmd goes as fast as three guests need", || {
        rate() < 500_000
    });
    wait_until("KSM has settled", || ksm_of(&fleet) == "settled");
    wait_until("ksmd goes slowly", || rate() < 5_000);

    // A supervisor after this one goes on with it.
    fleet.kill_supervisor();
    fleet.wait_until_unsupervised();
    assert!(ksm_of(&fleet).is_null());
    fleet.resume().succeeds();
    fleet.kill_guests(&[0]);
    wait_until("ksmd goes faster for the guest that restarts", || {
        rate() >= 20_000
    });
    assert_eq!(ksm_of(&fleet), "merging");
    wait_until("KSM has settled again", || ksm_of(&fleet) == "settled");

    // Somebody else sets it: that stands, during the fleet's life and after it.
    fs::write(format!("{KSM}/pages_to_scan"), "4321").unwrap();
    fleet.kill_guests(&[1]);
    wait_until("the guest is back", || {
        fleet.guest(1).restarts == 1 && fleet.guest(1).state == Phase::Ready
    });
    wait_until("the supervisor says that it leaves it alone", || {
        fleet.talk().contains("does not set ksmd's rate")
    });
    assert_eq!(now()["pages_to_scan"].trim(), "4321");
    fleet.end();
    fs::write(
        format!("{KSM}/pages_to_scan"),
        &before.values["pages_to_scan"],
    )
    .unwrap();
    assert_eq!(now(), before.values);
}

#[test]
fn a_tampered_record_makes_nothing_be_written() {
    let Some(before) = Before::look() else {
        return;
    };
    let env = TestEnv::new();
    run(&mut check(&env, &["--fix"])).succeeds();
    let record = fs::read_to_string(RECORD).unwrap();
    let ours = now();
    for (what, tampered) in [
        (
            "another knob",
            record.replace("ksm-pages-to-scan", "core-pattern"),
        ),
        (
            "a path",
            record.replace("ksm-pages-to-scan", "../../kernel/core_pattern"),
        ),
        ("half of it", record[..record.len() / 2].to_owned()),
        ("nothing", String::new()),
    ] {
        assert_ne!(tampered, record, "{what}");
        fs::write(RECORD, tampered).unwrap();
        run(&mut check(&env, &["--restore"]))
            .exits(1)
            .says(&[RECORD]);
        assert_eq!(now(), ours, "{what}");
    }
    fs::write(RECORD, &record).unwrap();
    run(&mut check(&env, &["--restore"])).succeeds();
    assert_eq!(now(), before.values);
}

#[test]
fn a_dry_run_is_a_script_and_changes_nothing() {
    let Some(before) = Before::look() else {
        return;
    };
    let env = TestEnv::new();
    let script = run(&mut check(
        &env,
        &["--fix", "--dry-run", "--guests", "100000"],
    ))
    .exits(3)
    .shows(&[
        "#!/bin/sh",
        "sysctl -w kernel.pid_max=",
        "echo 1 > /sys/kernel/mm/ksm/run",
        if ksmd().is_some() {
            "renice -10 -p"
        } else {
            ""
        },
        "# Not done by --fix: ports: ",
    ])
    .stdout;
    assert_eq!(now(), before.values);
    fs::write(env.path().join("fix.sh"), script).unwrap();
    run(env.command("sh").args(["-n", "fix.sh"])).succeeds();
}

#[test]
fn only_root_changes_settings() {
    let Some(before) = Before::look() else {
        return;
    };
    let env = TestEnv::new();
    run(env.command("chmod").args(["-R", "a+rwX", "."])).succeeds();
    let imgbuild = check(&env, &["--fix"]);
    run(env
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(imgbuild.get_program())
        .args(imgbuild.get_args()))
    .exits(1)
    .says(&["cannot be changed", "as root"]);
    assert_eq!(now(), before.values);
}

#[test]
fn restore_takes_nothing_from_the_guests_of_another_user() {
    let Some(before) = Before::look() else {
        return;
    };
    let env = TestEnv::new();
    run(&mut check(&env, &["--fix"])).succeeds();
    let ours = now();
    let theirs = TestEnv::new();
    let out = theirs.artifacts("tty-idle");
    run(theirs.command("chown").args(["-R", "65534", "."])).succeeds();
    let arguments = ["launch", "--accel", "tcg", "--count", "1", "--no-canary"];
    let imgbuild = theirs.imgbuild(arguments);
    let mut other = theirs.command("setpriv");
    other
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(imgbuild.get_program())
        .args(imgbuild.get_args())
        .arg(&out);
    let launch = start(&mut other);
    wait_until("a guest runs", || theirs.guests().len() == 1);
    run(&mut check(&env, &["--restore"]))
        .succeeds()
        .says(&["/sys/kernel/mm/ksm/run stays 1, because 1 guest of another fleet may need it"]);
    assert_eq!(now(), ours);

    // setpriv has become imgbuild.
    kill_process(Pid::from_child(&launch), Signal::INT).unwrap();
    finish(launch).exits(130);
    run(&mut check(&env, &["--restore"])).succeeds();
    assert_eq!(now(), before.values);
}

#[test]
fn a_launch_that_is_fixed_raises_its_own_limit_of_open_files() {
    let Some(before) = Before::look() else {
        return;
    };
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let limited = |imgbuild: &Command| {
        let mut limited = env.command("prlimit");
        limited
            .arg("--nofile=50:50")
            .arg(imgbuild.get_program())
            .args(imgbuild.get_args());
        limited
    };
    let launch = |more: &[&str]| {
        let mut imgbuild = env.imgbuild(["launch", "--accel", "tcg", "--count", "12"]);
        imgbuild.args(["--for", "1s"]).args(more).arg(&out);
        run(&mut limited(&imgbuild))
    };
    let refused = launch(&[]).exits(3).says(&["open-files: 50 (hard limit)"]);
    // Root of a container may lack what raising takes (CAP_SYS_RESOURCE).
    let mut raise = env.command("prlimit");
    if run(&mut limited(raise.args(["--nofile=51:51", "true"]))).code() == 0 {
        refused.says(&["launch --fix raises the limit"]);
        launch(&["--fix"]).succeeds();
    } else {
        refused.says(&["LimitNOFILE="]);
        launch(&["--fix"]).exits(3);
    }
    assert_eq!(now(), before.values);
}
