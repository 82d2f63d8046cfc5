//! Fleets that outlive their supervisor: real guests under TCG, some killed,
//! some files damaged, and another supervisor that goes on with them.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use imgbuild::control::types::{self, Stage};
use imgbuild::guest::{Desired, Phase};
use imgbuild::net::ports;
use imgbuild::store::claims::Others;
use imgbuild::store::journal::{Journal, Record};
use imgbuild::store::orphans;
use imgbuild_tests::fleet::{Fleet, all_ready, detached, folder, kill, launch, number, signal};
use imgbuild_tests::namespace::Namespace;
use imgbuild_tests::{TestEnv, run, wait_until};
use rustix::process::{Signal, geteuid};
use serde_json::json;

/// Each guest's process and how often it was started again.
fn lives(fleet: &types::Fleet) -> Vec<(Option<u32>, u32)> {
    let guests = fleet.guests.iter();
    guests.map(|guest| (guest.pid, guest.restarts)).collect()
}

fn ids(fleet: &types::Fleet) -> Vec<String> {
    let guests = fleet.guests.iter();
    guests.map(|guest| guest.id.to_string()).collect()
}

fn restarts(fleet: &types::Fleet) -> u32 {
    fleet.guests.iter().map(|guest| guest.restarts).sum()
}

#[test]
fn a_third_killed_and_the_supervisor_too() {
    let env = TestEnv::new();
    let count = number("IMGBUILD_TEST_GUESTS", 50);
    let fleet = Fleet::ready(&env, "f", count, &[]);
    let before = lives(&fleet.ps());
    assert_eq!(env.guests().len(), count as usize);

    let third: Vec<_> = (0..before.len()).step_by(3).collect();
    fleet.kill_guests(&third);
    let after = fleet.until("all are ready again", |fleet| {
        restarts(fleet) as usize >= third.len() && all_ready(fleet)
    });
    for (index, (before, after)) in before.iter().zip(lives(&after)).enumerate() {
        let killed = third.contains(&index);
        assert_eq!(after.1, u32::from(killed), "g{index:05}");
        assert_eq!(after.0 != before.0, killed, "g{index:05}");
    }

    fleet.kill_supervisor();
    let orphaned = fleet.ps();
    assert_eq!(orphaned.stage, Stage::Orphaned);
    assert_eq!(orphaned.supervisor, None);
    assert_eq!(orphaned.counts, [(Phase::Unsupervised, count)].into());
    assert_eq!(lives(&orphaned), lives(&after));
    run(&mut launch(&env, "f", 1)).exits(1).says(&[
        &format!("left {count} living guests"),
        "imgbuild launch --resume f",
        "imgbuild rm --force f",
    ]);
    run(&mut fleet.imgbuild(["rm", "f"]))
        .exits(1)
        .says(&["rm --force f"]);

    let resume = ["launch", "--resume", "f", "--detach"];
    run(fleet.imgbuild(resume).args(["--count", "3", "out"]))
        .exits(2)
        .says(&["--count <N>", "[OUT]", "rm --force f"]);
    // What is set for every launch is no matter.
    let environment = [("IMGBUILD_COUNT", "3"), ("IMGBUILD_NAME", "g")];
    run(fleet.imgbuild(resume).envs(environment)).succeeds();
    fleet.wait();
    let adopted = fleet.ps();
    assert_eq!(adopted.stage, Stage::Up);
    assert_eq!(lives(&adopted), lives(&after));
    assert_eq!(env.guests().len(), count as usize);
    fleet.ssh("g00000", ["status"]).succeeds();
    run(&mut fleet.imgbuild(["launch", "--resume", "f"]))
        .exits(1)
        .says(&["a fleet named f is running"]);
    fleet.end();
}

