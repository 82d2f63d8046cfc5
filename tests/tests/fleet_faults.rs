//! Fleets with guests that end, hang and flood, on hosts that lack something:
//! what became of each is reported, and the others go on.
//!
//! Jumps of the host's clock are tested in a guest, by `soak`: no namespace has
//! a wall clock of its own (time_namespaces(7)), and that of the host is not a
//! test's to set.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::Duration;

use imgbuild::control::types::{self, Stage};
use imgbuild::guest::{Desired, GIVE_UP, Phase};
use imgbuild::placement::PlacementSpec;
use imgbuild::placement::cgroup::FleetCgroup;
use imgbuild::store::orphans;
use imgbuild::units::ByteSize;
use imgbuild::units::Instance;
use imgbuild_tests::fleet::{Fleet, all_ready, detached, folder, kill, launch, signal, with_shell};
use imgbuild_tests::stand_in::{QEMU, find};
use imgbuild_tests::{Finished, TestEnv, finish, rights, run, start, wait_until};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::json;

/// Ticks of the clock by which processes' starts are counted, in a second: the
/// kernel's USER_HZ on x86 (proc_pid_stat(5), field 22).
const TICKS: u64 = 100;
/// Longest line of a console that imgbuild keeps, in bytes.
const LINE_MAX: usize = 4096;

fn reason(fleet: &types::Fleet, index: usize) -> &str {
    fleet.guests[index].reason.as_deref().unwrap_or_default()
}

fn state(fleet: &types::Fleet, index: usize) -> (Phase, u32) {
    let guest = &fleet.guests[index];
    (guest.state, guest.restarts)
}

#[test]
fn guests_that_end_are_replaced_as_the_policy_says() {
    let env = TestEnv::new();
    for (policy, powered_off, panicked) in [
        ("always", (Phase::Ready, 1), (Phase::Ready, 1)),
        ("on-failure", (Phase::Exited, 0), (Phase::Ready, 1)),
        ("never", (Phase::Exited, 0), (Phase::Failed, 0)),
    ] {
        let fleet = Fleet::ready(&env, "f", 4, &["--restart", policy]);
        fleet.ssh("g00000", ["poweroff"]);
        fleet.ssh("g00001", ["write", "/proc/sysrq-trigger", "c"]);
        fleet.kill_guests(&[2]);
        let after = fleet.until("each is where the policy has it", |fleet| {
            state(fleet, 0) == powered_off
                && state(fleet, 1) == panicked
                && state(fleet, 2) == panicked
        });
        assert_eq!(state(&after, 3), (Phase::Ready, 0), "{policy}");
        for (index, said) in [
            (0, "powered off by itself"),
            (1, "kernel panic: sysrq triggered crash"),
            (2, "QEMU ended (signal: 9)"),
        ] {
            let reason = reason(&after, index);
            assert!(reason.starts_with(said), "{policy}: {reason}");
        }

        // What the user wants comes before the policy.
        run(&mut fleet.imgbuild(["stop", "g00003"])).succeeds();
        run(&mut fleet.imgbuild(["restart", "0-2"])).succeeds();
        fleet.wait();
        let after = fleet.ps();
        assert_eq!(after.guests[3].desired, Desired::Down);
        assert_eq!(after.guests[3].state, Phase::Exited);
        assert_eq!(after.counts[&Phase::Ready], 3);
        run(&mut fleet.imgbuild(["kill", "g00003"]))
            .exits(1)
            .says(&["g00003: it is not running: its state is exited"]);
        run(&mut fleet.imgbuild(["stop", "g00003", "g00009"])).exits(2);
        fleet.end();
    }
}

#[test]
fn a_fleet_whose_guests_have_all_ended_is_over() {
    let env = TestEnv::new();
    let launch = start(launch(&env, "f", 2).args(["--restart", "never", "--json"]));
    wait_until("it is launched", || {
        folder(&env, "f").join("spec.json").exists()
    });
    let fleet = Fleet::of(&env, "f");
    wait_until("it is supervised", || {
        env.path().join("run/imgbuild/f/control").exists()
    });
    fleet.wait();
    fleet.ssh("g00000", ["poweroff"]);
    fleet.ssh("g00001", ["poweroff"]);
    let events = finish(launch).exits(4).json_lines();
    let summary = events.last().unwrap();
    assert_eq!([&summary["exited"], &summary["ready"]], [2, 0]);
    assert_eq!(summary["ending"], "empty");
    fleet.assert_gone();
}

