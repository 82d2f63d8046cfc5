//! Run-queue latency on real guests: beside the tool that people know, on machines made
//! to have each cause, and with nothing left in the kernel after any end.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use imgbuild_tests::fleet::{Fleet, kill, signal};
use imgbuild_tests::probes::{PATH, in_kernel, is_root_of_all, printed, wait_until_attached};
use imgbuild_tests::{Finished, TestEnv, finish, rights, run, start, wait_until, workspace};
use rustix::process::Signal;
use serde_json::Value;

/// Held by the one test that runs: the CPUs are the whole machine's.
static MACHINE: Mutex<()> = Mutex::new(());

fn whole_machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

const BPF: &str = "load a program into the kernel";

fn cpus() -> u32 {
    u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap()
}

/// Processes that do nothing but compute, until they are dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(env: &TestEnv, count: u32) -> Self {
        let hog = |_| start(env.command("sh").args(["-c", "while :; do :; done"]));
        Self((0..count).map(hog).collect())
    }

    fn signal(&self, what: Signal) {
        for hog in &self.0 {
            signal(hog.id(), what);
        }
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            hog.kill().unwrap();
            hog.wait().unwrap();
        }
    }
}

/// A fleet whose guests are ready, and burn.
fn burning<'a>(env: &'a TestEnv, name: &str, guests: u32, arguments: &[&str]) -> Fleet<'a> {
    let count = guests.to_string();
    let mut launch = env.imgbuild(["launch", "--accel", "tcg", "--no-canary", "--detach"]);
    launch.args(["--name", name, "--count", &count]);
    run(launch.args(arguments).arg(env.artifacts("tty-burn"))).succeeds();
    let fleet = Fleet::of(env, name);
    fleet.wait();
    fleet
}

/// `imgbuild runqlat --json`.
fn runqlat(env: &TestEnv, arguments: &[&str]) -> Command {
    let mut command = env.imgbuild(["runqlat", "--json"]);
    command.args(arguments);
    command
}

fn document(finished: &Finished) -> Value {
    let [document] = &finished.json_lines()[..] else {
        panic!("one document: {}", finished.stdout);
    };
    document.clone()
}

fn rows(document: &Value) -> &[Value] {
    document["rows"].as_array().unwrap()
}

/// The sum of a row's figure over the rows that are chosen.
fn sum(document: &Value, figure: &str, chosen: impl Fn(&Value) -> bool) -> f64 {
    let rows = rows(document).iter().filter(|row| chosen(row));
    rows.map(|row| row[figure].as_f64().unwrap()).sum()
}

/// Waits by bucket.
fn buckets(document: &Value) -> Vec<u64> {
    let mut sums = vec![0; 27];
    for row in rows(document) {
        let counts = row["buckets"].as_array().unwrap();
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count.as_u64().unwrap();
        }
    }
    sums
}

/// The share of the vCPUs' waiting that has this cause.
fn share(document: &Value, cause: &str) -> f64 {
    let all = sum(document, "total", |row| row["class"] == "vcpu");
    let some = sum(document, "total", |row| {
        row["class"] == "vcpu" && row["cause"] == cause
    });
    some / all
}

/// Both measure the same guest, which runs after both began and is stopped before they
/// end.
fn assert_agrees(env: &TestEnv, name: &str, guest: u32, least: u64) {
    let pid = guest.to_string();
    signal(guest, Signal::STOP);
    let ours = start(runqlat(env, &["--pid", &pid, "--for", "1h"]).stdout(Stdio::piped()));
    let mut theirs = env.command("runqlat");
    theirs.env("PATH", PATH);
    let theirs = start(theirs.args(["-p", &pid]).stdout(Stdio::piped()));
    wait_until_attached(ours.id(), 3);
    wait_until_attached(theirs.id(), 3);
    signal(guest, Signal::CONT);
    sleep(Duration::from_secs(8));
    signal(guest, Signal::STOP);
    signal(ours.id(), Signal::INT);
    signal(theirs.id(), Signal::INT);
    let ours = finish(ours).exits(130);
    let theirs = finish(theirs);
    signal(guest, Signal::CONT);
    let (ours, theirs) = (buckets(&document(&ours)), printed(&theirs.stdout));
    let total = |counts: &[u64]| counts.iter().sum::<u64>();
    let (our_total, their_total) = (total(&ours), total(&theirs));
    assert!(their_total >= least, "{name}: {theirs:?}");
    assert!(
        our_total.abs_diff(their_total) <= 5.max(their_total / 200),
        "{name}: {our_total} waits, theirs {their_total}\n{ours:?}\n{theirs:?}"
    );
    // Each one's probes delay what the other one measures, by up to a microsecond: near
    // the end of a bucket the same wait is in two. So at each end from 16 µs up as many
    // waits are longer, but for 2 % of all.
    let longer = |counts: &[u64], from: usize| counts[from..].iter().sum::<u64>();
    for from in 4..27 {
        let [mine, other] = [&ours, &theirs].map(|counts| longer(counts, from));
        assert!(
            mine.abs_diff(other) <= 5.max(their_total / 50),
            "{name}: from bucket {from} {mine}, theirs {other}\n{ours:?}\n{theirs:?}"
        );
    }
}