#[test]
fn fleets_launched_at_one_moment_share_no_port_and_no_user() {
    // One user's, in two state folders.
    let envs = [TestEnv::new(), TestEnv::new()];
    let [one, other] = envs.each_ref().map(|env| env.path().join("run"));
    fs::remove_dir(&other).unwrap();
    symlink(&one, &other).unwrap();
    let is_root = geteuid().is_root();
    // What root's fleets have is recorded for the host, which has other fleets.
    let host = is_root.then(Namespace::with_empty_run);
    let record = match &host {
        Some(host) => host.path("/run/imgbuild"),
        None => one.join("imgbuild"),
    };
    DirBuilder::new().mode(0o700).create(&record).unwrap();
    // The first two names whose fleets would get some of the same ports.
    let others = Others::default();
    let mut owners = HashMap::new();
    let names = (0..).find_map(|number| {
        let which = number % 2;
        let name = format!("f{number}");
        let ports = ports::choose(&folder(&envs[which], &name), &others.ports(), 2).unwrap();
        let meets = ports.into_iter().find_map(|port| {
            owners
                .insert(port, (which, name.clone()))
                .filter(|(other, _)| *other != which)
        });
        meets.map(|(_, other)| {
            if which == 1 {
                [other, name]
            } else {
                [name, other]
            }
        })
    });
    let names = names.unwrap();
    // As if a third were choosing, until both wait for it.
    let turn = File::open(&record).unwrap();
    turn.lock().unwrap();
    let launches = [0, 1].map(|which| {
        let (env, name) = (&envs[which], &names[which]);
        let talk = env.path().join(name);
        let launch = detached(env, name, 2);
        let mut launch = match &host {
            Some(host) => host.within(&launch),
            None => launch,
        };
        launch.stderr(File::create(&talk).unwrap());
        (launch.spawn().unwrap(), talk)
    });
    for (_, talk) in &launches {
        wait_until("both wait", || {
            let talk = fs::read_to_string(talk).unwrap();
            talk.contains("waiting for another fleet")
        });
    }
    drop(turn);
    for (mut launch, talk) in launches {
        let status = launch.wait().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(talk).unwrap());
    }
    let fleets = [0, 1].map(|which| Fleet::of(&envs[which], &names[which]));
    let [one, other] = fleets.each_ref().map(Fleet::spec);
    let ports: HashSet<_> = [&one, &other]
        .into_iter()
        .flat_map(|spec| spec["ports"].as_array().unwrap())
        .collect();
    assert_eq!(ports.len(), 4, "{ports:?}");
    if is_root {
        assert_ne!(one["run_as_base"], other["run_as_base"]);
    }
    // Guests do not go without their supervisor for as long as a choice takes.
    let turn = File::open(&record).unwrap();
    turn.lock().unwrap();
    run(&mut fleets[0].imgbuild(["scale", "3"]))
        .exits(1)
        .says(&["another fleet is being launched", "try again"]);
    drop(turn);
    run(&mut fleets[0].imgbuild(["scale", "3"])).succeeds();
    for fleet in &fleets {
        fleet.wait();
        run(&mut fleet.imgbuild(["stop", "--all"])).succeeds();
        fleet.assert_nothing_left();
    }
    // What they had is given back.
    assert!(!record.join("fleets.json").exists());
    for env in &envs {
        env.assert_no_process_left();
        env.assert_no_fleet_left();
    }
}

#[test]
fn what_died_with_the_supervisor_is_started_again_and_what_was_stopped_is_not() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 4, &[]);
    run(&mut fleet.imgbuild(["stop", "g00001"])).succeeds();
    let before = fleet.ps();
    kill(before.supervisor.unwrap().pid);
    fleet.wait_until_unsupervised();
    fleet.kill_guests(&[0]);
    let orphaned = fleet.until("a guest is gone", |fleet| fleet.guests[0].pid.is_none());
    assert_eq!(orphaned.guests[0].state, Phase::Exited);
    assert_eq!(orphaned.guests[1].desired, Desired::Down);

    fleet.resume().succeeds();
    fleet.wait();
    let after = fleet.ps();
    let states = |fleet: &types::Fleet| -> Vec<_> {
        let guests = fleet.guests.iter();
        guests.map(|guest| (guest.state, guest.restarts)).collect()
    };
    assert_eq!(
        states(&after),
        [
            (Phase::Ready, 1),
            (Phase::Exited, 0),
            (Phase::Ready, 0),
            (Phase::Ready, 0)
        ]
    );
    assert_eq!(after.guests[2].pid, before.guests[2].pid);
    assert_eq!(after.guests[3].pid, before.guests[3].pid);
    assert_eq!(
        after.guests[0].reason.as_deref(),
        Some("its QEMU was gone when the fleet was adopted")
    );

    fleet.kill_supervisor();
    fleet.kill_guests(&[0, 2, 3]);
    fleet.until("all are gone", |fleet| fleet.stage == Stage::Lost);
    fleet.resume().succeeds();
    fleet.wait();
    assert_eq!(
        states(&fleet.ps()),
        [
            (Phase::Ready, 2),
            (Phase::Exited, 0),
            (Phase::Ready, 1),
            (Phase::Ready, 1)
        ]
    );
    run(&mut fleet.imgbuild(["restart", "g00001"])).succeeds();
    fleet.wait();
    assert!(all_ready(&fleet.ps()));
    fleet.end();
}