#[test]
fn guests_that_never_get_ready_are_given_up() {
    let env = TestEnv::new();
    // They speak and never get ready.
    let out = env.changed_artifacts(&[
        ("[kernel]", "[kernel]\ncommand_line = \"tty.park\""),
        ("[guest]", "[guest]\nboot_timeout = \"4s\""),
    ]);
    let mut launch = env.imgbuild(["launch", "--count", "2", "--accel", "tcg"]);
    // A clone of such a guest would: it is told who it is.
    launch.args(["--start", "boot"]);
    launch.args(["--no-canary", "--json"]).arg(&out);
    let events = run(&mut launch).exits(1).json_lines();
    for guest in ["g00000", "g00001"] {
        let states: Vec<_> = events
            .iter()
            .filter(|event| event["id"] == guest)
            .map(|event| event["state"].as_str().unwrap())
            .collect();
        let count = |wanted: &str| states.iter().filter(|state| **state == wanted).count();
        assert_eq!(count("starting"), 5, "{states:?}");
        assert_eq!(count("restarting"), 4, "{states:?}");
        assert_eq!(states.last(), Some(&"failed"));
        let failed = events
            .iter()
            .find(|event| event["id"] == guest && event["state"] == "failed");
        let reason = failed.unwrap()["reason"].as_str().unwrap();
        // A host that has much else to do does not let it speak, and gives it
        // more time.
        let told = ["not ready after ", "said nothing for "];
        assert!(told.iter().any(|told| reason.starts_with(told)), "{reason}");
    }
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

/// A QEMU that does not start these guests, and all others.
fn qemu_refuses(env: &TestEnv, guests: &str) {
    let real = find(QEMU);
    let script = format!(
        "case \"$*\" in *'-name '{guests}*) echo 'no such luck' >&2; exit 7 ;; esac\n\
         exec {} \"$@\"",
        real.display()
    );
    env.stand_in(QEMU, &script);
}

/// A launch with the stand-ins on its PATH, which every user may run.
fn with_stand_ins(env: &TestEnv, command: &mut Command) {
    fs::set_permissions(env.path(), fs::Permissions::from_mode(0o755)).unwrap();
    command.env("PATH", env.path_with_stand_ins());
}

#[test]
fn a_qemu_that_does_not_start_costs_its_guest_alone() {
    let env = TestEnv::new();
    qemu_refuses(&env, "g00001");
    let mut command = detached(&env, "f", 3);
    with_stand_ins(&env, &mut command);
    run(&mut command).succeeds();
    let fleet = Fleet::of(&env, "f");
    run(&mut fleet.imgbuild(["wait", "--ready", "--timeout", "250s"]))
        .exits(4)
        .says(&[
            "not all guests can become ready: ",
            "1 failed",
            "imgbuild ps",
        ]);
    let after = fleet.ps();
    assert_eq!(state(&after, 1), (Phase::Failed, 4));
    let why = "QEMU ended (exit status: 7); last line: no such luck";
    assert_eq!(reason(&after, 1), why);
    run(&mut fleet.imgbuild(["logs", "g00001", "--vmm"]))
        .succeeds()
        .shows(&["no such luck"]);
    fleet.until("the others are ready", |fleet| {
        fleet.counts[&Phase::Failed] == 1 && fleet.counts.get(&Phase::Ready) == Some(&2)
    });

    // Mended, it comes up; broken after that, no guest comes back.
    qemu_refuses(&env, "none");
    run(&mut fleet.imgbuild(["restart", "g00001"])).succeeds();
    fleet.wait();
    qemu_refuses(&env, "g");
    fleet.kill_guests(&[0]);
    let after = fleet.until("it is given up", |fleet| state(fleet, 0).0 == Phase::Failed);
    assert_eq!(reason(&after, 0), why);
    assert_eq!(after.counts[&Phase::Ready], 2);
    fleet.end();
}

#[test]
fn part_of_a_fleet_is_reported_by_the_exit_code() {
    let env = TestEnv::new();
    for (refused, code) in [("g00001", 4), ("g", 1), ("none", 0)] {
        qemu_refuses(&env, refused);
        let mut command = launch(&env, "f", 2);
        with_stand_ins(&env, &mut command);
        run(command.args(["--for", "3s"])).exits(code);
    }
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

#[test]
fn a_stopped_qemu_is_reported_and_not_replaced() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &["--health", "1s"]);
    let before = fleet.guest(0).pid.unwrap();
    signal(before, Signal::STOP);
    let after = fleet.until("it is late", |fleet| {
        state(fleet, 0).0 == Phase::Unresponsive
    });
    assert_eq!(reason(&after, 0), "its QEMU is stopped by a signal");
    // Longer than another answer may take.
    sleep(Duration::from_secs(15));
    let after = fleet.ps();
    assert_eq!(after.guests[0].pid, Some(before));
    assert_eq!(state(&after, 0), (Phase::Unresponsive, 0));
    assert_eq!(state(&after, 1), (Phase::Ready, 0));
    signal(before, Signal::CONT);
    let after = fleet.until("it answers", all_ready);
    assert_eq!(after.guests[0].pid, Some(before));
    assert_eq!(after.guests[0].restarts, 0);
    assert_eq!(after.guests[0].unresponsive, 1);
    assert_eq!(after.guests[0].reason, None);

    // One that is stopped ends all the same, by force.
    signal(before, Signal::STOP);
    run(&mut fleet.imgbuild(["stop", "g00000", "--grace", "1s"])).succeeds();
    assert_eq!(state(&fleet.ps(), 0), (Phase::Exited, 0));
    fleet.end();
}

