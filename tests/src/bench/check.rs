//! What the readiness check costs, by itself and in a launch, beside libvirt's
//! own check of a host.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use super::build::{children_cpu, milliseconds};
use super::{Budget, Row, Samples};
use crate::guest::{Guest, Way};
use crate::{TestEnv, finish, start};

/// Runs of `check` for each mean.
const CHECKS: usize = 20;
/// Launches for each mean.
const LAUNCHES: usize = 10;
/// Pairs of canaries for each mean.
const PAIRS: usize = 5;

/// Merging is left out: how soon KSM comes round is the host's affair, and a
/// result of KSM in vain is not kept.
const HOW: [&str; 4] = ["--accel", "tcg", "--sharing", "none"];

/// How launches are timed until the host is checked.
struct Launch {
    what: &'static str,
    how: &'static [&'static str],
    /// How they end.
    codes: &'static [i32],
}

/// With what canaries showed before.
const TCG: Launch = Launch {
    what: "warm launch to checked (TCG)",
    how: &HOW,
    codes: &[0],
};

/// With the probe of KVM, which comes before the event. Where KVM does not run
/// a guest's kernel the launch is then refused; canaries are left out, since
/// there they never have a result to keep.
const DEFAULT: Launch = Launch {
    what: "warm launch to checked (KVM)",
    how: &["--no-canary"],
    codes: &[0, 3],
};

/// What libvirt checks.
const VALIDATE: &str = "virt-host-validate qemu, which starts nothing";

/// Every row about the readiness check.
#[must_use]
pub fn all() -> Vec<Row> {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    // The canaries' result is kept for the launches.
    let canaries = canaries(&env, &out);
    let [alone, cpu] = alone(&env, &out);
    vec![
        alone,
        cpu,
        in_launch(&env, &out, &TCG),
        in_launch(&env, &out, &DEFAULT),
        canaries,
    ]
}

/// `check` of a host and an output folder, with the probe of KVM: how long it
/// takes, and how much of a CPU with all that it starts.
fn alone(env: &TestEnv, out: &Path) -> [Row; 2] {
    let check = || answers(env.imgbuild(["check"]).arg(out), &[0, 3]);
    // QEMU's answers are noted.
    check();
    let (mut ours, mut others) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    // By turns, so that both meet the same noise.
    for _ in 0..CHECKS {
        let before = children_cpu();
        ours[0].push(check());
        let between = children_cpu();
        others[0].push(validate(env));
        ours[1].push(milliseconds(between.saturating_sub(before)));
        others[1].push(milliseconds(children_cpu().saturating_sub(between)));
    }
    let row = |what, unit, column: usize, budget| Row {
        what,
        unit,
        ours: Samples::of(&ours[column]),
        other: Samples::of(&others[column]),
        other_is: VALIDATE,
        budget: Some(Budget::AtMost(budget)),
    };
    [
        row("imgbuild check OUT", "ms", 0, 2000.0),
        row("imgbuild check OUT, CPU", "CPU ms", 1, 100.0),
    ]
}

/// A launch from its start to the event that the host was checked.
fn in_launch(env: &TestEnv, out: &Path, launches: &Launch) -> Row {
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for _ in 0..LAUNCHES {
        let mut launch = env.imgbuild(["launch", "--json", "--count", "1", "--for", "0s"]);
        let began = Instant::now();
        let mut child = start(env.own_cache(launch.args(launches.how).arg(out)));
        let mut events = BufReader::new(child.stdout.take().expect("piped by start"));
        let mut first = String::new();
        events.read_line(&mut first).expect("a pipe can be read");
        ours.push(milliseconds(began.elapsed()));
        child.stdout = Some(events.into_inner());
        let ended = finish(child);
        let (code, stderr) = (ended.code(), &ended.stderr);
        assert!(launches.codes.contains(&code), "{code}: {stderr}");
        assert!(first.starts_with(r#"{"event":"check","#), "{first}");
        assert!(!stderr.contains("trying"), "{stderr}");
        others.push(validate(env));
    }
    Row {
        what: launches.what,
        unit: "ms",
        ours: Samples::of(&ours),
        other: Samples::of(&others),
        other_is: VALIDATE,
        budget: Some(Budget::AtMost(300.0)),
    }
}

/// `check --canary`, from its start to its end.
fn canaries(env: &TestEnv, out: &Path) -> Row {
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let mut check = env.imgbuild(["check", "--canary"]);
        let check = env.own_cache(check.args(HOW).arg(out));
        ours.push(answers(check, &[0]) / 1000.0);
        let began = Instant::now();
        drop(Guest::fleet(out, Way::Plain, 2));
        others.push(began.elapsed().as_secs_f64());
    }
    Row {
        what: "check OUT --canary (TCG)",
        unit: "s",
        ours: Samples::of(&ours),
        other: Samples::of(&others),
        other_is: "two guests to ready, same kernel, QEMU's default machine",
        budget: None,
    }
}

/// Milliseconds that libvirt's check takes; it ends with 1 where something
/// fails.
fn validate(env: &TestEnv) -> f64 {
    answers(env.command("virt-host-validate").arg("qemu"), &[0, 1])
}

/// Milliseconds until a command has ended with one of `codes`.
fn answers(command: &mut Command, codes: &[i32]) -> f64 {
    let began = Instant::now();
    // Not `run`, which looks only every 10 ms.
    let Output { status, stderr, .. } = command.output().unwrap_or_else(|error| {
        let program = command.get_program().display();
        panic!("{program}: {error}; virt-host-validate is in libvirt-clients")
    });
    let took = milliseconds(began.elapsed());
    assert!(
        status.code().is_some_and(|code| codes.contains(&code)),
        "{command:?}: {status}: {}",
        String::from_utf8_lossy(&stderr)
    );
    took
}