#[test]
fn restarts_that_came_to_nothing_are_known_to_the_next_supervisor() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 1, &[]);
    let identity = fleet.folder().join("identities/g00000");
    let aside = env.path().join("identity");
    fs::rename(&identity, &aside).unwrap();
    fleet.kill_guests(&[0]);
    let before = fleet.until("it was tried", |fleet| fleet.guests[0].restarts > 1);
    fleet.kill_supervisor();
    let orphaned = fleet.guest(0).restarts;
    assert!(orphaned >= before.guests[0].restarts, "{orphaned}");
    fs::rename(&aside, &identity).unwrap();
    fleet.resume().succeeds();
    fleet.wait();
    assert_eq!(fleet.guest(0).restarts, orphaned + 1);
    fleet.end();
}

/// Each supervisor that dies leaves a connection that QEMU has yet to take, and
/// QEMU lets two wait.
#[test]
fn a_guest_that_takes_no_connection_is_adopted_all_the_same() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    let before = lives(&fleet.ps());
    let stopped = before[0].0.unwrap();
    signal(stopped, Signal::STOP);
    for _ in 0..4 {
        fleet.kill_supervisor();
        fleet.resume().succeeds();
    }
    let said = "takes no connection to its console";
    assert!(fleet.talk().contains(said), "{}", fleet.talk());
    fleet.until("the other answers", |fleet| {
        fleet.guests[1].state == Phase::Ready
    });
    signal(stopped, Signal::CONT);
    let after = fleet.until("it answers", all_ready);
    assert_eq!(lives(&after), before);
    fleet.ssh("g00000", ["status"]).succeeds();
    fleet.end();
}

#[test]
fn of_two_who_resume_a_fleet_one_does() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 1, &[]);
    for _ in 0..number("IMGBUILD_TEST_ROUNDS", 5) {
        fleet.kill_supervisor();
        let mut resumes = [0, 1].map(|number| {
            let talk = env.path().join(format!("resume{number}"));
            let mut resume = fleet.imgbuild(["launch", "--resume", "f", "--detach"]);
            resume.stderr(File::create(&talk).unwrap());
            // Each looks at the folder before it leaves that to its supervisor.
            sleep(Duration::from_millis(10));
            (resume.spawn().unwrap(), talk)
        });
        let codes = resumes
            .each_mut()
            .map(|(resume, _)| resume.wait().unwrap().code().unwrap());
        let talk = resumes.map(|(_, talk)| fs::read_to_string(talk).unwrap());
        assert_eq!(codes.iter().sum::<i32>(), 1, "{talk:?}");
        let loser = codes.iter().position(|code| *code == 1).unwrap();
        assert!(
            talk[loser].contains("a fleet named f is running"),
            "{talk:?}"
        );
    }
    fleet.wait();
    fleet.end();
}