#[test]
fn a_qemu_that_is_stopped_while_it_boots_is_reported_and_not_replaced() {
    let env = TestEnv::new();
    let artifacts = env.changed_artifacts(&[("[guest]", "[guest]\nboot_timeout = \"5s\"")]);
    let real = find(QEMU);
    let script = format!(
        "case \"$*\" in *'-name g00001'*) kill -STOP $$ ;; esac\nexec {} \"$@\"",
        real.display()
    );
    env.stand_in(QEMU, &script);
    let mut command = env.imgbuild(["launch", "--accel", "tcg", "--no-canary", "--detach"]);
    with_stand_ins(&env, command.args(["--name", "f", "--count", "2"]));
    run(command.arg(&artifacts)).succeeds();
    let fleet = Fleet::of(&env, "f");
    let told = fleet.until("it is reported", |fleet| !reason(fleet, 1).is_empty());
    assert_eq!(reason(&told, 1), "its QEMU is stopped by a signal");
    // Longer than it may take to boot once more.
    sleep(Duration::from_secs(6));
    let after = fleet.ps();
    // A clone is stopped before it is restored.
    assert!(matches!(
        state(&after, 1),
        (Phase::Starting | Phase::Restoring, 0)
    ));
    assert_eq!(after.guests[1].pid, told.guests[1].pid);
    signal(after.guests[1].pid.unwrap(), Signal::CONT);
    let after = fleet.until("it is ready", all_ready);
    assert_eq!(after.guests[1].pid, told.guests[1].pid);
    assert_eq!(state(&after, 1), (Phase::Ready, 0));
    assert_eq!(after.guests[1].reason, None);
    fleet.end();
}

/// Has processes in this control group take all memory until they are killed.
/// Guests go first: each of these takes less than what is added to their scores.
fn runs_out_of_memory(group: &str) {
    let script = "for procs in $(find /sys/fs/cgroup -path \"*/$1/*\" -name cgroup.procs); do
            # Where a group of version 2 has children, it takes nobody.
            echo $$ >$procs || true
        done
        for hog in 1 2 3 4; do tail </dev/zero & done
        wait";
    let mut hogs = Command::new("sh");
    hogs.args(["-c", script, "sh", group]).status().unwrap();
}

#[test]
fn only_guests_that_the_oom_killer_ended_are_reported_so() {
    if !rights::is_root("make control groups") {
        return;
    }
    let env = TestEnv::new();
    let limits = ["--restart", "never", "--memory-max", "768M"];
    let fleet = Fleet::ready(&env, "f", 3, &limits);

    // Somebody else's, and a guest that ends by another hand after it.
    let name = format!("imgbuild-elsewhere-{}", std::process::id());
    let limit = PlacementSpec {
        memory_max: ByteSize::new(16 << 20),
        ..PlacementSpec::default()
    };
    let elsewhere = FleetCgroup::create(Path::new("/"), &name, &limit);
    let elsewhere = elsewhere.unwrap().unwrap();
    runs_out_of_memory(&name);
    assert!(elsewhere.oom_kills() >= Some(1));
    elsewhere.remove().unwrap();
    fleet.kill_guests(&[0]);
    let after = fleet.until("it failed", |fleet| state(fleet, 0) == (Phase::Failed, 0));
    let why = reason(&after, 0);
    assert!(why.starts_with("QEMU ended (signal: 9)"), "{why}");

    let spec = fleet.spec();
    runs_out_of_memory(&format!(
        "imgbuild-f-{}",
        spec["instance"].as_str().unwrap()
    ));
    let after = fleet.until("none lives", |fleet| fleet.counts[&Phase::Failed] == 3);
    for index in [1, 2] {
        let why = reason(&after, index);
        assert!(why.starts_with("QEMU was ended by the OOM killer"), "{why}");
    }
    fleet.end();
}

