//! What a guest's next life keeps of the one before, and what is said of its ends.

use std::io::Write as _;
use std::process::Stdio;

use imgbuild::control::types;
use imgbuild::guest::Phase;
use imgbuild_tests::fleet::{Fleet, all_ready, signal};
use imgbuild_tests::{TestEnv, run, start};
use rustix::process::Signal;

/// The duty of each guest, and whether it has burned.
fn burns(fleet: &types::Fleet) -> Vec<Option<(u8, bool)>> {
    let burns = fleet.guests.iter().map(|guest| guest.burn);
    burns
        .map(|burn| burn.map(|burn| (burn.duty.percent(), burn.rounds > 0)))
        .collect()
}

fn reason(fleet: &types::Fleet, guest: usize) -> String {
    fleet.guests[guest].reason.clone().unwrap_or_default()
}

/// Types a line on a guest's console, as a user does.
fn type_line(fleet: &Fleet<'_>, guest: &str, line: &str) {
    let mut console = fleet.imgbuild(["console", guest]);
    let mut console = start(console.stdin(Stdio::piped()).stdout(Stdio::null()));
    let mut stdin = console.stdin.take().unwrap();
    stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    drop(stdin);
    console.wait().unwrap();
}

#[test]
fn a_duty_that_a_user_set_outlives_guest_and_supervisor() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    fleet.ssh("g00000", ["burn", "30"]).succeeds();
    type_line(&fleet, "g00001", "burn 20");
    let so = vec![Some((30, true)), Some((20, true))];
    fleet.until("both burn", |fleet| burns(fleet) == so);

    run(&mut fleet.imgbuild(["restart", "g00000"])).succeeds();
    fleet.wait();
    let again = fleet.until("the first burns again", |fleet| burns(fleet) == so);
    assert_eq!(again.guests[0].restarts, 1);
    assert_eq!(again.burn.guests, 2);
    let metrics = run(env.command("curl").args([
        "--silent",
        "--unix-socket",
        "run/imgbuild/f/control",
        "http://fleet/metrics",
    ]))
    .succeeds();
    let said = "imgbuild_burning_guests{fleet=\"f\"} 2";
    assert!(metrics.stdout.contains(said), "{}", metrics.stdout);

    // One that was asked to stop is quiet in its next life as well.
    fleet.ssh("g00000", ["burn", "0"]).succeeds();
    let so = vec![Some((0, true)), Some((20, true))];
    fleet.until("the first is quiet", |fleet| burns(fleet) == so);
    fleet.kill_supervisor();
    let orphaned = fleet.ps();
    assert_eq!(orphaned.counts, [(Phase::Unsupervised, 2)].into());
    // Right at the first try.
    run(&mut fleet.imgbuild(["stop", "--all"]))
        .exits(1)
        .says(&["launch --resume f`", "imgbuild rm --force f`"]);
    let pid = orphaned.guests[1].pid.unwrap();
    signal(pid, Signal::KILL);
    fleet.resume().succeeds();
    let so = vec![Some((0, true)), Some((20, true))];
    fleet.until("they go on so", |fleet| {
        burns(fleet) == so && all_ready(fleet)
    });
    fleet.end();
}

#[test]
fn an_end_is_called_what_it_was() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 4, &["--restart", "on-failure"]);
    // The machine is gone before there is an answer.
    let _ = fleet.ssh("g00000", ["write", "/proc/sysrq-trigger", "b"]);
    let _ = fleet.ssh("g00001", ["reboot"]);
    let _ = fleet.ssh("g00002", ["poweroff"]);
    signal(fleet.guest(3).pid.unwrap(), Signal::TERM);
    let ended = fleet.until("all but one are ready again", |fleet| {
        let states = fleet
            .guests
            .iter()
            .map(|guest| (guest.state, guest.restarts));
        states.eq([
            (Phase::Ready, 1),
            (Phase::Ready, 1),
            (Phase::Exited, 0),
            (Phase::Ready, 1),
        ])
    });
    for (guest, said) in [
        "its machine was reset without a shutdown",
        "rebooted by itself",
        "powered off by itself",
        "a signal ended its QEMU",
    ]
    .into_iter()
    .enumerate()
    {
        let reason = reason(&ended, guest);
        assert!(reason.contains(said), "g0000{guest}: {reason}");
    }
    // What is over is no news of a guest that is ready.
    let table = run(&mut fleet.imgbuild(["ps"])).succeeds().stdout;
    assert!(table.contains("powered off by itself"), "{table}");
    for history in ["reset", "rebooted", "a signal"] {
        assert!(!table.contains(history), "{table}");
    }
    fleet.end();
}