#[test]
fn it_counts_what_the_tool_of_bcc_counts() {
    let _machine = whole_machine();
    if !is_root_of_all(BPF) {
        return;
    }
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "idle", 2, &[]);
    assert_agrees(&env, "an idle fleet", fleet.guest(0).pid.unwrap(), 5);
    fleet.end();
    for (name, guests, least) in [
        ("a loaded fleet", cpus(), 1_000),
        ("overcommitted 10:1", 10 * cpus(), 100),
    ] {
        let fleet = burning(&env, "busy", guests, &[]);
        assert_agrees(&env, name, fleet.guest(1).pid.unwrap(), least);
        fleet.end();
    }
}

#[test]
fn each_cause_is_seen_where_it_is() {
    let _machine = whole_machine();
    if !is_root_of_all(BPF) {
        return;
    }
    let env = TestEnv::new();
    let measure = |fleet: &Fleet<'_>| {
        let measured = run(&mut fleet.imgbuild(["runqlat", "--json", "--for", "4s"])).succeeds();
        let document = document(&measured);
        assert_eq!(document["source"], "bpf", "{document}");
        assert_eq!(document["lost"], 0, "{document}");
        document
    };
    let assert_is = |cause: &str, document: &Value| {
        let share = share(document, cause);
        assert!(
            share > 0.8,
            "{cause} has {share} of the vCPUs' waits: {document}"
        );
    };

    let fleet = burning(&env, "alone", 3 * cpus(), &[]);
    let alone = measure(&fleet);
    assert_is("same", &alone);
    // All of them burn, and each thread is known by its work.
    assert!(
        sum(&alone, "count", |row| row["class"] == "vcpu") > 1_000.0,
        "{alone}"
    );
    assert!(
        sum(&alone, "count", |row| row["class"] == "vmm") > 0.0,
        "{alone}"
    );
    assert!(
        sum(&alone, "count", |row| row["class"] == "other") < 1.0,
        "{alone}"
    );
    fleet.end();

    let fleet = burning(&env, "beside", 1, &["--cpu-weight", "40"]);
    let hogs = Hogs::start(&env, 4 * cpus());
    assert_is("host", &measure(&fleet));
    drop(hogs);
    let elsewhere = TestEnv::new();
    let others = burning(&elsewhere, "others", 4 * cpus(), &[]);
    let document = measure(&fleet);
    others.end();
    fleet.end();
    assert_is("other_guest", &document);

    let fleet = burning(&env, "quota", 2 * cpus(), &["--cpu-max", "0.2"]);
    assert_is("quota", &measure(&fleet));
    fleet.end();
}

#[test]
fn guests_are_told_apart_and_those_that_start_are_included() {
    let _machine = whole_machine();
    if !is_root_of_all(BPF) {
        return;
    }
    let env = TestEnv::new();
    let fleet = burning(&env, "grows", 2, &[]);
    let measuring = start(
        runqlat(&env, &["--fleet", "grows", "--by", "guest", "--for", "1h"]).stdout(Stdio::piped()),
    );
    wait_until_attached(measuring.id(), 3);
    run(&mut fleet.imgbuild(["scale", "4"])).succeeds();
    fleet.wait();
    fleet.kill_guests(&[0]);
    fleet.until("the killed guest is back", |fleet| {
        fleet.guests[0].restarts == 1 && fleet.guests[0].ready_after.is_some()
    });
    sleep(Duration::from_secs(2));
    signal(measuring.id(), Signal::INT);
    let document = document(&finish(measuring).exits(130));
    let guests: BTreeMap<_, _> = (rows(&document).iter())
        .map(|row| {
            (
                row["guest"].as_str().unwrap(),
                row["count"].as_u64().unwrap(),
            )
        })
        .collect();
    let names: Vec<_> = guests.keys().copied().collect();
    assert_eq!(
        names,
        ["g00000", "g00001", "g00002", "g00003"],
        "{document}"
    );
    assert!(guests.values().all(|count| *count > 20), "{document}");

    // The first long wait ends it, and has names.
    let ended = run(&mut fleet.imgbuild(["runqlat", "--stop-above", "1ms"])).succeeds();
    ended.shows(&["CPU 0/TCG (g0000", "for CPU ", "had it longest"]);
    fleet.end();
}