fn port(fleet: &types::Fleet, index: usize) -> u16 {
    let address = fleet.guests[index].ssh.as_ref().unwrap();
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn a_port_that_is_taken_is_passed_over_or_replaced() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    let first = port(&fleet.ps(), 0);
    fleet.end();
    let taken = TcpListener::bind(("127.0.0.1", first)).unwrap();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    let ports = [0, 1].map(|index| port(&fleet.ps(), index));
    assert!(!ports.contains(&first), "{first} is among {ports:?}");
    drop(taken);

    // Taken while its guest is down.
    run(&mut fleet.imgbuild(["stop", "g00000"])).succeeds();
    let taken = TcpListener::bind(("127.0.0.1", ports[0])).unwrap();
    let restart = start(&mut fleet.imgbuild(["restart", "g00000"]));
    let said = format!(
        "the host keeps it from starting: qemu-system-x86_64: -netdev user,id=net,restrict=on,\
         hostfwd=tcp:127.0.0.1:{}-:22: Could not set up host forwarding rule",
        ports[0]
    );
    fleet.until("it is reported", |fleet| {
        reason(fleet, 0).starts_with(&said)
    });
    finish(restart).succeeds();
    fleet.wait();
    let after = fleet.ps();
    let another = port(&after, 0);
    assert!(!ports.contains(&another), "{another} is among {ports:?}");
    assert_eq!(state(&after, 0), (Phase::Ready, 1));
    assert_eq!(after.guests[0].reason, None);
    assert_eq!(state(&after, 1), (Phase::Ready, 0));
    assert_eq!(port(&after, 1), ports[1]);
    assert_eq!(fleet.spec()["ports"], json!([another, ports[1]]));
    fleet
        .ssh("g00000", ["status"])
        .succeeds()
        .shows(&["id=g00000"]);
    drop(taken);
    fleet.end();
}

/// Lets a process start so many others under the user id of a guest.
fn limit_processes(supervisor: u32, most: u64) {
    let pid = Pid::from_raw(supervisor.cast_signed());
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    prlimit(pid, Resource::Nproc, limit).unwrap();
}

#[test]
fn a_host_that_is_short_of_something_costs_no_guest() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    // Its QEMU gets a thread less than it takes.
    limit_processes(fleet.supervisor(), 2);
    fleet.kill_guests(&[0]);
    let tries = || {
        let talk = fleet.talk();
        let starts = ["g00000 is starting", "g00000 is restoring"];
        let starts = starts.map(|start| talk.matches(start).count());
        starts.iter().sum::<usize>()
    };
    // More often than one that ends for its own reasons.
    wait_until("the fleet keeps trying", || tries() > GIVE_UP as usize);
    let is_told = |said: &str| {
        said.starts_with("the host keeps it from starting: ")
            && said.contains("Resource temporarily unavailable")
    };
    let during = fleet.until("it waits", |fleet| {
        state(fleet, 0) == (Phase::Restarting, 0)
    });
    assert!(is_told(reason(&during, 0)), "{}", reason(&during, 0));
    assert!(during.held_back.as_deref().is_some_and(is_told));
    assert_eq!(state(&during, 1), (Phase::Ready, 0));
    run(&mut fleet.imgbuild(["restart", "g00000"]))
        .exits(1)
        .says(&[
            "g00000: the host keeps it from starting: ",
            "the fleet keeps trying",
        ]);
    run(&mut fleet.imgbuild(["scale", "3"])).succeeds();
    let during = fleet.until("the third waits", |fleet| {
        state(fleet, 2) == (Phase::Planned, 0) && is_told(reason(fleet, 2))
    });
    assert_eq!(during.counts.get(&Phase::Failed), None);

    // What came to nothing is none of their restarts, to the next supervisor too.
    fleet.kill_supervisor();
    fleet.resume().succeeds();
    fleet.wait();
    let after = fleet.ps();
    assert_eq!(state(&after, 0), (Phase::Ready, 1));
    assert_eq!(state(&after, 2), (Phase::Ready, 0));
    assert_eq!(after.held_back, None);
    fleet.end();
}

#[test]
fn a_supervisor_s_log_is_kept_in_bounds() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 1, &[]);
    let log = fleet.folder().join("supervisor.log");
    let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all(&vec![b'\n'; 4 << 20]).unwrap();
    fleet.kill_guests(&[0]);
    fleet.until("it is started again", |fleet| {
        state(fleet, 0) == (Phase::Ready, 1)
    });
    let aside = fs::metadata(log.with_extension("log.1")).unwrap();
    assert!(aside.len() >= 4 << 20, "{} bytes", aside.len());
    assert!(fs::metadata(&log).unwrap().len() < 1 << 20);
    assert!(fleet.talk().contains("g00000 is ready"), "{}", fleet.talk());
    fleet.end();
}

/// A guest's monitor, as a user would reach it.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn path(env: &TestEnv, guest: &str) -> PathBuf {
        env.path()
            .join("run/imgbuild/f")
            .join(guest)
            .with_extension("qmp")
    }

    fn connect(env: &TestEnv, guest: &str) -> Self {
        let stream = UnixStream::connect(Self::path(env, guest)).unwrap();
        let mut monitor = Self(BufReader::new(stream));
        let mut greeting = String::new();
        monitor.0.read_line(&mut greeting).unwrap();
        assert!(greeting.starts_with("{\"QMP\""), "{greeting}");
        monitor.does("qmp_capabilities");
        monitor
    }

    fn does(&mut self, command: &str) {
        writeln!(self.0.get_mut(), "{{\"execute\":\"{command}\"}}").unwrap();
        let mut answer = String::new();
        while !answer.starts_with("{\"return\"") {
            answer.clear();
            self.0.read_line(&mut answer).unwrap();
        }
    }
}

