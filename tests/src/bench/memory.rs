//! What a guest of many costs its host in memory, beside the reference experiment's
//! way: a distribution's kernel on the machine `pc`, a shell's loop that burns, and
//! KSM on the guests' RAM. Both under TCG, with the same settings of KSM: ours read by
//! `tests/fleet-memory`, the others by imgbuild, of which a test sees that it agrees.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use imgbuild::reference::measure;

use super::{Budget, Row, Samples};
use crate::fleet::Fleet;
use crate::reference::Bed;
use crate::{TestEnv, run, workspace};

/// Guests of each fleet, and of a larger one of ours.
const GUESTS: u32 = 100;
const MORE_GUESTS: u32 = 300;
/// How often memory is looked at, and how long at most.
const PAUSE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(600);
/// So many looks in a row that differ by less than this have settled, once ksmd has
/// passed all memory as often: it merges what it has seen unchanged twice.
const QUIET: usize = 4;
const DRIFT: f64 = 0.01;

/// KSM as it merges fast, with ksmd ahead of guests that burn; put back when
/// dropped.
struct Merging<'a> {
    env: &'a TestEnv,
    ksmd: String,
    nice: String,
}

impl<'a> Merging<'a> {
    fn start(env: &'a TestEnv) -> Self {
        let ksmd = run(env.command("pgrep").args(["-x", "ksmd"])).succeeds();
        let ksmd = ksmd.stdout.trim().to_owned();
        let nice = run(env.command("ps").args(["-o", "ni=", "-p", &ksmd])).succeeds();
        let merging = Self {
            env,
            ksmd,
            nice: nice.stdout.trim().to_owned(),
        };
        merging.renice("-10");
        let fix = ["check", "--accel", "tcg", "--sharing", "guest", "--fix"];
        let _ = run(&mut env.imgbuild(fix));
        let on = fs::read_to_string("/sys/kernel/mm/ksm/run").unwrap_or_default();
        assert_eq!(on, "1\n", "`imgbuild check --fix` starts KSM: run as root");
        merging
    }

    fn renice(&self, nice: &str) {
        let set = ["-n", nice, "-p", &self.ksmd];
        run(self.env.command("renice").args(set)).succeeds();
    }
}

impl Drop for Merging<'_> {
    fn drop(&mut self) {
        self.renice(&self.nice);
        run(&mut self.env.imgbuild(["check", "--restore"])).succeeds();
    }
}

/// What guests cost, in MiB a guest.
struct Cost {
    peak: f64,
    settled: f64,
}

/// What the guests with these processes cost, once that no longer changes.
fn settled(env: &TestEnv, supervisor: u32, guests: &[u32], mut peak: f64) -> Cost {
    let (began, passes, mut looks) = (Instant::now(), full_scans(), Vec::new());
    loop {
        let now = a_guest(env, supervisor, guests);
        peak = peak.max(now);
        looks.push(now);
        let latest = looks.iter().rev().take(QUIET);
        let least = latest.clone().copied().fold(f64::INFINITY, f64::min);
        let most = latest.copied().fold(0.0, f64::max);
        let has_passed = looks.len() >= QUIET && full_scans() >= passes + QUIET;
        let rests = has_passed && most - least <= DRIFT * most;
        if rests || began.elapsed() > PATIENCE {
            return Cost { peak, settled: now };
        }
        sleep(PAUSE);
    }
}

/// How often ksmd has passed all memory.
fn full_scans() -> usize {
    let scans = fs::read_to_string("/sys/kernel/mm/ksm/full_scans").expect("the kernel has KSM");
    scans.trim().parse().expect("a number")
}

/// MiB a guest, now.
fn a_guest(env: &TestEnv, supervisor: u32, guests: &[u32]) -> f64 {
    let pids = [supervisor].into_iter().chain(guests.iter().copied());
    let mut script = env.command(workspace().join("tests/fleet-memory"));
    let read = run(script.args(pids.map(|pid| pid.to_string()))).succeeds();
    let bytes: f64 = read.stdout.trim().parse().expect("bytes");
    bytes / f64::from(1 << 20) / f64::from(u32::try_from(guests.len()).expect("few"))
}

/// A fleet of imgbuild's, which are clones, each asked for its status once.
fn ours(env: &TestEnv, count: u32) -> Cost {
    let name = format!("of-{count}");
    let fleet = Fleet::launch(env, &name, count, &["--sharing", "all", "--fix"]);
    let pids = || -> Vec<u32> {
        let guests = fleet.ps().guests.into_iter();
        guests.filter_map(|guest| guest.pid).collect()
    };
    let (supervisor, mut peak) = (fleet.supervisor(), 0.0_f64);
    loop {
        let living = pids();
        if !living.is_empty() {
            let all = a_guest(env, supervisor, &living)
                * f64::from(u32::try_from(living.len()).expect("few"));
            peak = peak.max(all / f64::from(count));
        }
        if fleet.ps().counts.get(&imgbuild::guest::Phase::Ready) == Some(&count) {
            break;
        }
        sleep(PAUSE);
    }
    run(&mut fleet.imgbuild(["ssh", "--all", "--", "status"])).succeeds();
    let cost = settled(env, supervisor, &pids(), peak);
    fleet.end();
    cost
}

/// As many guests made of a distribution's parts, each logged in to once it was
/// measured.
fn other(env: &TestEnv, count: u32) -> Cost {
    let bed = Bed::new(env);
    let measured = measure(&bed.options(count, PATIENCE)).expect("they can be made here");
    let a_guest = |bytes: u64| {
        let mib = u32::try_from(bytes >> 20).expect("the host has less");
        f64::from(mib) / f64::from(measured.ready)
    };
    Cost {
        peak: a_guest(measured.peak),
        settled: a_guest(measured.memory.bytes),
    }
}

/// Every row about memory.
#[must_use]
pub fn all() -> Vec<Row> {
    let env = TestEnv::new();
    let _merging = Merging::start(&env);
    let ours = [GUESTS, MORE_GUESTS].map(|count| ours(&env, count));
    let other = other(&env, GUESTS);
    let row = |what, unit, ours, other, budget| Row {
        what,
        unit,
        ours: Samples::of(&[ours]),
        other: Samples::of(&[other]),
        other_is: "100 of Debian's cloud kernel, pc, 1 GiB, busybox, dropbear, mem-merge",
        budget: Some(budget),
    };
    vec![
        row(
            "host memory a guest, 100 (TCG)",
            "MiB",
            ours[0].settled,
            other.settled,
            Budget::AtMost(4.0),
        ),
        row(
            "the same, 300",
            "MiB",
            ours[1].settled,
            other.settled,
            Budget::AtMost(3.5),
        ),
        row(
            "peak ÷ settled, 300",
            "×",
            ours[1].peak / ours[1].settled,
            other.peak / other.settled,
            Budget::AtMost(1.5),
        ),
        row(
            "guests in the memory of one",
            "×",
            other.settled / ours[0].settled,
            1.0,
            Budget::TimesOther(10.0),
        ),
    ]
}
