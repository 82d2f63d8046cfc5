//! What supervision costs: how fast a fleet comes up, what its supervisor takes
//! at rest, and how soon the next one goes on where it died.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use imgbuild::artifact::opened::Artifacts;
use rustix::process::{Pid, Signal, kill_process};

use super::guest::SETTLE;
use super::{Budget, Row, Samples};
use crate::guest::READY;
use crate::stand_in::QEMU;
use crate::{TestEnv, finish, run, start, wait_until};

/// Guests of a fleet whose start is timed.
const STARTED: u32 = 30;
/// Starts for each mean.
const STARTS: usize = 5;
/// Guests of the two fleets at rest; the difference is that of so many guests.
const FEW: u32 = 10;
const MANY: u32 = 60;
/// For how long fleets at rest are watched: the time in which each guest is
/// asked once for a sign of life.
const PERIOD: Duration = Duration::from_secs(60);
/// Supervisors killed for each mean.
const ADOPTIONS: usize = 5;

/// How every fleet is launched. KSM is left out: how soon it comes round is the
/// host's affair.
const HOW: [&str; 5] = ["--json", "--accel", "tcg", "--sharing", "none"];

/// What a user would type: `$1` the output folder, `$2` the number of guests,
/// `$3` QEMU, `$4` the file of the kernel, `$5` its command line, `$6` the RAM.
/// The machine is that of our guests.
const LOOP: &str = r#"
guests=
trap 'kill $guests; wait; exit 0' TERM
i=0
while [ $i -lt "$2" ]; do
    qemu-img create -q -f qcow2 -F qcow2 -b "$1/base.qcow2" $i.qcow2
    "$3" -machine microvm,acpi=off,rtc=on -accel tcg,tb-size=8 -cpu qemu64 -m "$6" \
        -nodefaults -no-user-config -no-reboot -display none \
        -kernel "$1/$4" -initrd "$1/initramfs.cpio.gz" -append "$5" -serial file:$i.console \
        -drive if=none,id=disk,file=$i.qcow2 -device virtio-blk-device,drive=disk \
        -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$((20000 + i))-:22 \
        -device virtio-net-device,netdev=net &
    guests="$guests $!"
    i=$((i + 1))
done
wait
"#;

/// What keeps a guest running without a supervisor: a shell a guest, that waits.
const AGAIN: &str = "while :; do sleep 86400; done";

/// Every row about supervision.
#[must_use]
pub fn all() -> Vec<Row> {
    let mut rows = starts();
    rows.extend(at_rest());
    rows
}

/// Guests ready a second, from the first command to the last guest.
fn starts() -> Vec<Row> {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    // What the canaries show is kept.
    launch(&env, &out);
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    // By turns, so that both meet the same noise.
    for _ in 0..STARTS {
        ours.push(launch(&env, &out));
        others.push(shell_loop(&env, &out));
    }
    let column = |starts: &[Start], which: fn(&Start) -> f64| {
        Samples::of(&starts.iter().map(which).collect::<Vec<_>>())
    };
    let row = |what, unit, which: [fn(&Start) -> f64; 2], budget| Row {
        what,
        unit,
        ours: column(&ours, which[0]),
        other: column(&others, which[1]),
        other_is: "a shell's loop: qemu-img create; qemu-system-x86_64 &",
        budget,
    };
    let better = Some(Budget::TimesOther(1.0));
    let rates: [fn(&Start) -> f64; 2] = [|start| start.rate, |start| start.rate_checked];
    vec![
        row(
            "clones to ready, 30 (TCG)",
            "1/s",
            [rates[0], rates[0]],
            Some(Budget::AtLeast(10.0)),
        ),
        row(
            "the same once the host is checked",
            "1/s",
            [rates[1], rates[0]],
            better,
        ),
        // On a busy machine whoever has more guests boot at a time gets more
        // of the CPU, so this is what to compare there.
        row(
            "CPU of a clone to ready, all told",
            "CPU s",
            [|start| start.cpu, |start| start.cpu],
            // 0.1 of its own and QEMU's start.
            Some(Budget::AtMost(0.13)),
        ),
    ]
}

/// How a fleet came up.
struct Start {
    /// Guests a second, from the first command on.
    rate: f64,
    /// The same from when the host is checked.
    rate_checked: f64,
    /// CPU time for each guest, in seconds, with what starts and checks it.
    cpu: f64,
}

impl Start {
    /// One whose last guest was ready just now.
    fn now(env: &TestEnv, began: Instant, checked: Instant) -> Self {
        let rate = |began: Instant| f64::from(STARTED) / began.elapsed().as_secs_f64();
        let [rate, rate_checked] = [began, checked].map(rate);
        let cpu: f64 = env.processes().into_iter().map(cpu_seconds).sum();
        Self {
            rate,
            rate_checked,
            cpu: cpu / f64::from(STARTED),
        }
    }
}