#[test]
fn a_paused_guest_is_reported_and_what_its_monitor_says_is_not_believed() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 3, &["--health", "1s"]);
    let before = fleet.ps();
    for guest in ["g00000", "g00001"] {
        Monitor::connect(&env, guest).does("stop");
    }
    // As from somebody who broke out of the second.
    let path = Monitor::path(&env, "g00001");
    fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            while stream.write_all(&[b'['; 4096]).is_ok() {}
        }
    });
    // What cannot be asked, and looks as if it hung, is replaced.
    let after = fleet.until("it is replaced", |fleet| {
        state(fleet, 1) == (Phase::Ready, 1)
    });
    assert!(
        fleet.talk().contains("g00001: its monitor sent more than"),
        "{}",
        fleet.talk()
    );
    assert_eq!(
        reason(&after, 0),
        "somebody paused it through QEMU's monitor"
    );
    assert_eq!(state(&after, 0), (Phase::Unresponsive, 0));
    assert_eq!(state(&after, 2), (Phase::Ready, 0));
    Monitor::connect(&env, "g00000").does("cont");
    let after = fleet.until("it answers", all_ready);
    assert_eq!(after.guests[0].pid, before.guests[0].pid);
    assert_eq!(after.guests[0].restarts, 0);
    fleet.end();
}

/// A small file system where fleets have their folders.
struct Small(PathBuf);

impl Small {
    fn mount(env: &TestEnv) -> Self {
        let path = env.path().join("state");
        let mut mount = env.command("mount");
        run(mount
            .args(["-t", "tmpfs", "-o", "size=16M", "small"])
            .arg(&path))
        .succeeds();
        Self(path)
    }

