//! Guests that are restored from a template: alike where they may be, themselves where
//! they must.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use imgbuild::guest::Phase;
use imgbuild_tests::fleet::{Fleet, all_ready, detached, kill, launch, number};
use imgbuild_tests::kex::exchange;
use imgbuild_tests::namespace::Namespace;
use imgbuild_tests::stand_in::{QEMU, find};
use imgbuild_tests::{TestEnv, finish, rights, run, start, wait_until};

/// Guests of the fleet whose clones are compared; `just soak` asks for more.
const COUNT: u32 = 50;
const GUESTS: &str = "IMGBUILD_TEST_CLONES";

/// What launch says when it takes a template.
const TAKING: &str = "taking a template";

/// The template that is kept in a test's own cache.
fn templates(env: &TestEnv) -> PathBuf {
    env.cache().join("templates")
}

/// The one template's file of this name.
fn kept(env: &TestEnv, name: &str) -> PathBuf {
    let entries = fs::read_dir(templates(env)).unwrap().flatten();
    let folders: Vec<_> = entries.filter(|entry| entry.path().is_dir()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].path().join(name)
}

/// A launch of clones that keeps templates in the test's own cache.
fn of_clones(env: &TestEnv, name: &str, count: u32) -> Command {
    let mut command = detached(env, name, count);
    env.own_cache(&mut command).args(["--start", "clone"]);
    command
}

fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// What each guest prints for a command, by SSH.
fn said(fleet: &Fleet<'_>, command: &str) -> Vec<String> {
    let count = fleet.ps().guests.len();
    let said = run(&mut fleet.imgbuild(["ssh", "--all", "--", command])).succeeds();
    let lines = said.stdout.lines().filter_map(|line| line.split_once(": "));
    let lines: Vec<_> = lines.map(|(_, line)| line.to_owned()).collect();
    assert_eq!(
        said.stderr
            .matches(&format!("{count} of {count} done"))
            .count(),
        1
    );
    lines
}

fn assert_distinct<T: Ord>(what: &str, values: impl IntoIterator<Item = T>, count: usize) {
    let values: BTreeSet<_> = values.into_iter().collect();
    assert_eq!(values.len(), count, "{what} of {count} clones");
}

#[test]
fn clones_are_themselves_and_come_back_as_clones() {
    let env = TestEnv::new();
    let count = number(GUESTS, COUNT);
    let all = usize::try_from(count).unwrap();
    let mut command = of_clones(&env, "many", count);
    if count > COUNT {
        // They would not fit otherwise.
        command.args(["--sharing", "all", "--fix"]);
    }
    run(&mut command)
        .succeeds()
        .says(&[TAKING, "restored from a template"]);
    let fleet = Fleet::of(&env, "many");
    fleet.wait();
    assert!(fleet.ps().guests.iter().all(|guest| guest.restarts == 0));

    // Random numbers, host keys and ephemeral keys of their own.
    assert_distinct(
        "random numbers",
        said(&fleet, "cat /proc/sys/kernel/random/uuid"),
        all,
    );
    let ports = fleet.spec()["ports"].as_array().unwrap().clone();
    let ports = ports
        .iter()
        .map(|port| u16::try_from(port.as_u64().unwrap()).unwrap());
    let keys: Vec<_> = ports.map(|port| exchange(port).unwrap()).collect();
    assert_distinct("host keys", keys.iter().map(|keys| &keys.host_key), all);
    assert_distinct(
        "ephemeral keys",
        keys.iter().map(|keys| &keys.ephemeral),
        all,
    );

    // Each has its own name, MAC address, and the time of day.
    let answers = said(&fleet, "status");
    assert_eq!(answers.len(), all);
    for (index, answer) in answers.iter().enumerate() {
        let id = format!("id=g{index:05} phase=ready");
        assert!(
            answer.starts_with(&id) && answer.contains("identity=applied"),
            "{answer}"
        );
        assert!(answer.contains("disk=up net=up ssh=up"), "{answer}");
    }
    let links = said(&fleet, "ifconfig").join("\n").to_lowercase();
    for index in [0, 1, count - 1] {
        let mac = format!("52:54:00:00:{:02x}:{:02x}", index >> 8, index & 0xff);
        assert!(links.contains(&mac), "{mac} is not in {links}");
    }
    let apart = clock_apart(&fleet, "g00007");
    assert!(apart.abs() <= 1.0, "{apart} s");

    // Before they write, their disks hold next to nothing.
    for index in 0..count {
        let overlay = fleet.folder().join(format!("overlays/{index:05}.qcow2"));
        let bytes = fs::metadata(&overlay).unwrap().blocks() * 512;
        assert!(
            bytes <= 16 << 10,
            "{} takes {bytes} bytes",
            overlay.display()
        );
    }

    nobody_can_change_the_template(fleet.guest(0).pid.unwrap());

    // A third killed, and the supervisor: the next one has the template from a clone
    // that lives.
    let killed: Vec<_> = (0..all).filter(|index| index % 3 == 1).collect();
    let written = fleet.ssh("g00004", ["write /disk/kept by its former life"]);
    written.succeeds();
    fleet.ssh("g00004", ["sync"]).succeeds();
    fs::remove_dir_all(templates(&env)).unwrap();
    fleet.kill_guests(&killed);
    fleet.kill_supervisor();
    let talk = fleet.talk().len();
    let mut resume = fleet.imgbuild(["launch", "--resume", "many", "--detach"]);
    run(env.own_cache(&mut resume)).succeeds();
    let back = fleet.until("all are back", all_ready);
    assert!(!fleet.talk()[talk..].contains(TAKING), "{}", fleet.talk());
    for guest in &back.guests {
        let index = usize::try_from(guest.id.get()).unwrap();
        assert_eq!(
            guest.restarts,
            u32::from(killed.contains(&index)),
            "{guest:?}"
        );
        let line = command_line(guest.pid.unwrap());
        assert!(line.contains("-incoming defer"), "{line}");
    }
    // With the disk that its former life wrote.
    let kept = fleet.ssh("g00004", ["cat /disk/kept"]);
    assert_eq!(kept.stdout.trim(), "by its former life", "{kept:?}");
    let again = said(&fleet, "status");
    assert_eq!(again.len(), all);

    leaves_its_disk_clean(&env, &fleet, 4);
    fleet.end();
}

