//! `imgbuild top` on a terminal: keys are sent, the screen is read.

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use imgbuild::guest::Phase;
use imgbuild_tests::fleet::{Fleet, signal};
use imgbuild_tests::terminal::Terminal;
use imgbuild_tests::{TestEnv, binary, run, start, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (200, 60);

fn top<'a>(env: &'a TestEnv, size: (u16, u16), name: &str) -> Terminal<'a> {
    let command = format!("{} top --fleet {name}", binary().display());
    Terminal::open(env, size, &command)
}

/// The process that has the screen.
fn process(env: &TestEnv) -> u32 {
    let is_top = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(5).any(|part| part == b"\0top\0") && !line.starts_with(b"sh\0")
    };
    let mut found = None;
    wait_until("top runs", || {
        found = env.processes().into_iter().find(is_top);
        found.is_some()
    });
    found.unwrap()
}

/// The bytes that stand before `unit` in a text, such as 4.10 in `4.10 MiB`.
fn mebibytes(words: &str) -> f64 {
    let (number, _) = words.split_once(" MiB").expect(words);
    number.rsplit(' ').next().unwrap().parse().expect(words)
}

fn is_near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 0.03 * other
}

/// What belongs to a process alone, in MiB, by the kernel's files.
fn own(pid: u32) -> f64 {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let rollup = read("smaps_rollup");
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:"));
    let kibibytes: f64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let merged: f64 = read("ksm_merging_pages").trim().parse().unwrap();
    (kibibytes - merged * 4.0) / 1024.0
}

#[test]
fn a_fleet_is_watched_and_its_numbers_are_those_of_ps_and_of_proc() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "watched", 3, &[]);
    for size in [SMALL, LARGE] {
        let terminal = top(&env, size, "watched");
        terminal.shows("watched is up, under supervisor");
        let screen = terminal.shows("guests a GiB");
        let memory = run(&mut fleet.imgbuild(["ps", "--memory", "--json"])).succeeds();
        let memory: Value = serde_json::from_str(&memory.stdout).unwrap();
        let line = screen
            .lines()
            .find(|line| line.starts_with("memory"))
            .unwrap();
        let (all, each) = line.split_once(", ").unwrap();
        let mib = |name: &str| memory[name].as_f64().unwrap() / 1_048_576.0;
        assert!(is_near(mebibytes(all), mib("bytes")), "{line} {memory:?}");
        let a_guest = mib("bytes_a_guest");
        assert!(is_near(mebibytes(each), a_guest), "{line} {memory:?}");
        let (_, dense) = line.split_once("guest: ").unwrap();
        let dense: f64 = dense.split(' ').next().unwrap().parse().unwrap();
        assert!(is_near(dense, 1024.0 / a_guest), "{line} {memory:?}");

        // The guests' own, once they were looked at.
        wait_until("each guest's memory is on the screen", || {
            let screen = terminal.screen();
            let rows = screen.lines().filter(|line| line.starts_with("g0"));
            rows.filter(|row| row.contains(" MiB")).count() == 3
        });
        let screen = terminal.screen();
        for guest in fleet.ps().guests {
            let id = guest.id.to_string();
            let row = screen.lines().find(|line| line.starts_with(&id)).unwrap();
            let expected = own(guest.pid.unwrap());
            assert!(is_near(mebibytes(row), expected), "{row} {expected}");
        }

        terminal.keys(&["q"]);
        let screen = terminal.shows("exit code 0");
        assert!(!terminal.is_taken(), "{screen}");
    }
    fleet.end();
}

#[test]
fn keys_stop_restart_and_log_in_to_guests() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "keys", 3, &[]);
    let terminal = top(&env, SMALL, "keys");
    terminal.shows("g00002 ready");

    terminal.keys(&["Down", "Down", "s"]);
    terminal.shows("Stop g00001?");
    terminal.keys(&["n"]);
    terminal.shows("q quit");
    assert_eq!(fleet.guest(1).state, Phase::Ready);
    terminal.keys(&["s", "y"]);
    terminal.shows("g00001 exited");
    terminal.shows("stop g00001: done");
    assert_eq!(fleet.guest(1).state, Phase::Exited);
    terminal.keys(&["r", "y"]);
    terminal.shows("g00001 ready");
    assert_eq!(fleet.guest(1).restarts, 1);

    // A text on its console that would clear the screen, and write elsewhere.
    let mut ssh = fleet.imgbuild(["ssh", "2", "--", "write", "/dev/ttyS0"]);
    let mut ssh = start(ssh.stdin(Stdio::piped()));
    let hostile = "\x1b[2J\x1b[1;1Howned \u{202e}txet\r\n";
    std::io::Write::write_all(ssh.stdin.as_mut().unwrap(), hostile.as_bytes()).unwrap();
    drop(ssh.stdin.take());
    imgbuild_tests::finish(ssh).succeeds();
    terminal.keys(&["Down", "Enter"]);
    let screen = terminal.shows("owned \\u{202e}txet");
    assert!(
        screen.starts_with("keys is up, under supervisor"),
        "{screen}"
    );
    assert!(screen.contains("ready for "), "{screen}");

    // Of the other guests, the filter leaves none.
    terminal.keys(&["Escape"]);
    // A terminal sends Escape and a key, at once, for Alt and the key.
    wait_until("the details are gone", || {
        !terminal.screen().contains("ready for ")
    });
    terminal.keys(&["/"]);
    terminal.keys(&["-l", "g00000"]);
    terminal.keys(&["Enter", "Home"]);
    let screen = terminal.shows("with: g00000");
    assert!(!screen.contains("g00001 ready"), "{screen}");

    terminal.keys(&["l"]);
    terminal.shows("g00000#");
    assert!(!terminal.is_taken());
    terminal.keys(&["status", "Enter"]);
    terminal.shows("id=g00000 phase=ready");
    terminal.keys(&["exit", "Enter"]);
    terminal.shows("with: g00000");
    assert!(terminal.is_taken());

    // Ten keys a second for some seconds, and the next one is heard at once.
    for _ in 0..40 {
        terminal.keys(&["Down"]);
        sleep(Duration::from_millis(100));
    }
    terminal.keys(&["?"]);
    terminal.shows("Any key leads back");
    terminal.keys(&["x", "C-c"]);
    terminal.shows("exit code 0");
    drop(terminal);
    fleet.end();
}