    fn fill(&self) {
        let mut ballast = fs::File::create(self.0.join("ballast")).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .args(["--lazy"])
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_full_disk_costs_no_guest() {
    if !rights::may_mount() {
        return;
    }
    let env = TestEnv::new();
    let small = Small::mount(&env);
    let fleet = Fleet::ready(&env, "f", 3, &[]);
    let before = fleet.ps();
    small.fill();
    // Until there is no room in the journal's last page either.
    let stop = || run(&mut fleet.imgbuild(["stop", "g00002"]));
    while stop().code() == 0 {}
    // What could not be made to last is not done.
    run(&mut fleet.imgbuild(["stop", "g00000"]))
        .exits(1)
        .says(&[
            "g00000: cannot write the journal",
            "No space left on device",
        ]);
    run(&mut fleet.imgbuild(["scale", "4"]))
        .exits(1)
        .says(&["No space left on device"]);
    run(&mut fleet.imgbuild(["scale", "1"]))
        .exits(1)
        .says(&["No space left on device"]);
    let during = fleet.ps();
    assert_eq!(during.wanted, 3);
    for index in [0, 1] {
        assert_eq!(state(&during, index), (Phase::Ready, 0));
        assert_eq!(during.guests[index].pid, before.guests[index].pid);
    }
    fleet
        .ssh("g00000", ["echo", "here"])
        .succeeds()
        .shows(&["here"]);
    // A guest's next start needs room.
    run(&mut fleet.imgbuild(["kill", "g00001"])).succeeds();
    let held = fleet.until("it waits", |fleet| {
        state(fleet, 1).0 == Phase::Restarting && fleet.held_back.is_some()
    });
    for said in [reason(&held, 1), held.held_back.as_deref().unwrap()] {
        assert!(
            said.starts_with("the host keeps it from starting: "),
            "{said}"
        );
        assert!(said.contains("No space left on device"), "{said}");
    }

    small.free();
    fleet.wait();
    fleet.ssh("g00001", ["status"]).succeeds();
    run(&mut fleet.imgbuild(["scale", "4"])).succeeds();
    fleet.wait();
    run(&mut fleet.imgbuild(["stop", "g00000"])).succeeds();
    fleet.kill_supervisor();
    fleet.resume().succeeds();
    fleet.wait();
    assert_eq!(fleet.guest(0).state, Phase::Exited);
    run(&mut fleet.imgbuild(["stop", "--all"])).succeeds();
    fleet.assert_nothing_left();
}

#[test]
fn a_guest_that_finds_the_disk_full_goes_on_once_there_is_room() {
    if !rights::may_mount() {
        return;
    }
    let env = TestEnv::new();
    let out = with_shell(&env);
    let small = Small::mount(&env);
    let mut command = env.imgbuild(["launch", "--accel", "tcg", "--no-canary", "--detach"]);
    command.args(["--name", "f", "--count", "2", "--health", "1s"]);
    run(command.arg(out)).succeeds();
    let fleet = Fleet::of(&env, "f");
    fleet.wait();
    let before = fleet.ps();
    small.fill();
    let write = "head -c 4m /dev/urandom > /file && busybox sync && echo written";
    let mut writing = fleet.imgbuild(["ssh", "g00000", "--", write]);
    let writing = start(&mut writing);
    let during = fleet.until("QEMU pauses it", |fleet| {
        reason(fleet, 0).starts_with("QEMU paused it, because its disk could not be written")
    });
    assert_eq!(state(&during, 0), (Phase::Unresponsive, 0));
    assert_eq!(state(&during, 1), (Phase::Ready, 0));
    small.free();
    finish(writing).succeeds().shows(&["written"]);
    let after = fleet.until("it answers", all_ready);
    assert_eq!(after.guests[0].pid, before.guests[0].pid);
    assert_eq!(after.guests[0].restarts, 0);
    fleet.end();
}

#[test]
fn an_interrupt_during_the_start_leaves_nothing() {
    let env = TestEnv::new();
    let command = start(launch(&env, "f", 20).args(["--rate", "2"]));
    wait_until("some guests live", || env.guests().len() > 2);
    let fleet = Fleet::of(&env, "f");
    kill_process(Pid::from_child(&command), Signal::INT).unwrap();
    finish(command).exits(130);
    fleet.assert_gone();

    let fleet = Fleet::launch(&env, "f", 20, &["--rate", "2"]);
    signal(fleet.supervisor(), Signal::TERM);
    wait_until("it is gone", || !fleet.folder().exists());
    fleet.assert_gone();

    let fleet = Fleet::launch(&env, "f", 20, &["--rate", "2"]);
    fleet.end();
}

#[test]
fn one_of_two_launches_of_one_name_wins() {
    let env = TestEnv::new();
    let _ = env.artifacts("tty-idle");
    for _ in 0..3 {
        let both = [(); 2].map(|()| start(&mut detached(&env, "f", 1)));
        let both = both.map(finish);
        let mut codes = both.each_ref().map(Finished::code);
        codes.sort_unstable();
        assert_eq!(codes, [0, 1], "{both:?}");
        for finished in both {
            if finished.code() == 1 {
                let _ = finished.says(&["a fleet named f "]);
            }
        }
        let fleet = Fleet::of(&env, "f");
        fleet.wait();
        assert_eq!(env.guests().len(), 1);
        fleet.end();
    }
}

#[test]
fn guests_are_stopped_while_others_start() {
    let env = TestEnv::new();
    let fleet = Fleet::launch(&env, "f", 4, &["--rate", "0.5"]);
    assert_eq!(fleet.guest(3).state, Phase::Planned);
    run(&mut fleet.imgbuild(["stop", "g00003"])).succeeds();
    run(&mut fleet.imgbuild(["stop", "g00000"])).succeeds();
    fleet.wait();
    let after = fleet.ps();
    assert_eq!(
        after
            .guests
            .iter()
            .map(|guest| guest.state)
            .collect::<Vec<_>>(),
        [Phase::Exited, Phase::Ready, Phase::Ready, Phase::Exited]
    );
    assert_eq!(reason(&after, 3), "stopped on request");
    run(&mut fleet.imgbuild(["restart", "g00003"])).succeeds();
    fleet.wait();
    assert_eq!(state(&fleet.ps(), 3).0, Phase::Ready);
    fleet.end();
}

#[test]
fn fleets_side_by_side_are_told_apart() {
    let env = TestEnv::new();
    let one = Fleet::ready(&env, "one", 1, &[]);
    let two = Fleet::ready(&env, "two", 1, &[]);
    for verb in [
        &["ps"][..],
        &["stop", "--all"],
        &["wait", "--ready"],
        &["ssh", "g00000", "--", "status"],
    ] {
        run(&mut env.imgbuild(verb))
            .exits(2)
            .says(&["several fleets: one, two", "--fleet"]);
    }
    let before = two.ps();
    assert_ne!(port(&one.ps(), 0), port(&before, 0));
    run(&mut one.imgbuild(["stop", "--all"])).succeeds();
    one.assert_nothing_left();
    let after = two.ps();
    assert_eq!(after.guests[0].pid, before.guests[0].pid);
    run(&mut env.imgbuild(["ps"])).succeeds().shows(&["two"]);
    two.end();
}

#[test]
fn a_stranger_s_process_that_names_a_guest_is_neither_counted_nor_ended() {
    if !rights::is_root("start a process of another user's") {
        return;
    }
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 1, &[]);
    let instance = fleet.spec()["instance"].as_str().unwrap().to_owned();
    let uuid = Instance::try_from(instance).unwrap().uuid(0);
    let mut stranger = Command::new("sh")
        .args(["-c", "read line; read line", "sh", "-uuid", &uuid])
        .stdin(Stdio::piped())
        .uid(1_967_999)
        .spawn()
        .unwrap();
    let guest = fleet.guest(0).pid;
    fleet.kill_supervisor();
    assert_eq!(fleet.guest(0).pid, guest);
    fleet.resume().succeeds();
    fleet.wait();
    assert_eq!(fleet.guest(0).pid, guest);
    assert!(!fleet.talk().contains("is killed"), "{}", fleet.talk());
    let guest = guest.unwrap();
    fleet.kill_supervisor();
    kill(guest);
    wait_until("its guest is gone", || {
        !Path::new(&format!("/proc/{guest}")).exists()
    });
    run(&mut fleet.imgbuild(["rm", "f"])).succeeds();
    assert_eq!(stranger.try_wait().unwrap(), None);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    fleet.assert_gone();
}

/// Bytes of memory that a process has.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.unwrap().trim_end_matches("kB").trim();
    kibibytes.parse::<u64>().unwrap() << 10
}