/// User and system time of a process, and of those that it has waited for
/// (proc_pid_stat(5)).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (_, fields) = stat.rsplit_once(") ").unwrap_or_default();
    let fields = fields.split(' ').skip(11).take(4);
    fields
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// Starts guests by a launch.
fn launch(env: &TestEnv, out: &Path) -> Start {
    let mut launch = env.imgbuild(["launch", "--count"]);
    launch.arg(STARTED.to_string()).args(HOW);
    launch.args(["--start", "clone"]).arg(out);
    let began = Instant::now();
    let mut child = start(env.own_cache(&mut launch));
    let mut events = BufReader::new(child.stdout.take().expect("piped by start"));
    let (mut line, mut checked, mut ready) = (String::new(), None, 0);
    while ready < STARTED {
        line.clear();
        let read = events.read_line(&mut line).expect("a pipe can be read");
        assert!(read > 0, "the launch ended early");
        let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        if event["event"] == "check" {
            checked = Some(Instant::now());
        }
        ready += u32::from(event["state"] == "ready");
    }
    let started = Start::now(env, began, checked.expect("the host is checked"));
    kill_process(Pid::from_child(&child), Signal::INT).expect("the child is ours");
    child.stdout = Some(events.into_inner());
    let _ = finish(child).exits(130);
    started
}

/// Starts guests by a loop over QEMU.
fn shell_loop(env: &TestEnv, out: &Path) -> Start {
    let folder = tempfile::tempdir_in(env.path()).expect("the folder is ours");
    let artifacts = Artifacts::open(out).expect("just built");
    let mut command = env.command("sh");
    command
        .current_dir(folder.path())
        .args(["-c", LOOP, "sh"])
        .arg(out)
        .args([&STARTED.to_string(), QEMU])
        .arg(&artifacts.manifest.kernel.file)
        .arg(artifacts.command_line())
        .arg(format!(
            "{}M",
            artifacts.manifest.recipe.memory.bytes() >> 20
        ));
    let began = Instant::now();
    let child = start(&mut command);
    let consoles = (0..STARTED).map(|guest| folder.path().join(format!("{guest}.console")));
    let mut waited_for: Vec<PathBuf> = consoles.collect();
    wait_until("the loop's guests are ready", || {
        waited_for
            .retain(|console| !fs::read_to_string(console).is_ok_and(|text| text.contains(READY)));
        waited_for.is_empty()
    });
    let started = Start::now(env, began, began);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("the child is ours");
    let _ = finish(child);
    started
}

/// A fleet left to a supervisor of its own, ended with this value.
struct Fleet<'a> {
    env: &'a TestEnv,
    name: String,
    supervisor: u32,
}

impl<'a> Fleet<'a> {
    /// Starts `count` guests and waits for them.
    fn start(env: &'a TestEnv, out: &Path, count: u32) -> Self {
        let name = format!("of-{count}");
        let mut launch = env.imgbuild(["launch", "--detach", "--no-canary", "--name", &name]);
        launch.args(["--count", &count.to_string()]).args(HOW);
        let supervisor = detached(launch.arg(out));
        let fleet = Self {
            env,
            name,
            supervisor,
        };
        fleet.wait();
        fleet
    }

    fn wait(&self) {
        run(&mut self
            .env
            .imgbuild(["wait", "--ready", "--fleet", &self.name]))
        .succeeds();
    }

    /// Kills the supervisor and has another one go on; gives what that took
    /// until every guest had answered it: seconds, and of CPU.
    fn adopt(&mut self) -> [f64; 2] {
        let pid = Pid::from_raw(self.supervisor.cast_signed()).expect("a process");
        kill_process(pid, Signal::KILL).expect("the supervisor is ours");
        wait_until("the supervisor is dead", || {
            !Path::new("/proc")
                .join(self.supervisor.to_string())
                .exists()
        });
        let began = Instant::now();
        let mut resume = self
            .env
            .imgbuild(["launch", "--json", "--detach", "--resume"]);
        self.supervisor = detached(resume.arg(&self.name));
        self.wait();
        let seconds = began.elapsed().as_secs_f64();
        [seconds, Rest::of(self.supervisor).cpu]
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        let mut stop = self.env.imgbuild(["stop", "--all", "--fleet", &self.name]);
        let stopped = stop.args(["--grace", "0s"]).output();
        if !stopped.is_ok_and(|stopped| stopped.status.success()) {
            eprintln!("{} may have left a cgroup", self.name);
        }
    }
}

/// Process id of the supervisor that a command starts.
fn detached(command: &mut Command) -> u32 {
    let events = run(command).succeeds().json_lines();
    let mut pids = events.iter().filter_map(|event| event["pid"].as_u64());
    let pid = pids.next_back().expect("it tells its supervisor's id");
    u32::try_from(pid).expect("a process")
}