/// By how many seconds a guest's clock is ahead of this host's.
fn clock_apart(fleet: &Fleet<'_>, guest: &str) -> f64 {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
    };
    let before = now();
    let read = fleet.ssh(guest, ["cat /proc/stat /proc/uptime"]);
    let after = now();
    let field =
        |line: &str, at: usize| -> f64 { line.split(' ').nth(at).unwrap().parse().unwrap() };
    let mut lines = read.stdout.lines();
    let boot = field(lines.find(|line| line.starts_with("btime ")).unwrap(), 1);
    let guest = boot + field(lines.next_back().unwrap(), 0);
    // btime is in whole seconds.
    if guest + 1.0 < before {
        guest - before
    } else if guest > after {
        guest - after
    } else {
        0.0
    }
}

/// Not even root can, and so no guest's user.
fn nobody_can_change_the_template(pid: u32) {
    let held = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let held = held.map(|entry| entry.path()).filter(|path| {
        fs::read_link(path).is_ok_and(|file| file.to_string_lossy().starts_with("/memfd:imgbuild"))
    });
    let mut seen = 0;
    for path in held {
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        assert!(file.write_all(b"x").is_err(), "{}", path.display());
        assert!(file.set_len(0).is_err());
        seen += 1;
    }
    assert!(seen >= 2, "RAM and state");
}

/// Powers a guest off, and has its file system checked.
fn leaves_its_disk_clean(env: &TestEnv, fleet: &Fleet<'_>, index: usize) {
    let id = format!("g{index:05}");
    run(&mut fleet.imgbuild(["stop", &id])).succeeds();
    fleet.until("it is down", |fleet| {
        fleet.guests[index].state == Phase::Exited
    });
    let overlay = fleet.folder().join(format!("overlays/{index:05}.qcow2"));
    let _ = env.clean_disk(&overlay);
}

#[test]
fn a_clone_has_the_hosts_time_however_old_its_template_is() {
    let env = TestEnv::new();
    // Its template's clock is an hour late, as if it had been taken then.
    let real = find(QEMU).display().to_string();
    let hour_ago = "date -u -d '1 hour ago' +%Y-%m-%dT%H:%M:%S";
    env.stand_in(
        QEMU,
        &format!(
            "case \"$*\" in *tty.poise*) exec {real} \"$@\" -rtc base=$({hour_ago}) ;; esac\n\
             exec {real} \"$@\""
        ),
    );
    let qemu = env.stand_ins().join(QEMU);
    let mut command = of_clones(&env, "late", 2);
    run(command.arg("--qemu").arg(qemu)).succeeds();
    let fleet = Fleet::of(&env, "late");
    fleet.wait();
    for guest in ["g00000", "g00001"] {
        let apart = clock_apart(&fleet, guest);
        assert!(apart.abs() <= 1.0, "{apart} s");
    }
    // What a guest counts begins with the clone: its template took longer.
    let log = run(&mut fleet.imgbuild(["logs", "g00000"]))
        .succeeds()
        .stdout;
    let ready = log.lines().find(|line| line.contains("\"ready\"")).unwrap();
    assert!(ready.contains("\"seq\":0,"), "{ready}");
    fleet.end();
}