/// Puts the question `status` on a guest's console.
fn status_on_console(env: &TestEnv, fleet: &Fleet<'_>, guest: &str) -> Finished {
    let question = env.path().join("question");
    fs::write(&question, "status\n").unwrap();
    let mut ask = fleet.imgbuild(["console", guest]);
    run(ask.stdin(fs::File::open(question).unwrap()))
}

#[test]
fn consoles_that_flood_are_kept_in_bounds() {
    let env = TestEnv::new();
    let out = with_shell(&env);
    let mut command = env.imgbuild(["launch", "--accel", "tcg", "--no-canary", "--detach"]);
    command.args(["--name", "f", "--count", "3", "--health", "2s"]);
    run(command.arg(out)).succeeds();
    let fleet = Fleet::of(&env, "f");
    fleet.wait();
    for guest in ["g00000", "g00001", "g00002"] {
        fleet.ssh(guest, ["burn", "0"]);
    }
    let supervisor = fleet.supervisor();
    let before = resident(supervisor);
    let lines = "yes a line that comes again and again > /dev/ttyS0";
    let lines = start(&mut fleet.imgbuild(["ssh", "g00000", "--", lines]));
    let endless = "head -c 6m /dev/zero | tr '\\0' x > /dev/ttyS0";
    let endless = start(&mut fleet.imgbuild(["ssh", "g00001", "--", endless]));
    let older = fleet.folder().join("logs/g00000.log.1");
    wait_until("a log is full", || older.exists());
    for _ in 0..3 {
        status_on_console(&env, &fleet, "g00002")
            .succeeds()
            .shows(&["id=g00002"]);
        fleet.ssh("g00002", ["status"]).succeeds();
    }
    finish(endless).succeeds();
    let grown = resident(supervisor).saturating_sub(before);
    assert!(grown < 3 << 20, "{grown} bytes more");

    // An answer is on a line of its own, and no flood is taken for silence.
    let answer = status_on_console(&env, &fleet, "g00001").succeeds();
    answer.shows(&["id=g00001"]);
    let all_lived = |fleet: &types::Fleet| fleet.guests.iter().all(|guest| guest.restarts == 0);
    assert!(all_lived(&fleet.ps()), "{:#?}", fleet.ps());
    let log = fs::read_to_string(fleet.folder().join("logs/g00001.log")).unwrap();
    let longest = log.lines().map(str::len).max();
    assert_eq!(longest, Some(LINE_MAX));
    let logs = fs::read_dir(fleet.folder().join("logs")).unwrap();
    let kept: u64 = logs.map(|log| log.unwrap().metadata().unwrap().len()).sum();
    assert!(kept < 2 << 20, "{kept} bytes of logs");
    run(&mut fleet.imgbuild(["kill", "g00000"])).succeeds();
    // The connection is gone with the guest.
    let _ = finish(lines);
    fleet.wait();
    fleet.end();
}