/// What a process has and what it has used.
#[derive(Clone, Copy)]
struct Rest {
    /// Memory of its own, in KiB.
    memory: f64,
    /// File descriptors.
    files: f64,
    /// CPU time, in seconds.
    cpu: f64,
    /// How often it went to sleep, and so woke up.
    wakeups: f64,
}

impl Rest {
    fn of(pid: u32) -> Self {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let read = |path: &Path| {
            fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let number = |text: &str| text.parse::<f64>().expect("a number");
        // Those of one process, or of one of its threads.
        let sum = |text: &str, names: &[&str]| -> f64 {
            let fields = text.lines().filter_map(|line| line.split_once(':'));
            let named = fields.filter(|(name, _)| names.contains(name));
            named
                .map(|(_, value)| number(value.trim().trim_end_matches(" kB")))
                .sum()
        };
        let mut rest = Self {
            // What is clean is the program's file, and of nobody's own as soon
            // as there are two.
            memory: sum(&read(&folder.join("smaps_rollup")), &["Private_Dirty"]),
            files: count(&folder.join("fd")),
            cpu: 0.0,
            wakeups: 0.0,
        };
        for thread in fs::read_dir(folder.join("task"))
            .expect("it lives")
            .flatten()
        {
            // Nanoseconds on a CPU come first (kernel document
            // scheduler/sched-stats).
            let schedule = read(&thread.path().join("schedstat"));
            rest.cpu += number(schedule.split(' ').next().expect("a field")) / 1e9;
            let status = read(&thread.path().join("status"));
            rest.wakeups += sum(&status, &["voluntary_ctxt_switches"]);
        }
        rest
    }
}

fn count(folder: &Path) -> f64 {
    let entries = fs::read_dir(folder).expect("it lives").count();
    f64::from(u32::try_from(entries).expect("few"))
}

/// What a supervisor takes at rest, a guest, and what its death costs.
fn at_rest() -> Vec<Row> {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let few = Fleet::start(&env, &out, FEW);
    let began = Instant::now();
    let mut many = Fleet::start(&env, &out, MANY);
    let started = began.elapsed().as_secs_f64();
    let mut shell = start(env.command("sh").args(["-c", AGAIN]));
    sleep(SETTLE);
    let look = || [few.supervisor, many.supervisor, shell.id()].map(Rest::of);
    let before = look();
    sleep(PERIOD);
    let after = look();
    shell.kill().expect("the child is ours");
    shell.wait().expect("the child is ours");
    let slope = |few: f64, many: f64| (many - few) / f64::from(MANY - FEW);
    let [few_used, many_used, shell_used] = [0, 1, 2].map(|which: usize| {
        let (before, after) = (before[which], after[which]);
        [after.cpu - before.cpu, after.wakeups - before.wakeups]
            .map(|used| used / PERIOD.as_secs_f64())
    });
    // What does not depend on the number of guests counts once.
    let thousand = |which: usize| {
        let slope = slope(few_used[which], many_used[which]);
        few_used[which] + slope * (1000.0 - f64::from(FEW))
    };
    let row = |what, unit, ours, other, budget| Row {
        what,
        unit,
        ours: Samples::of(&[ours]),
        other: Samples::of(&[other]),
        other_is: "a shell a guest that waits: while :; do qemu; done",
        budget,
    };
    let mut rows = vec![
        row(
            "supervisor's memory a guest",
            "KiB",
            slope(after[0].memory, after[1].memory),
            after[2].memory,
            Some(Budget::AtMost(24.0)),
        ),
        row(
            "supervisor's open files a guest",
            "fds",
            slope(after[0].files, after[1].files),
            after[2].files,
            Some(Budget::AtMost(2.0)),
        ),
        row(
            "supervisor of 1,000 idle guests",
            "% CPU",
            thousand(0) * 100.0,
            shell_used[0] * 1000.0 * 100.0,
            Some(Budget::AtMost(1.0)),
        ),
        row(
            "its wakeups, with 60 guests",
            "1/s",
            many_used[1],
            shell_used[1] * f64::from(MANY),
            None,
        ),
    ];
    let adoptions: Vec<_> = (0..ADOPTIONS).map(|_| many.adopt()).collect();
    let column =
        |which: usize| Samples::of(&adoptions.iter().map(|took| took[which]).collect::<Vec<_>>());
    let adoption = |what, unit, which| Row {
        what,
        unit,
        ours: column(which),
        other: Samples::of(&[started]),
        other_is: "seconds to start as many",
        budget: None,
    };
    rows.push(adoption("60 guests adopted", "s", 0));
    rows.push(adoption("60 guests adopted", "CPU s", 1));
    rows
}
