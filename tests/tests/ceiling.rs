//! The number of guests that `check` predicts, against the number that a real
//! fleet reaches, with less than the host has of one resource.

use std::path::Path;
use std::process::Command;

use imgbuild_tests::confined::{Confined, Limit};
use imgbuild_tests::{TestEnv, rights, run};
use serde_json::Value;

/// Predicts and launches with commands that `confine` confines; the first limit
/// must be `first`, and `most` guests may come up where so many are predicted.
fn compare(first: &str, most: fn(u64) -> u64, confine: impl Fn(&TestEnv, Command) -> Command) {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let command = |verb: &str, arguments: &[&str], out: &Path| {
        let mut command = env.imgbuild([verb, "--accel", "tcg", "--sharing", "none", "--json"]);
        // The prediction is for guests that boot: clones take less.
        command.env("IMGBUILD_START", "boot");
        command.args(arguments).arg(out);
        confine(&env, command)
    };
    let checked = run(&mut command("check", &["--canary"], &out)).succeeds();
    let report = &checked.json_lines()[0];
    assert_eq!(report["ceiling"]["basis"], "measured");
    assert_eq!(report["ceiling"]["none"]["first"], first, "{report}");
    let predicted = report["ceiling"]["none"]["guests"].as_u64().unwrap();

    // A third more than fit: `launch` refuses, and says why, unless forced.
    let count = (predicted + predicted / 3).to_string();
    run(&mut command("launch", &["--count", &count], &out))
        .exits(3)
        .says(&[first, &format!("allows {predicted} guests"), "--force"]);
    let launched = run(&mut command(
        "launch",
        &["--count", &count, "--force", "--for", "3s"],
        &out,
    ))
    .exits(4);
    let events = launched.json_lines();
    let summary = events.last().unwrap();
    assert_eq!(summary["forced"], Value::from(vec![first]));
    let reached = summary["ready"].as_u64().unwrap();
    println!("{first}: predicted {predicted}, reached {reached}");
    assert!(
        reached * 10 >= predicted * 9 && reached <= most(predicted),
        "{first}: predicted {predicted}, reached {reached}"
    );
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

/// One after the other, since each takes all CPUs.
#[test]
fn a_fleet_reaches_what_was_predicted() {
    let about = |predicted| predicted + predicted / 10;
    // Of five threads that a guest has at first four stay: those who were held
    // back come up in the place of the fifth ones.
    let with_those_held_back = |predicted| (predicted + 1) * 5 / 4;
    compare("open-files", about, |env, command| {
        let mut limited = env.command("prlimit");
        limited
            .arg("--nofile=220:220")
            .arg(command.get_program())
            .args(command.get_args());
        limited
    });
    if !rights::is_root("make control groups") {
        return;
    }
    let memory = Confined::new("memory", Limit::Memory(1200 << 20));
    compare("memory-cgroup", about, |_, mut command| {
        memory.run(&mut command);
        command
    });
    let pids = Confined::new("pids", Limit::Pids(160));
    compare("cgroup-pids", with_those_held_back, |_, mut command| {
        pids.run(&mut command);
        command
    });
}