#[test]
fn a_fleet_keeps_its_new_size() {
    let env = TestEnv::new();
    // As a part of a larger fleet has them, its guests are numbered from 7 on.
    let fleet = Fleet::ready(&env, "f", 2, &["--first", "7"]);
    assert_eq!(ids(&fleet.ps()), ["g00007", "g00008"]);
    let config = fs::read_to_string(fleet.folder().join("ssh_config")).unwrap();
    assert!(
        config.contains("g00007") && config.contains("g00008") && !config.contains("g00000"),
        "{config}"
    );
    fleet
        .ssh("g00007", ["status"])
        .succeeds()
        .shows(&["id=g00007"]);
    run(&mut fleet.imgbuild(["stop", "0"]))
        .exits(2)
        .says(&["`g00000`"]);
    run(&mut fleet.imgbuild(["stop", "g00008"])).succeeds();
    assert_eq!(fleet.guest(1).state, Phase::Exited);
    run(&mut fleet.imgbuild(["restart", "8"])).succeeds();
    // As one leaves it that was killed on its way.
    for path in ["overlays/0000N.qcow2", "identities/g0000N"] {
        let of = |guest: &str| fleet.folder().join(path.replace('N', guest));
        fs::copy(of("7"), of("9")).unwrap();
    }
    run(&mut fleet.imgbuild(["scale", "4"])).succeeds();
    fleet.wait();
    fleet
        .ssh("g00009", ["status"])
        .succeeds()
        .shows(&["id=g00009"]);
    let grown = fleet.ps();
    assert_eq!(grown.wanted, 4);
    assert_eq!(ids(&grown), ["g00007", "g00008", "g00009", "g00010"]);
    fleet.kill_supervisor();
    let orphaned = fleet.ps();
    assert_eq!(orphaned.stage, Stage::Orphaned);
    assert_eq!(
        (ids(&orphaned), lives(&orphaned)),
        (ids(&grown), lives(&grown))
    );
    fleet.resume().succeeds();
    fleet.wait();
    assert_eq!(lives(&fleet.ps()), lives(&grown));
    fleet
        .ssh("g00010", ["status"])
        .succeeds()
        .shows(&["id=g00010"]);

    run(&mut fleet.imgbuild(["scale", "1"])).succeeds();
    let one = fleet.ps();
    assert_eq!(lives(&one), lives(&grown)[..1]);
    assert_eq!(env.guests().len(), 1);
    for path in ["overlays", "identities", "logs", "errors"] {
        let left = fs::read_dir(fleet.folder().join(path)).unwrap().count();
        assert_eq!(left, 1, "{path}");
    }
    fleet.kill_supervisor();
    fleet.resume().succeeds();
    fleet.wait();
    assert_eq!(lives(&fleet.ps()), lives(&one));

    run(&mut fleet.imgbuild(["scale", "0"])).succeeds();
    assert_eq!(fleet.ps().guests, []);
    fleet.kill_supervisor();
    fleet.resume().succeeds();
    run(&mut fleet.imgbuild(["scale", "2"])).succeeds();
    fleet.wait();
    assert_eq!(ids(&fleet.ps()), ["g00007", "g00008"]);
    fleet.end();
}

#[test]
fn a_damaged_journal_costs_no_guest() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    let journal = fleet.folder().join("journal");
    run(&mut fleet.imgbuild(["stop", "g00001"])).succeeds();
    let before = fleet.ps();

    // As a power cut may leave it.
    fleet.kill_supervisor();
    let mut torn = OpenOptions::new().append(true).open(&journal).unwrap();
    torn.write_all(b"0badc0de {\"sto").unwrap();
    fleet.resume().succeeds();
    fleet.wait();
    assert_eq!(lives(&fleet.ps()), lives(&before));
    assert_eq!(fleet.guest(1).state, Phase::Exited);
    assert!(fleet.talk().contains("journal"), "{}", fleet.talk());

    // A wrong line in the middle: what follows is put aside.
    fleet.kill_supervisor();
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, format!("garbage\n{text}")).unwrap();
    fleet.resume().succeeds();
    fleet.wait();
    assert_eq!(fleet.guest(0).pid, before.guests[0].pid);
    assert!(fleet.folder().join("journal.damaged").exists());

    // Nothing tells that a guest was stopped, so it comes back.
    fleet.kill_supervisor();
    fs::remove_file(&journal).unwrap();
    fleet.resume().succeeds();
    fleet.wait();
    assert_eq!(fleet.guest(0).pid, before.guests[0].pid);
    assert!(all_ready(&fleet.ps()));
    fleet.end();
}