/// A trace of the scheduler's events of one thread (kernel document trace/ftrace), in an
/// instance of its own; all of it goes when this is dropped.
struct Trace<'a> {
    env: &'a TestEnv,
    mount: PathBuf,
    instance: PathBuf,
}

impl<'a> Trace<'a> {
    fn start(env: &'a TestEnv, pid: u32) -> Self {
        let mount = env.path().join("tracing");
        fs::create_dir(&mount).unwrap();
        let mut command = env.command("mount");
        run(command.args(["-t", "tracefs", "none"]).arg(&mount)).succeeds();
        let instance = mount.join(format!("instances/imgbuild-{}", std::process::id()));
        let trace = Self {
            env,
            mount,
            instance,
        };
        fs::create_dir(&trace.instance).unwrap();
        let write = |file: &str, text: &str| fs::write(trace.instance.join(file), text).unwrap();
        write(
            "events/sched/sched_switch/filter",
            &format!("prev_pid=={pid}||next_pid=={pid}"),
        );
        write("events/sched/sched_wakeup/filter", &format!("pid=={pid}"));
        for event in ["sched_switch", "sched_wakeup"] {
            write(&format!("events/sched/{event}/enable"), "1");
        }
        trace
    }

    /// Each wait of the thread until now, in seconds, in order of length.
    fn waits(&self, pid: u32) -> Vec<f64> {
        let text = fs::read_to_string(self.instance.join("trace")).unwrap();
        let (mut waits, mut since) = (Vec::new(), None);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (head, what) = line.split_once(": sched_").unwrap();
            let time: f64 = head
                .split_ascii_whitespace()
                .last()
                .unwrap()
                .parse()
                .unwrap();
            if what.contains(&format!("next_pid={pid} ")) {
                waits.extend(since.take().map(|since| time - since));
            } else if what.contains(&format!("prev_pid={pid} ")) {
                since = what.contains("prev_state=R").then_some(time);
            } else {
                since = since.or(Some(time));
            }
        }
        waits.sort_by(f64::total_cmp);
        waits
    }
}

impl Drop for Trace<'_> {
    fn drop(&mut self) {
        fs::remove_dir(&self.instance).unwrap();
        run(self.env.command("umount").arg(&self.mount)).succeeds();
    }
}

#[test]
fn percentiles_agree_with_a_trace_of_each_wait() {
    let _machine = whole_machine();
    if !is_root_of_all(BPF) {
        return;
    }
    let env = TestEnv::new();
    let hogs = Hogs::start(&env, cpus() + 1);
    hogs.signal(Signal::STOP);
    let pid = hogs.0[0].id();
    let ours =
        start(runqlat(&env, &["--pid", &pid.to_string(), "--for", "1h"]).stdout(Stdio::piped()));
    wait_until_attached(ours.id(), 3);
    let trace = Trace::start(&env, pid);
    hogs.signal(Signal::CONT);
    sleep(Duration::from_secs(4));
    hogs.signal(Signal::STOP);
    signal(ours.id(), Signal::INT);
    let document = document(&finish(ours).exits(130));
    let waits = trace.waits(pid);
    let count = sum(&document, "count", |_| true);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let traced = waits.len() as f64;
    assert!(
        traced > 50.0 && (count - traced).abs() <= 3.0,
        "{count}, traced {traced}"
    );
    let total: f64 = waits.iter().sum();
    let said = sum(&document, "total", |_| true);
    assert!(
        (said - total).abs() < 0.02 * total,
        "{said} s, traced {total} s"
    );
    // The figures of a row are of one cause: of all causes together they follow from the
    // buckets in the same way.
    let counts = buckets(&document);
    for share in [0.5, 0.9, 0.99] {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let rank = (share * traced) as usize;
        let bucket = counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        let bucket = bucket.take_while(|sum| *sum <= rank as u64).count();
        let micros = waits[rank] * 1e6;
        let (low, high) = (f64::from(1_u32 << bucket), f64::from(2_u32 << bucket));
        assert!(
            (low / 1.1 - 2.0..=high * 1.1 + 2.0).contains(&micros),
            "{share}: bucket {bucket}, traced {micros} µs, {counts:?}"
        );
    }
    for row in rows(&document) {
        let figure = |name: &str| row[name].as_f64().unwrap();
        let order = ["p50", "p90", "p99", "p999", "longest"].map(figure);
        assert!(order.is_sorted(), "{row}");
    }
}