#[test]
fn a_template_that_was_damaged_is_taken_again_and_fleets_at_once_take_one() {
    let env = TestEnv::new();
    let launched =
        [of_clones(&env, "a", 1), of_clones(&env, "b", 1)].map(|mut one| start(&mut one));
    let said = launched.map(|one| finish(one).succeeds().stderr);
    let taken = said.iter().filter(|said| said.contains(TAKING));
    assert_eq!(taken.count(), 1, "{said:?}");
    for name in ["a", "b"] {
        let fleet = Fleet::of(&env, name);
        fleet.wait();
        run(&mut fleet.imgbuild(["stop", "--all"])).succeeds();
    }

    let launch = |changed: bool| {
        let launched = run(&mut of_clones(&env, "c", 1)).succeeds();
        assert_eq!(launched.stderr.contains(TAKING), changed, "{launched:?}");
        assert_eq!(
            launched.stderr.contains("is damaged"),
            changed,
            "{launched:?}"
        );
        let fleet = Fleet::of(&env, "c");
        fleet.wait();
        run(&mut fleet.imgbuild(["stop", "--all"])).succeeds();
    };
    launch(false);
    let memory = kept(&env, "memory");
    assert_eq!(fs::metadata(&memory).unwrap().mode() & 0o777, 0o600);
    File::options()
        .write(true)
        .open(&memory)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    launch(true);
    let mut state = File::options()
        .append(true)
        .open(kept(&env, "state"))
        .unwrap();
    state.write_all(b"more").unwrap();
    launch(true);

    // Another QEMU is another machine.
    env.stand_in(QEMU, &format!("exec {} \"$@\"", find(QEMU).display()));
    let mut other = of_clones(&env, "c", 1);
    run(other.arg("--qemu").arg(env.stand_ins().join(QEMU)))
        .succeeds()
        .says(&[TAKING]);
    Fleet::of(&env, "c").end();
}

#[test]
fn a_template_that_cannot_be_had_ends_a_launch_that_asks_for_one() {
    let env = TestEnv::new();
    let failed = |launch: &mut Command, says: &[&str]| {
        run(launch).exits(1).says(says).says(&["--start boot"]);
        assert!(!env.fleets().join("none").exists());
        env.assert_no_process_left();
    };
    // Its process is killed.
    let taking = start(&mut of_clones(&env, "none", 1));
    wait_until("its template boots", || !env.guests().is_empty());
    kill(env.guests()[0]);
    finish(taking)
        .exits(1)
        .says(&["did not become poised", "--start boot"]);
    env.assert_no_process_left();

    // There is no memory for it.
    let mut limited = env.command("env");
    limited.args(["--ignore-signal=XFSZ", "prlimit", "--fsize=33554432"]);
    let command = of_clones(&env, "none", 1);
    limited.arg(command.get_program()).args(command.get_args());
    failed(
        env.own_cache(&mut limited),
        &["in memory", "File too large"],
    );

    // Who did not ask for one gets guests that boot.
    let mut command = launch(&env, "some", 4);
    let mut limited = env.command("env");
    limited.args(["--ignore-signal=XFSZ", "prlimit", "--fsize=33554432"]);
    command.arg("--detach");
    limited.arg(command.get_program()).args(command.get_args());
    run(env.own_cache(&mut limited).env_remove("IMGBUILD_START"))
        .succeeds()
        .says(&["guests boot, because there is no template"]);
    let fleet = Fleet::of(&env, "some");
    fleet.wait();
    assert!(!command_line(fleet.guest(0).pid.unwrap()).contains("-incoming"));
    fleet.end();
}

#[test]
fn guests_are_clones_by_themselves_where_that_pays() {
    let env = TestEnv::new();
    let boots = "guests boot: ";
    for (count, sharing, says, incoming) in [
        (
            3,
            "guest",
            [boots, "a template pays from 4 guests on"],
            false,
        ),
        (4, "none", [boots, "no page in common"], false),
        (4, "guest", [TAKING, "restored from a template"], true),
    ] {
        let mut launch = detached(&env, "few", count);
        env.own_cache(&mut launch).env_remove("IMGBUILD_START");
        run(launch.args(["--sharing", sharing]))
            .succeeds()
            .says(&says);
        let fleet = Fleet::of(&env, "few");
        fleet.wait();
        let line = command_line(fleet.guest(1).pid.unwrap());
        assert_eq!(line.contains("-incoming"), incoming, "{line}");
        fleet.end();
    }
}

#[test]
fn clones_need_neither_ksm_nor_root() {
    if !rights::may_mount() {
        return;
    }
    let env = TestEnv::new();
    let namespace = Namespace::mounting("mount -t tmpfs none /sys/kernel/mm");
    let mut command = of_clones(&env, "plain", 2);
    run(&mut namespace.within(command.args(["--sharing", "none", "--run-as-base", "0"])))
        .succeeds();
    let fleet = Fleet::of(&env, "plain");
    fleet.wait();
    assert!(command_line(fleet.guest(1).pid.unwrap()).contains("-incoming defer"));
    fleet.end();
}
