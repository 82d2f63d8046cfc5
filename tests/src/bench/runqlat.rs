//! What it costs to measure run-queue latency, beside the tool that people know
//! (`runqlat` of Debian's libbpf-tools), on the same load at the same time.

use std::fs;
use std::io::{Read as _, Write as _, pipe};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{Budget, Row, Samples};
use crate::fleet::signal;
use crate::probes::{PATH, printed, wait_until_attached};
use crate::{TestEnv, finish, start};

/// Whether the kernel measures programs (kernel document admin-guide/sysctl/kernel).
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const WINDOW: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;
/// Of a CPU at 60,000 switches a second: 1 %.
const AN_EVENT: f64 = 0.01 * 1e9 / 60_000.0;

/// The kernel measures programs while this lives.
struct Measured(String);

impl Measured {
    fn begin() -> Self {
        let before = fs::read_to_string(STATS).expect("the kernel has it since 5.1");
        fs::write(STATS, "1").expect("root may");
        Self(before)
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = fs::write(STATS, &self.0);
    }
}

/// Two threads that wake each other until this is dropped.
struct PingPong(Arc<AtomicBool>, Vec<thread::JoinHandle<()>>);

impl PingPong {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ((mut from_one, mut to_two), (mut from_two, mut to_one)) =
            (pipe().expect("a pipe"), pipe().expect("a pipe"));
        let first = Arc::clone(&over);
        let one = thread::spawn(move || {
            let mut byte = [0];
            // Whoever ends first closes its pipe, which ends the other.
            while !first.load(Ordering::Relaxed) {
                if to_two.write_all(&byte).is_err() || from_two.read_exact(&mut byte).is_err() {
                    break;
                }
            }
        });
        let two = thread::spawn(move || {
            let mut byte = [0];
            while from_one.read_exact(&mut byte).is_ok() && to_one.write_all(&byte).is_ok() {}
        });
        Self(over, vec![one, two])
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Starts it, and gives the milliseconds until its probes are attached.
fn attach(command: &mut Command, probes: usize) -> (Child, f64) {
    let began = Instant::now();
    let child = start(command.stdout(Stdio::piped()));
    wait_until_attached(child.id(), probes);
    (child, began.elapsed().as_secs_f64() * 1000.0)
}

/// Nanoseconds and runs of the programs of these names.
fn spent(env: &TestEnv, names: &[&str]) -> (f64, f64) {
    let mut command = env.command("bpftool");
    let output = command
        .env("PATH", PATH)
        .args(["prog", "show", "--json"])
        .output()
        .expect("bpftool is installed for tests");
    let programs: Vec<Value> = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let ours = programs.iter().filter(|program| {
        let name = program["name"].as_str().unwrap_or_default();
        names.iter().any(|one| name.starts_with(one))
    });
    ours.fold((0.0, 0.0), |(time, runs), program| {
        let figure = |name: &str| program[name].as_f64().unwrap_or(0.0);
        (time + figure("run_time_ns"), runs + figure("run_cnt"))
    })
}

#[derive(Default)]
struct Column {
    attach: Vec<f64>,
    /// Nanoseconds a switch.
    cost: Vec<f64>,
    waits: Vec<f64>,
}

/// Every row about run-queue latency.
#[must_use]
pub fn all() -> Vec<Row> {
    let env = TestEnv::new();
    let _measured = Measured::begin();
    let mut theirs = Column::default();
    let mut ours = [Column::default(), Column::default()];
    for _ in 0..ROUNDS {
        for (by, column) in ["class", "cause"].iter().zip(&mut ours) {
            let mut command =
                env.imgbuild(["runqlat", "--json", "--all", "--for", "1h", "--by", by]);
            let (child, took) = attach(&mut command, 3);
            let mut other = env.command("runqlat");
            let (other, their_time) = attach(other.env("PATH", PATH), 3);
            let load = PingPong::start();
            thread::sleep(WINDOW);
            drop(load);
            let (_, switches) = spent(&env, &["on_switch"]);
            let (time, _) = spent(&env, &["on_switch", "on_wakeup", "on_first_wakeup"]);
            // Its programs at sched_switch and at the two ways to wake up.
            let (their_cost, _) = spent(&env, &["sched_switch", "sched_wakeup", "handle_sched"]);
            for child in [&child, &other] {
                signal(child.id(), Signal::INT);
            }
            let [mine, other] = [child, other].map(|child| finish(child).stdout);
            column.attach.push(took);
            column.cost.push(time / switches);
            let document: Value = serde_json::from_str(&mine).expect("it is JSON");
            let rows = document["rows"].as_array().expect("it has rows");
            column
                .waits
                .push(rows.iter().filter_map(|row| row["count"].as_f64()).sum());
            theirs.attach.push(their_time);
            theirs.cost.push(their_cost / switches);
            let count: u64 = printed(&other).iter().sum();
            #[expect(clippy::cast_precision_loss, reason = "some hundred thousands")]
            theirs.waits.push(count as f64);
        }
    }
    let [plain, causes] = &ours;
    let both = |pick: fn(&Column) -> &Vec<f64>| [pick(plain).as_slice(), pick(causes)].concat();
    let row = |what, unit, ours: &[f64], other: &[f64], budget| Row {
        what,
        unit,
        ours: Samples::of(ours),
        other: Samples::of(other),
        other_is: "libbpf-tools runqlat",
        budget,
    };
    vec![
        row(
            "runqlat: start to attached",
            "ms",
            &both(|column| &column.attach),
            &theirs.attach,
            Some(Budget::AtMost(50.0)),
        ),
        row(
            "runqlat: a switch, no causes",
            "ns",
            &plain.cost,
            &theirs.cost,
            Some(Budget::AtMost(AN_EVENT)),
        ),
        row(
            "runqlat: a switch, with causes",
            "ns",
            &causes.cost,
            &theirs.cost,
            None,
        ),
        row(
            "runqlat: waits of the same load",
            "waits",
            &both(|column| &column.waits),
            &theirs.waits,
            None,
        ),
    ]
}