#[test]
fn a_process_that_has_a_guests_old_number_is_left_alone() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    fleet.kill_supervisor();
    fleet.kill_guests(&[0]);
    wait_until("the guest is gone", || env.guests().len() == 1);
    // Not of this environment, where nothing is to be left.
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = other.id();
    Journal::open(&fleet.folder().join("journal"))
        .unwrap()
        .append(&Record::Start {
            guest: "g00000".parse().unwrap(),
            pid,
            start_time: orphans::start_time(Path::new("/"), pid).unwrap(),
            restarts: 7,
        })
        .unwrap();
    assert_eq!(fleet.guest(0).pid, None);
    fleet.resume().succeeds();
    fleet.wait();
    let guest = fleet.guest(0);
    assert_ne!(guest.pid, Some(pid));
    assert_eq!(guest.restarts, 8);
    run(&mut fleet.imgbuild(["kill", "g00000"])).succeeds();
    fleet.end();
    assert_eq!(other.try_wait().unwrap(), None);
    other.kill().unwrap();
    assert_eq!(other.wait().unwrap().signal(), Some(9));
}

#[test]
fn a_spec_that_cannot_be_read_is_reported_and_cleared_by_force() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 1, &[]);
    let pid = fleet.guest(0).pid.unwrap();
    let good = fleet.spec();
    fleet.kill_supervisor();

    // Of another version, and with no more than what tells its guests.
    for (spec, said) in [
        (json!({"spec_version": 999}), "has version 999"),
        (
            json!({"spec_version": 2, "instance": good["instance"]}),
            "does not describe the fleet f",
        ),
        (json!("garbage"), "does not describe the fleet f"),
    ] {
        fleet.change_spec(|written| *written = spec);
        let removes = "imgbuild rm --force f";
        fleet.resume().exits(1).says(&[said, removes]);
        run(&mut launch(&env, "f", 1)).exits(1).says(&[said]);
        run(&mut fleet.imgbuild(["ps"])).exits(1).says(&[said]);
        run(&mut fleet.imgbuild(["rm", "f"]))
            .exits(1)
            .says(&["rm --force f"]);
        assert_eq!(env.guests(), [pid]);
    }

    // Its guests are known by the journal.
    run(&mut fleet.imgbuild(["rm", "--force", "f"])).succeeds();
    fleet.assert_gone();
}

#[test]
fn an_overlay_that_is_gone_is_made_anew() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    let overlay = fleet.folder().join("overlays/00000.qcow2");
    run(&mut fleet.imgbuild(["stop", "g00000"])).succeeds();
    fs::remove_file(&overlay).unwrap();
    run(&mut fleet.imgbuild(["restart", "g00000"])).succeeds();
    fleet.wait();
    assert!(overlay.exists());
    let said = "g00000 gets a new, empty one";
    assert_eq!(fleet.talk().matches(said).count(), 1, "{}", fleet.talk());

    // A guest that runs has its disk open.
    fs::remove_file(&overlay).unwrap();
    fleet.ssh("g00000", ["sync"]).succeeds();
    assert_eq!(fleet.guest(0).state, Phase::Ready);
    run(&mut fleet.imgbuild(["kill", "g00000"])).succeeds();
    fleet.wait();
    assert!(overlay.exists());
    assert_eq!(fleet.talk().matches(said).count(), 2, "{}", fleet.talk());
    fleet.end();
}

#[test]
fn a_fleet_of_an_earlier_boot_is_lost() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    fleet.kill_supervisor();
    fleet.kill_guests(&[0, 1]);
    wait_until("no guest lives", || env.guests().is_empty());
    fleet.change_spec(|spec| {
        assert!(spec["host"]["boot"].is_string(), "{spec}");
        spec["host"]["boot"] = json!("00000000-0000-4000-8000-000000000000");
    });
    // With a login or a restart of the host, this goes.
    fs::remove_dir_all(env.path().join("run/imgbuild/f")).unwrap();
    assert_eq!(fleet.ps().stage, Stage::Lost);
    fleet.resume().exits(1).says(&["was lost", "imgbuild rm f"]);
    run(&mut launch(&env, "f", 1))
        .exits(1)
        .says(&["imgbuild rm f"]);
    run(&mut fleet.imgbuild(["rm", "f"])).succeeds();
    fleet.assert_gone();
}

