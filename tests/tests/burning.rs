//! Guests that burn answer all the same. How soon, with a cgroup for those that
//! are waited for and without: `just test --test burning -- --nocapture` prints
//! it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::Instant;

use imgbuild_tests::{TestEnv, rights, run, start, wait_until};
use serde_json::Value;

const GUESTS: usize = 40;
/// How often all of them are asked, and one is logged in to.
const ROUNDS: usize = 5;

/// Launches burning guests by a shell that first does `before`, and waits until
/// all burn.
fn launch(env: &TestEnv, before: &str, options: &[&str]) {
    let imgbuild = env.imgbuild(["launch", "--detach", "--accel", "tcg", "--no-canary"]);
    run(env
        .command("unshare")
        .args(["--mount", "sh", "-ec"])
        .arg(format!("{before}\nexec \"$@\""))
        .arg("sh")
        .arg(imgbuild.get_program())
        .args(imgbuild.get_args())
        .args(["--count", &GUESTS.to_string()])
        .args(options)
        .arg(env.artifacts("tty-burn")))
    .succeeds();
    run(&mut env.imgbuild(["wait", "--ready"])).succeeds();
    wait_until("all burn", || {
        ask(env).iter().all(|answer| {
            let output = answer["output"].as_str().unwrap();
            output.contains(" burn=100 ")
        })
    });
}

/// Every guest's answer to `status`.
fn ask(env: &TestEnv) -> Vec<Value> {
    let answers = run(env.command("curl").args([
        "--silent",
        "--show-error",
        "--unix-socket",
        "run/imgbuild/tty-burn/control",
        "--data",
        r#"{"guests":"all","command":"status"}"#,
        "http://fleet/v1/ask",
    ]))
    .succeeds()
    .json_lines();
    assert_eq!(answers.len(), GUESTS);
    answers
}

/// Seconds from a question to its answer, from the shortest to the longest. One
/// that is not answered counts until it is given up.
fn latencies(answers: &[Value]) -> Vec<f64> {
    let mut seconds: Vec<_> = answers
        .iter()
        .map(|answer| answer["seconds"].as_f64().unwrap())
        .collect();
    seconds.sort_unstable_by(f64::total_cmp);
    seconds
}

/// Seconds that log-ins to a guest take, likewise. One that fails, as it does
/// after the time that the fleet gives ssh, counts as the slowest.
fn log_ins(env: &TestEnv) -> Vec<f64> {
    let mut seconds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            let ssh = run(&mut env.imgbuild(["ssh", "g00007", "--", "status"]));
            if ssh.code() == 0 {
                began.elapsed().as_secs_f64()
            } else {
                println!("a log-in failed: {}", ssh.stderr);
                f64::INFINITY
            }
        })
        .collect();
    seconds.sort_unstable_by(f64::total_cmp);
    seconds
}

fn ask_in_rounds(env: &TestEnv) -> Vec<Value> {
    (0..ROUNDS).flat_map(|_| ask(env)).collect()
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn print(classes: &str, answers: &[f64], log_ins: &[f64]) {
    let part = |percent: usize| answers[(answers.len() - 1) * percent / 100];
    println!(
        "{GUESTS} burning guests {classes} classes: answer in {:.3} s (median), {:.3} s (90 %), \
         {:.3} s (all); log-in in {:.3} s (median)",
        part(50),
        part(90),
        part(100),
        median(log_ins)
    );
}

fn end(env: &TestEnv) {
    run(&mut env.imgbuild(["stop", "--all"])).succeeds();
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

/// Whether a process is in a control group whose path ends so.
fn is_in(pid: u64, end: &str) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    groups.lines().any(|line| line.ends_with(end))
}

fn pids(env: &TestEnv) -> Vec<u64> {
    let shown = run(&mut env.imgbuild(["ps", "--json"])).succeeds();
    let fleet: Value = serde_json::from_str(&shown.stdout).unwrap();
    let guests = fleet["guests"].as_array().unwrap();
    guests
        .iter()
        .map(|guest| guest["pid"].as_u64().unwrap())
        .collect()
}

/// Logs in to a guest, and looks at its class before, meanwhile and after.
fn log_in(env: &TestEnv) {
    let pid = pids(env)[7];
    wait_until("it is not waited for", || is_in(pid, "/running"));
    let mut ssh = start(env.imgbuild(["ssh", "g00007"]).stdin(Stdio::piped()));
    let mut stdin = ssh.stdin.take().unwrap();
    let mut stdout = BufReader::new(ssh.stdout.take().unwrap());
    stdin.write_all(b"status\n").unwrap();
    let mut status = String::new();
    while !status.contains("burn=100") {
        status.clear();
        assert_ne!(stdout.read_line(&mut status).unwrap(), 0, "no answer");
    }
    assert!(is_in(pid, "/urgent"));
    drop(stdin);
    assert!(ssh.wait().unwrap().success());
    wait_until("it is not waited for", || is_in(pid, "/running"));
}

#[test]
fn guests_that_are_waited_for_come_before_those_that_burn() {
    if !rights::is_root("make control groups") {
        return;
    }
    let env = TestEnv::new();
    launch(&env, "", &[]);
    let answers = ask_in_rounds(&env);
    for answer in &answers {
        // Null when it came after the deadline that the fleet gives.
        assert_eq!(answer["code"], 0, "{answer}");
    }
    let with = latencies(&answers);
    log_in(&env);
    let log_ins_with = log_ins(&env);
    let all_succeed = log_ins_with.iter().all(|seconds| seconds.is_finite());
    assert!(all_succeed, "{log_ins_with:?}");
    end(&env);
    print("with", &with, &log_ins_with);

    launch(&env, "mount -t tmpfs none /sys/fs/cgroup", &["--nice", "0"]);
    assert!(!is_in(pids(&env)[7], "/running"));
    let without = latencies(&ask_in_rounds(&env));
    let log_ins_without = log_ins(&env);
    end(&env);
    print("without", &without, &log_ins_without);

    // Not of answers: they take a guest so little that the scheduler lets it in
    // either way, and without a cgroup the fleet outweighs whatever else runs.
    // In ratio, and far less than what is measured: others use this machine too.
    assert!(
        2.0 * median(&log_ins_with) < median(&log_ins_without),
        "{log_ins_with:?} with classes, {log_ins_without:?} without"
    );
}