#[test]
fn nothing_is_left_in_the_kernel_after_any_end() {
    let _machine = whole_machine();
    if !is_root_of_all(BPF) {
        return;
    }
    let env = TestEnv::new();
    // What the tests before it had goes in its own time.
    wait_until("the kernel has cleared it away", || {
        in_kernel(&env) == (0, 0)
    });
    let ends: [fn(u32); 3] = [
        |pid| signal(pid, Signal::INT),
        |pid| signal(pid, Signal::TERM),
        kill,
    ];
    for end in ends {
        let child = start(runqlat(&env, &["--all", "--for", "1h"]).stdout(Stdio::piped()));
        wait_until_attached(child.id(), 3);
        let (programs, maps) = in_kernel(&env);
        assert_eq!(programs, 3);
        assert!(maps >= 5, "{maps}");
        end(child.id());
        let _ = finish(child);
        // The kernel clears a map away once no CPU looks at it any more.
        wait_until("the kernel has cleared it away", || {
            in_kernel(&env) == (0, 0)
        });
    }
    run(&mut runqlat(&env, &["--all", "--for", "1s"])).succeeds();
    wait_until("the kernel has cleared it away", || {
        in_kernel(&env) == (0, 0)
    });
}

#[test]
fn without_bpf_it_has_means_and_says_so() {
    let env = TestEnv::new();
    let _machine = whole_machine();
    let hogs = Hogs::start(&env, cpus() + 1);
    let pid = hogs.0[0].id().to_string();
    let imgbuild = runqlat(&env, &["--pid", &pid, "--for", "2s"]);
    let mut command = if rights::is_root("drop the right to load programs") {
        let mut command = env.command("setpriv");
        command.args(["--bounding-set", "-all", "--inh-caps", "-all", "--"]);
        command
            .arg(imgbuild.get_program())
            .args(imgbuild.get_args());
        command
    } else {
        imgbuild
    };
    let finished = run(&mut command)
        .succeeds()
        .says(&["BPF is not to be had", "mean"]);
    let document = document(&finished);
    assert_eq!(document["source"], "schedstat");
    assert!(document["instead"].is_string(), "{document}");
    let [row] = rows(&document) else {
        panic!("one class, and no causes: {document}");
    };
    assert_eq!(
        (&row["class"], &row["cause"]),
        (&Value::from("other"), &Value::Null)
    );
    assert!(
        row["count"].as_u64() > Some(10) && row["above"].is_null(),
        "{row}"
    );
    // Half of the time at most, of two seconds.
    let waited = row["total"].as_f64().unwrap();
    assert!((0.1..2.5).contains(&waited), "{row}");
}

#[test]
fn its_documents_are_as_published() {
    let _machine = whole_machine();
    let env = TestEnv::new();
    let published = fs::read_to_string(workspace().join("docs/runqlat.schema.json")).unwrap();
    let printed = run(&mut env.imgbuild(["api-schema", "--of", "runqlat"])).succeeds();
    assert_eq!(printed.stdout, published);
    let schema: Value = serde_json::from_str(&published).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for arguments in [
        &["--all", "--for", "1s", "--interval", "300ms"][..],
        &["--pid", "1", "--for", "1s"],
    ] {
        let finished = run(&mut runqlat(&env, arguments)).succeeds();
        let documents = finished.json_lines();
        assert!(!documents.is_empty());
        for document in &documents {
            let errors: Vec<_> = validator
                .iter_errors(document)
                .map(|e| e.to_string())
                .collect();
            assert!(errors.is_empty(), "{errors:?}: {document}");
        }
    }
}

#[test]
fn bad_input_is_named() {
    let env = TestEnv::new();
    for (arguments, code, said) in [
        (&["--pid", "4194304"][..], 1, "no process 4194304 is there"),
        (
            &["--cgroup", "no/such"],
            1,
            "cannot read the processes of the control group",
        ),
        (&["--fleet", "none"], 1, "no fleet"),
        (&["--pid", "1", "--all"], 2, "cannot be used with"),
        (&["--all", "--interval", "1ms"], 2, "use 10ms or more"),
        (&["--all", "--for", "soon"], 2, "--for"),
    ] {
        run(&mut runqlat(&env, arguments)).exits(code).says(&[said]);
    }
}