#[test]
fn rebuilt_artifacts_are_not_mixed_with_old_guests() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 1, &[]);
    let pid = fleet.guest(0).pid;
    fleet.kill_supervisor();
    let out = env.artifacts("tty-idle");
    run(env
        .imgbuild([
            "build",
            "tty-idle",
            "--no-boot",
            "--disk-size",
            "2G",
            "--out",
        ])
        .arg(&out))
    .succeeds();
    fleet
        .resume()
        .exits(1)
        .says(&["was built again", "rm --force f"]);
    assert_eq!(fleet.guest(0).pid, pid);
    run(&mut fleet.imgbuild(["rm", "--force", "f"]))
        .succeeds()
        .says(&["killed 1 guest"]);
    fleet.assert_gone();
}

#[test]
fn a_resumed_fleet_is_kept_no_longer_than_was_said() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 1, &["--for", "1h"]);
    let told = || fleet.spec()["until"].as_u64();
    wait_until("its end is set", || told().is_some());
    fleet.kill_supervisor();
    // As if it had been launched a while ago.
    let end = told().unwrap() - 60;
    fleet.change_spec(|spec| spec["until"] = json!(end));
    fleet.resume().succeeds();
    fleet.wait();
    fleet.until("it is up", |fleet| fleet.stage == Stage::Up);
    assert_eq!(told(), Some(end));
    fleet.end();
}

#[test]
fn guests_held_back_by_a_failed_one_start_once_that_does() {
    let env = TestEnv::new();
    let arguments = ["--parallel", "1", "--restart", "never"];
    let fleet = Fleet::ready(&env, "f", 3, &arguments);
    fleet.kill_supervisor();
    fleet.kill_guests(&[0, 1, 2]);
    wait_until("all are gone", || env.guests().is_empty());
    // As before the first start, with one that cannot start.
    fs::remove_file(fleet.folder().join("journal")).unwrap();
    let overlay = fleet.folder().join("overlays/00000.qcow2");
    fs::write(&overlay, "no disk").unwrap();
    fleet.resume().succeeds();
    fleet.until("the rest is held back", |fleet| {
        fleet.counts == [(Phase::Failed, 1), (Phase::Planned, 2)].into()
    });
    // It is made anew.
    fs::remove_file(&overlay).unwrap();
    run(&mut fleet.imgbuild(["restart", "g00000"])).succeeds();
    fleet.until("all are ready", all_ready);
    fleet.end();
}

#[test]
fn a_fleet_that_was_told_to_end_starts_no_guest() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    // One that takes all the time it is given.
    signal(fleet.guest(1).pid.unwrap(), Signal::STOP);
    signal(fleet.supervisor(), Signal::TERM);
    fleet.until("one has ended", |fleet| fleet.guests[0].pid.is_none());
    run(&mut fleet.imgbuild(["restart", "g00000"]))
        .exits(1)
        .says(&["g00000", "it is being removed"]);
    run(&mut fleet.imgbuild(["scale", "3"]))
        .exits(1)
        .says(&["the fleet is ending"]);
    fleet.wait_until_unsupervised();
    fleet.assert_gone();
}

#[test]
fn launches_and_stops_in_a_row_leave_nothing() {
    let env = TestEnv::new();
    let rounds = number("IMGBUILD_TEST_ROUNDS", 20);
    for round in 0..rounds {
        let net = if round % 2 == 0 { "user" } else { "none" };
        let fleet = Fleet::ready(&env, "round", 1, &["--net", net]);
        fleet.end();
    }
}

#[test]
fn a_supervisor_holds_two_descriptors_a_guest() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 1, &[]);
    let supervisor = fleet.supervisor();
    // A request's own go when it has been answered.
    let open = || {
        let count = || {
            fs::read_dir(format!("/proc/{supervisor}/fd"))
                .unwrap()
                .count()
        };
        (0..20).map(|_| count()).min().unwrap()
    };
    let one = open();
    run(&mut fleet.imgbuild(["scale", "5"])).succeeds();
    fleet.wait();
    assert_eq!(open(), one + 8);
    for _ in 0..5 {
        run(&mut fleet.imgbuild(["kill", "0-2"])).succeeds();
        fleet.wait();
    }
    assert_eq!(open(), one + 8);
    run(&mut fleet.imgbuild(["scale", "1"])).succeeds();
    assert_eq!(open(), one);
    fleet.end();
}