/// What Prometheus would get.
fn scrape(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn prometheus_is_answered_where_it_asks() {
    let env = TestEnv::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    // Taken: reported, and nothing stays.
    run(detached(&env, "f", 1).args(["--metrics", &address]))
        .exits(1)
        .says(&["cannot listen on", &address, "--metrics"]);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
    drop(listener);

    let fleet = Fleet::ready(&env, "f", 2, &["--metrics", &address]);
    // Strangers who speak no HTTP are counted, and do not fill a log.
    let said = fleet.talk();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"\0\r\n\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let counted = || {
        let text = scrape(port);
        let metric = "imgbuild_broken_connections_total{fleet=\"f\"} ";
        let line = text.lines().find_map(|line| line.strip_prefix(metric));
        line.and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    // And a client of ours that was ended while it listened.
    wait_until("they are counted", || counted() >= 100_u64);
    assert_eq!(fleet.talk(), said);
    run(&mut fleet.imgbuild(["kill", "g00000"])).succeeds();
    fleet.wait();
    let text = scrape(port);
    for line in [
        "imgbuild_guests{fleet=\"f\",state=\"ready\"} 2\n",
        "imgbuild_guests_wanted{fleet=\"f\"} 2\n",
        "imgbuild_restarts_total{fleet=\"f\"} 1\n",
        "imgbuild_held_back{fleet=\"f\"} 0\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    // What happened to a guest stays counted when it goes.
    run(&mut fleet.imgbuild(["kill", "g00001"])).succeeds();
    fleet.wait();
    run(&mut fleet.imgbuild(["scale", "1"])).succeeds();
    let text = scrape(port);
    assert!(text.contains("imgbuild_guests_wanted{fleet=\"f\"} 1\n"));
    assert!(text.contains("imgbuild_restarts_total{fleet=\"f\"} 2\n"));
    fleet.kill_supervisor();
    fleet.resume().succeeds();
    fleet.wait();
    assert!(scrape(port).contains("imgbuild_restarts_total{fleet=\"f\"} 1\n"));
    fleet.end();

    let any = Fleet::launch(&env, "g", 1, &["--metrics", "127.0.0.1:0"]);
    let said = any.talk();
    let (_, port) = said.split_once("http://127.0.0.1:").unwrap();
    let port = port.split_once("/metrics").unwrap().0.parse().unwrap();
    assert!(scrape(port).contains("imgbuild_guests_wanted{fleet=\"g\"} 1\n"));
    any.end();
}

/// A supervisor that ends its fleet when it is asked for anything.
#[test]
fn a_fleet_that_ends_when_it_is_asked_has_ended() {
    let env = TestEnv::new();
    let spec = env.fleets().join("f/spec.json");
    let control = env.path().join("run/imgbuild/f/control");
    for path in [&spec, &control] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    let listener = UnixListener::bind(&control).unwrap();
    for (verb, code) in [
        (&["ps"][..], 1),
        (&["wait", "--ready"], 1),
        (&["stop", "0"], 1),
        (&["stop", "--all"], 0),
    ] {
        fs::write(&spec, "{}").unwrap();
        // As a supervisor does.
        let lock = spec.with_file_name("lock");
        let mut options = fs::File::options();
        let lock = options.write(true).create(true).mode(0o600).open(lock);
        let lock = lock.unwrap();
        lock.lock().unwrap();
        let asked = start(&mut env.imgbuild(verb));
        let (connection, _) = listener.accept().unwrap();
        fs::remove_file(&spec).unwrap();
        drop(connection);
        let answer = finish(asked).exits(code);
        if code != 0 {
            answer.says(&["the fleet f has ended"]);
        }
    }
}

#[test]
fn a_fleet_that_does_not_fit_settles_at_what_does() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &[]);
    // What fits is for the host to say; that all of it is to stay free is not.
    fleet.kill_supervisor();
    fleet.change_spec(|spec| spec["admission"]["keep_free"] = json!(1_u64 << 50));
    fleet.resume().succeeds();
    run(&mut fleet.imgbuild(["scale", "4"])).succeeds();
    run(&mut fleet.imgbuild(["wait", "--ready", "--timeout", "250s"])).exits(4);
    let settled = fleet.ps();
    assert_eq!(settled.stage, Stage::Settled);
    assert_eq!(
        settled.counts,
        [(Phase::Planned, 2), (Phase::Ready, 2)].into()
    );
    let why = settled.held_back.unwrap();
    assert!(why.contains("of memory are available"), "{why}");
    assert!(why.contains("are to stay free"), "{why}");
    run(&mut fleet.imgbuild(["scale", "2"])).succeeds();
    fleet.until("nothing is held back", |fleet| {
        fleet.stage == Stage::Up && fleet.held_back.is_none()
    });
    fleet.end();

    // None fits at all.
    let events = run(launch(&env, "f", 2).args(["--keep-free", "1024T", "--for", "1s", "--json"]))
        .exits(1)
        .json_lines();
    let summary = events.last().unwrap();
    assert_eq!([&summary["planned"], &summary["ready"]], [2, 0]);
    let why = summary["held_back"].as_str().unwrap();
    assert!(why.contains("are to stay free"), "{why}");
    env.assert_no_fleet_left();
}

#[test]
fn guests_are_started_no_faster_than_asked() {
    let env = TestEnv::new();
    let fleet = Fleet::launch(&env, "f", 4, &["--rate", "1"]);
    run(&mut fleet.imgbuild(["wait", "--ready", "--timeout", "100ms"]))
        .exits(1)
        .says(&["timed out: ", "planned"]);
    fleet.wait();
    let starts = fleet
        .ps()
        .guests
        .into_iter()
        .map(|guest| orphans::start_time(Path::new("/"), guest.pid.unwrap()).unwrap());
    let starts: Vec<_> = starts.collect();
    let span = starts.iter().max().unwrap() - starts.iter().min().unwrap();
    // Three pauses, but for the tenth of a second that may be caught up with.
    assert!(span >= 3 * TICKS - TICKS / 5, "{span} ticks: {starts:?}");
    fleet.end();
}