#[test]
fn a_supervisor_that_dies_and_a_fleet_that_ends_are_seen() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "mortal", 2, &[]);
    let terminal = top(&env, SMALL, "mortal");
    terminal.shows("2 guests: 2 ready");
    fleet.kill_supervisor();
    terminal.shows("mortal is orphaned, without a supervisor");
    terminal.shows("`imgbuild launch --resume mortal` starts another one");
    fleet.resume().succeeds();
    terminal.shows("2 guests: 2 ready");
    run(&mut fleet.imgbuild(["scale", "3"])).succeeds();
    terminal.shows("g00002 ready");
    run(&mut fleet.imgbuild(["scale", "1"])).succeeds();
    let screen = terminal.shows("1 guest: 1 ready");
    assert!(!screen.contains("g00001"), "{screen}");
    run(&mut fleet.imgbuild(["stop", "--all"])).succeeds();
    terminal.shows("the fleet has ended; q leaves");
    terminal.keys(&["q"]);
    terminal.shows("exit code 0");
    drop(terminal);
    fleet.assert_gone();
}

#[test]
fn the_terminal_is_given_back_whatever_ends_it() {
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "ends", 2, &[]);

    // Another size, too small and back.
    let terminal = top(&env, SMALL, "ends");
    terminal.shows("ends is up");
    terminal.resize(60, 20);
    terminal.shows("top takes 80x24 characters");
    terminal.resize(120, 40);
    terminal.shows("ends is up");
    terminal.keys(&["q"]);
    terminal.shows("exit code 0");
    drop(terminal);

    for (ended, code) in [(Signal::TERM, 130), (Signal::INT, 130), (Signal::HUP, 130)] {
        let terminal = top(&env, SMALL, "ends");
        terminal.shows("ends is up");
        assert!(terminal.is_taken());
        signal(process(&env), ended);
        terminal.shows(&format!("exit code {code}"));
        assert!(!terminal.is_taken());
        assert_eq!(terminal.tells("#{cursor_flag}"), "1");
    }

    // Ctrl-Z, where the shell has jobs.
    let command = format!(
        "bash -ic '{} top; echo stopped; fg; true'",
        binary().display()
    );
    let terminal = Terminal::open(&env, SMALL, &command);
    terminal.shows("ends is up");
    terminal.keys(&["C-z"]);
    terminal.shows("ends is up");
    terminal.keys(&["q"]);
    let screen = terminal.shows("exit code 0");
    assert!(screen.contains("stopped"), "{screen}");
    drop(terminal);

    // A terminal that goes takes top with it.
    let terminal = top(&env, SMALL, "ends");
    terminal.shows("ends is up");
    let pid = process(&env);
    terminal.hang_up();
    wait_until("top has ended", || {
        !fs::exists(format!("/proc/{pid}")).unwrap()
    });

    // Without colours.
    for (variable, is_coloured) in [("", true), ("NO_COLOR=1", false)] {
        let command = format!("env {variable} {} top", binary().display());
        let terminal = Terminal::open(&env, SMALL, &command);
        terminal.shows("g00001 ready");
        let screen = terminal.coloured();
        assert_eq!(screen.contains("38;5;2m"), is_coloured, "{screen:?}");
    }

    run(&mut fleet.imgbuild(["top"]))
        .exits(2)
        .says(&["top takes a terminal", "imgbuild ps"]);
    fleet.end();
}

#[test]
fn there_is_no_fleet_to_watch() {
    let env = TestEnv::new();
    run(&mut env.imgbuild(["top"]))
        .exits(1)
        .says(&["there is no fleet"]);
}
