use std::collections::HashMap;
use std::fmt::Write as _;

use tty_init::host::parse;
use tty_init::protocol::Message;

use super::heard::{LINE_WIDTH, TAIL_LINES};
use super::*;
use crate::guest::Restart;
use crate::sample::schedule::Schedule;
use crate::vmm::{Chance, End, MachineState, StartMethod};

mod properties;

const READY: &str = r#"{"event":"ready","id":"g00000","ms":700,"seq":1,"identity":"applied","disk":"up","net":"up","ssh":"up","burn":{"duty":0,"threads":1,"rounds":0}}"#;
const HEARTBEAT: &str = r#"{"event":"heartbeat","id":"g00000","ms":900,"seq":2,"identity":"applied","disk":"up","net":"up","ssh":"up","burn":{"duty":100,"threads":1,"rounds":7}}"#;
const REPLY: &str =
    r#"{"event":"reply","id":"g00000","ms":900,"seq":2,"tag":1,"code":0,"output":""}"#;
const PARKED: &str = r#"{"event":"parked","id":"","ms":300,"seq":0}"#;
const FATAL: &str =
    r#"{"event":"fatal","id":"","ms":700,"seq":1,"reason":"mount /proc: no such device"}"#;
const POWER_OFF: &str = r#"{"event":"poweroff","id":"g00000","ms":950,"seq":3}"#;
const REBOOT: &str = r#"{"event":"reboot","id":"g00000","ms":950,"seq":3}"#;
const STOPPED_BURNING: &str = r#"{"event":"heartbeat","id":"g00000","ms":900,"seq":2,"identity":"applied","disk":"up","net":"up","ssh":"up","burn":{"duty":0,"threads":1,"rounds":7}}"#;
const TERMINATED: &str = "qemu-system-x86_64: terminating on signal 15 from pid 7 (sh)";
const PANIC: &str = "Kernel panic - not syncing: No working init found.";
const KVM: &str = "qemu: KVM internal error. Suberror: 1";
const POWER_DOWN: &str = "[    9.1] reboot: Power down";

/// What a guest replies that was restored and not told who it is.
const WHO_AM_I: &str = r#"{"event":"reply","id":"","ms":900,"seq":2,"code":1,"output":"not identified yet: `identify` first"}"#;

const START: Event<'_> = Event::Start(StartMethod::Boot);
const CLONE: Event<'_> = Event::Start(StartMethod::Clone);
const BOOT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);
const HEALTH: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(3);
const FIRST: Duration = Duration::from_millis(250);

fn policy(restart: Restart) -> Policy {
    Policy {
        restart,
        boot_timeout: BOOT,
        answer_within: ANSWER,
        health: Some(HEALTH),
        backoff: Backoff::default(),
        give_up: GIVE_UP,
        on_trouble: OnTrouble::TryOn,
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn message(line: &str) -> Message<String> {
    parse(line.as_bytes()).unwrap()
}

/// Of the time for an answer, the vCPU got and waited so many milliseconds.
const fn chance(cpu: u64, waited: u64) -> Chance {
    Chance {
        got: Schedule {
            cpu: Duration::from_millis(cpu),
            waited: Duration::from_millis(waited),
            ..Schedule::NONE
        },
        wall: ANSWER,
    }
}

fn of_a_minute(cpu: u64) -> Chance {
    Chance {
        wall: seconds(60.0),
        ..runnable(chance(cpu, 0))
    }
}

const HUNG: Chance = chance(800, 14_000);
const STARVED: Chance = chance(99, 14_000);
const STOPPED: Chance = Chance {
    got: Schedule {
        cpu: Duration::from_secs(1),
        stopped: true,
        ..Schedule::NONE
    },
    wall: ANSWER,
};
const IDLE: Chance = chance(0, 0);

/// The same, of a vCPU that could run just now.
fn runnable(chance: Chance) -> Chance {
    let runnable = true;
    Chance {
        got: Schedule {
            runnable,
            ..chance.got
        },
        ..chance
    }
}
const RUNNING: Event<'static> = Event::MachineState(MachineState::Running);
const OOM: End = End::Signal {
    signal: 9,
    by_oom: true,
};
const KILLED: End = End::Signal {
    signal: 9,
    by_oom: false,
};

const PORT: &str = "qemu: Could not set up host forwarding rule 'tcp:127.0.0.1:2999-:22'";
const NO_THREAD: &str = "qemu: qemu_thread_create: Resource temporarily unavailable";
const WAITS: &str = "qemu: -chardev socket,id=console: info: QEMU waiting for connection on: unix:";
const ABORTED: End = End::Signal {
    signal: 6,
    by_oom: false,
};

fn full_disk() -> Reason {
    Reason::Host(Trouble::Short("No space left on device".to_owned()))
}

/// A guest with its clock and its policy.
struct Bench {
    guest: Guest,
    now: Instant,
    policy: Policy,
}

impl Bench {
    fn new(restart: Restart) -> Self {
        Self {
            guest: Guest::default(),
            now: Instant::now(),
            policy: policy(restart),
        }
    }

    fn does(&mut self, event: &Event<'_>) -> Option<Action> {
        let before = self.guest.phase();
        let actions = self.guest.apply(self.now, 0.5, event, &self.policy);
        assert_eq!(
            actions.changed,
            self.guest.phase() != before,
            "{event:?} in {before:?}"
        );
        if actions.changed {
            assert_eq!(self.guest.since(), Some(self.now));
        }
        actions.action
    }

    fn says(&mut self, line: &str) -> Option<Action> {
        match parse(line.as_bytes()) {
            Ok(message) => self.does(&Event::Message(&message)),
            Err(_) => self.does(&Event::Text(line)),
        }
    }

    fn waits(&mut self, time: Duration) {
        self.now += time;
    }

    /// Lets time pass until the guest is due, checks when that is, and ticks.
    fn ticks_after(&mut self, time: Duration) -> Option<Action> {
        let due = self.guest.due().expect("it is due");
        assert_eq!(due.duration_since(self.now), time);
        self.now = due;
        self.does(&Event::Tick)
    }

    /// Starts it, and has it report ready a second later.
    fn comes_up(&mut self) {
        assert_eq!(self.does(&START), None);
        self.waits(seconds(1.0));
        assert_eq!(self.says(READY), None);
        assert_eq!(self.guest.phase(), Phase::Ready);
    }

    /// A ready guest that owes an answer when its time is over.
    fn owes() -> Self {
        let mut bench = Self::new(Restart::Always);
        bench.comes_up();
        assert_eq!(bench.ticks_after(HEALTH), Some(Action::Ask));
        bench
    }

    fn reason(&self) -> &Reason {
        self.guest.reason().expect("there is a reason")
    }
}

/// Every place in which a guest can stand, by name.
fn places() -> Vec<(&'static str, Bench)> {
    let made = |steps: &[&Event<'_>]| {
        let mut bench = Bench::new(Restart::Always);
        for step in steps {
            bench.does(step);
        }
        bench
    };
    let ready = message(READY);
    let ready = Event::Message(&ready);
    let ended = Event::Ended(End::Code(1));
    let grace = Event::Stop(GRACE);
    let mut late = Bench::owes();
    late.waits(ANSWER);
    late.does(&Event::Tick);
    late.does(&Event::Chance(STARVED));
    let mut suspected = Bench::owes();
    suspected.waits(ANSWER);
    suspected.does(&Event::Tick);
    suspected.does(&Event::Chance(HUNG));
    let mut queued = made(&[&START, &ended]);
    queued.waits(FIRST);
    queued.does(&Event::Tick);
    let mut failed = made(&[&START]);
    failed.policy.give_up = 1;
    failed.does(&ended);
    vec![
        ("planned", made(&[])),
        ("starting", made(&[&START])),
        ("restoring", made(&[&CLONE])),
        ("adopted", made(&[&Event::Adopted])),
        ("booting", made(&[&START, &Event::Heard])),
        ("ready", made(&[&START, &ready])),
        ("owing", Bench::owes()),
        ("unresponsive", late),
        ("suspected", suspected),
        ("stopping", made(&[&START, &ready, &grace])),
        ("killed", made(&[&START, &ready, &Event::Kill])),
        ("backing off", made(&[&START, &ended])),
        ("queued", queued),
        ("exited", made(&[&grace])),
        ("failed", failed),
    ]
}

/// What each event does in each place: the phase after it, and the action. What
/// is not listed is ignored.
const TABLE: [(&str, &str, &str); 137] = [
    ("planned", "start", "starting"),
    ("planned", "clone", "restoring"),
    ("planned", "stop", "exited"),
    ("planned", "restart", "planned, Spawn"),
    ("planned", "adopted", "starting, Ask"),
    ("planned", "gone", "restarting"),
    ("starting", "spawn failed", "restarting"),
    ("starting", "spawn held", "planned, Spawn"),
    ("starting", "heard", "booting"),
    ("starting", "text", "booting"),
    ("starting", "ready", "ready"),
    ("starting", "heartbeat", "booting"),
    ("starting", "reply", "booting"),
    ("starting", "who am I", "booting"),
    ("starting", "parked", "booting"),
    ("starting", "fatal", "booting"),
    ("starting", "kvm", "starting, Kill"),
    ("starting", "tick", "starting, Measure"),
    ("starting", "idle", "starting, Kill"),
    ("starting", "ended", "restarting"),
    ("starting", "stop", "starting, Kill"),
    ("starting", "kill", "starting, Kill"),
    ("starting", "restart", "starting, Kill"),
    ("restoring", "spawn failed", "restarting"),
    ("restoring", "spawn held", "planned, Spawn"),
    ("restoring", "restored", "booting, Identify"),
    ("restoring", "not restored", "restoring, Kill"),
    ("restoring", "ready", "ready"),
    ("restoring", "kvm", "restoring, Kill"),
    ("restoring", "tick", "restoring, Measure"),
    ("restoring", "idle", "restoring, Kill"),
    ("restoring", "ended", "restarting"),
    ("restoring", "stop", "restoring, Kill"),
    ("restoring", "kill", "restoring, Kill"),
    ("restoring", "restart", "restoring, Kill"),
    ("adopted", "who am I", "starting, Identify"),
    ("adopted", "spawn failed", "restarting"),
    ("adopted", "spawn held", "planned, Spawn"),
    ("adopted", "ready", "ready"),
    ("adopted", "heartbeat", "ready"),
    ("adopted", "kvm", "starting, Kill"),
    ("adopted", "tick", "starting, Measure"),
    ("adopted", "hung", "unresponsive, Inspect"),
    ("adopted", "starved", "unresponsive, Inspect"),
    ("adopted", "idle", "unresponsive, Inspect"),
    ("adopted", "stopped", "unresponsive"),
    ("adopted", "ended", "restarting"),
    ("adopted", "stop", "starting, PowerOff"),
    ("adopted", "kill", "starting, Kill"),
    ("adopted", "restart", "starting, PowerOff"),
    ("booting", "ready", "ready"),
    ("booting", "kvm", "booting, Kill"),
    ("booting", "tick", "booting, Measure"),
    ("booting", "idle", "booting, Kill"),
    ("booting", "ended", "restarting"),
    ("booting", "stop", "booting, Kill"),
    ("booting", "kill", "booting, Kill"),
    ("booting", "restart", "booting, Kill"),
    ("ready", "kvm", "ready, Kill"),
    ("ready", "tick", "ready, Ask"),
    ("ready", "ended", "restarting"),
    ("ready", "stop", "ready, PowerOff"),
    ("ready", "kill", "ready, Kill"),
    ("ready", "restart", "ready, PowerOff"),
    ("owing", "who am I", "ready, Identify"),
    ("owing", "kvm", "ready, Kill"),
    ("owing", "tick", "ready, Measure"),
    ("owing", "hung", "unresponsive, Inspect"),
    ("owing", "starved", "unresponsive, Inspect"),
    ("owing", "idle", "unresponsive, Inspect"),
    ("owing", "stopped", "unresponsive"),
    ("owing", "ended", "restarting"),
    ("owing", "stop", "ready, PowerOff"),
    ("owing", "kill", "ready, Kill"),
    ("owing", "restart", "ready, PowerOff"),
    ("unresponsive", "ready", "ready"),
    ("unresponsive", "heartbeat", "ready"),
    ("unresponsive", "reply", "ready"),
    ("unresponsive", "who am I", "unresponsive, Identify"),
    ("unresponsive", "half restored", "unresponsive, Kill"),
    ("unresponsive", "kvm", "unresponsive, Kill"),
    ("unresponsive", "tick", "unresponsive, Measure"),
    ("unresponsive", "hung", "unresponsive, Inspect"),
    ("unresponsive", "starved", "unresponsive, Inspect"),
    ("unresponsive", "idle", "unresponsive, Inspect"),
    ("unresponsive", "dead", "unresponsive, Kill"),
    ("unresponsive", "ended", "restarting"),
    ("unresponsive", "stop", "unresponsive, PowerOff"),
    ("unresponsive", "kill", "unresponsive, Kill"),
    ("unresponsive", "restart", "unresponsive, PowerOff"),
    ("suspected", "ready", "ready"),
    ("suspected", "heartbeat", "ready"),
    ("suspected", "reply", "ready"),
    ("suspected", "who am I", "unresponsive, Identify"),
    ("suspected", "half restored", "unresponsive, Kill"),
    ("suspected", "kvm", "unresponsive, Kill"),
    ("suspected", "tick", "unresponsive, Kill"),
    ("suspected", "hung", "unresponsive, Inspect"),
    ("suspected", "starved", "unresponsive, Inspect"),
    ("suspected", "idle", "unresponsive, Inspect"),
    ("suspected", "running", "unresponsive, Kill"),
    ("suspected", "dead", "unresponsive, Kill"),
    ("suspected", "ended", "restarting"),
    ("suspected", "stop", "unresponsive, PowerOff"),
    ("suspected", "kill", "unresponsive, Kill"),
    ("suspected", "restart", "unresponsive, PowerOff"),
    ("stopping", "tick", "ready, Kill"),
    ("stopping", "ended", "exited"),
    ("stopping", "stop", "ready, PowerOff"),
    ("stopping", "kill", "ready, Kill"),
    ("stopping", "restart", "ready, PowerOff"),
    ("killed", "ended", "restarting"),
    ("killed", "kill", "ready, Kill"),
    ("backing off", "tick", "restarting, Spawn"),
    ("backing off", "stop", "exited"),
    ("backing off", "restart", "restarting, Spawn"),
    ("queued", "start", "starting"),
    ("queued", "clone", "restoring"),
    ("queued", "stop", "exited"),
    ("queued", "restart", "restarting, Spawn"),
    ("exited", "restart", "restarting, Spawn"),
    ("failed", "stop", "exited"),
    ("failed", "restart", "restarting, Spawn"),
    // Nothing that a guest says or does moves one that has no VMM.
    ("planned", "ended", "planned"),
    ("planned", "text", "planned"),
    ("exited", "start", "exited"),
    ("exited", "clone", "exited"),
    ("exited", "ready", "exited"),
    ("failed", "start", "failed"),
    ("failed", "adopted", "failed"),
    ("backing off", "start", "restarting"),
    ("backing off", "kill", "restarting"),
    // Nor one that is on its way out.
    ("killed", "heartbeat", "ready"),
    ("killed", "restart", "ready"),
    ("killed", "stop", "ready"),
    ("stopping", "hung", "ready"),
    ("stopping", "kvm", "ready"),
];

#[test]
fn every_event_in_every_place() {
    let messages = [
        ("ready", message(READY)),
        ("heartbeat", message(HEARTBEAT)),
        ("reply", message(REPLY)),
        ("parked", message(PARKED)),
        ("fatal", message(FATAL)),
        ("who am I", message(WHO_AM_I)),
    ];
    let mut events = vec![
        ("start", START),
        ("clone", CLONE),
        ("restored", Event::Restored),
        ("not restored", Event::NotRestored("no".to_owned())),
        (
            "spawn failed",
            Event::SpawnFailed(Reason::Spawn("no QEMU".to_owned())),
        ),
        ("spawn held", Event::SpawnFailed(full_disk())),
        ("heard", Event::Heard),
        ("text", Event::Text("Linux version 6.12")),
        ("no text", Event::Text("")),
        ("a warning", Event::VmmText("qemu: warning: slow")),
        ("kvm", Event::VmmText(KVM)),
        ("tick", Event::Tick),
        ("hung", Event::Chance(HUNG)),
        ("starved", Event::Chance(STARVED)),
        ("stopped", Event::Chance(STOPPED)),
        ("idle", Event::Chance(IDLE)),
        ("running", RUNNING),
        ("paused", Event::MachineState(MachineState::Paused)),
        ("disk failed", Event::MachineState(MachineState::DiskFailed)),
        ("dead", Event::MachineState(MachineState::Dead)),
        (
            "half restored",
            Event::MachineState(MachineState::Restoring),
        ),
        ("out of reach", Event::OutOfReach),
        ("ended", Event::Ended(End::Code(1))),
        ("stop", Event::Stop(GRACE)),
        ("kill", Event::Kill),
        ("restart", Event::Restart(GRACE)),
        ("adopted", Event::Adopted),
        ("gone", Event::Gone),
    ];
    events.extend(
        messages
            .iter()
            .map(|(name, message)| (*name, Event::Message(message))),
    );
    let mut expected: HashMap<_, _> = TABLE
        .iter()
        .map(|(place, event, outcome)| ((*place, *event), *outcome))
        .collect();
    assert_eq!(expected.len(), TABLE.len(), "a pair is listed twice");
    for (name, event) in &events {
        for (place, mut bench) in places() {
            if let (Event::Tick, Some(due)) = (event, bench.guest.due()) {
                bench.now = due;
            }
            let ignored = bench.guest.phase().name().to_owned();
            let action = bench.does(event);
            let mut outcome = bench.guest.phase().name().to_owned();
            if let Some(action) = action {
                write!(outcome, ", {action:?}").unwrap();
            }
            let wanted = expected
                .remove(&(place, *name))
                .map_or(ignored, str::to_owned);
            assert_eq!(outcome, wanted, "{name} when {place}");
        }
    }
    assert_eq!(expected, HashMap::new(), "these never happened");
}

#[test]
fn a_guest_that_does_not_come_up_ends_for_its_reason() {
    let timeout = |lines: &[&str]| {
        let mut bench = Bench::new(Restart::Never);
        bench.does(&START);
        for line in lines {
            bench.says(line);
        }
        bench.now = bench.guest.due().unwrap();
        assert_eq!(bench.does(&Event::Tick), Some(Action::Measure));
        assert_eq!(bench.does(&Event::Chance(IDLE)), Some(Action::Kill));
        // It is too late.
        assert_eq!(bench.says(READY), None);
        assert_ne!(bench.guest.phase(), Phase::Ready);
        bench.does(&Event::Ended(KILLED));
        assert_eq!(bench.guest.phase(), Phase::Failed);
        bench.reason().clone()
    };
    let panic = Reason::KernelPanic("No working init found.".to_owned());
    let fatal = Reason::Fatal("mount /proc: no such device".to_owned());
    assert_eq!(timeout(&[]), Reason::Silent(BOOT));
    assert_eq!(timeout(&[""]), Reason::Silent(BOOT));
    assert_eq!(timeout(&["Linux version 6.12"]), Reason::NotReady(BOOT));
    assert_eq!(timeout(&[PARKED]), Reason::NotReady(BOOT));
    assert_eq!(timeout(&[PANIC]), panic);
    assert_eq!(timeout(&[FATAL]), fatal);
}

/// A guest that was started again after an end, and speaks.
fn booting_again() -> Bench {
    let mut bench = Bench::new(Restart::Always);
    bench.does(&START);
    bench.does(&Event::Ended(End::Code(1)));
    bench.ticks_after(FIRST);
    bench.does(&START);
    bench.does(&Event::Heard);
    bench
}

#[test]
fn a_guest_that_starves_while_it_boots_is_left_to_boot() {
    let mut bench = booting_again();
    let starved = runnable(IDLE);
    for turn in 1..100_u32 {
        assert_eq!(bench.ticks_after(BOOT), Some(Action::Measure));
        assert_eq!(bench.does(&Event::Chance(starved)), None);
        assert_eq!(bench.guest.phase(), Phase::Booting);
        assert_eq!(*bench.reason(), Reason::SlowBoot(BOOT * turn));
    }
    bench.says(READY);
    assert_eq!(bench.guest.phase(), Phase::Ready);
    assert_eq!(bench.guest.reason(), None);
    assert_eq!(bench.guest.ready_after(), Some(BOOT * 99));
    assert_eq!(bench.ticks_after(HEALTH), Some(Action::Ask));

    // One that is not kept for long has the reason for which it was started again.
    let mut bench = booting_again();
    bench.says(READY);
    assert_eq!(*bench.reason(), Reason::Ended(End::Code(1)));
}

#[test]
fn a_guest_that_is_stopped_while_it_boots_has_all_its_time_once_it_goes_on() {
    let mut bench = booting_again();
    for _ in 0..10 {
        assert_eq!(bench.ticks_after(BOOT), Some(Action::Measure));
        assert_eq!(bench.does(&Event::Chance(STOPPED)), None);
        assert_eq!(bench.guest.phase(), Phase::Booting);
        assert_eq!(*bench.reason(), Reason::VmmStopped);
    }
    // It looks idle only because it was stopped.
    assert_eq!(bench.ticks_after(BOOT), Some(Action::Measure));
    assert_eq!(bench.does(&Event::Chance(IDLE)), None);
    assert_eq!(*bench.reason(), Reason::SlowBoot(BOOT * 11));
    assert_eq!(bench.ticks_after(BOOT), Some(Action::Measure));
    assert_eq!(bench.does(&Event::Chance(IDLE)), Some(Action::Kill));
    bench.does(&Event::Ended(KILLED));
    assert_eq!(*bench.reason(), Reason::NotReady(BOOT * 12));
}

#[test]
fn an_end_has_its_reason() {
    let panic = Reason::KernelPanic("No working init found.".to_owned());
    let fatal = Reason::Fatal("mount /proc: no such device".to_owned());
    let zero = End::Code(0);
    let table: [(&[&str], End, Reason); 16] = [
        (&[], zero, Reason::Ended(zero)),
        (&[], End::Code(1), Reason::Ended(End::Code(1))),
        (&[POWER_DOWN], End::Unknown, Reason::Ended(End::Unknown)),
        (&[PANIC], zero, panic.clone()),
        (&[FATAL], zero, fatal),
        (&[READY], zero, Reason::Reset),
        (&[READY, POWER_OFF], zero, Reason::PoweredOff),
        (&[READY, POWER_OFF], End::Unknown, Reason::PoweredOff),
        (&[READY, REBOOT], zero, Reason::Rebooted),
        (&[READY], KILLED, Reason::Ended(KILLED)),
        (&[READY], OOM, Reason::OomKilled),
        (&[READY, PANIC], OOM, Reason::OomKilled),
        (&[READY, HEARTBEAT, PANIC], zero, panic),
        // Whoever wrote that, its kernel goes on.
        (&[READY, PANIC, HEARTBEAT], zero, Reason::Reset),
        (&[READY], End::Unknown, Reason::Ended(End::Unknown)),
        (&[READY, POWER_DOWN], End::Unknown, Reason::PoweredOff),
    ];
    for (lines, end, reason) in table {
        let mut bench = Bench::new(Restart::Always);
        bench.does(&START);
        for line in lines {
            bench.says(line);
        }
        bench.does(&Event::Ended(end));
        assert_eq!(*bench.reason(), reason, "{lines:?} {end:?}");
        assert_eq!(bench.guest.phase(), Phase::Restarting);
    }
}

#[test]
fn a_signal_to_its_vmm_is_no_end_of_the_guest_s() {
    let mut bench = Bench::new(Restart::OnFailure);
    bench.comes_up();
    bench.does(&Event::VmmText(TERMINATED));
    bench.does(&Event::Ended(End::Code(0)));
    assert_eq!(*bench.reason(), Reason::Terminated(TERMINATED.to_owned()));
    assert_eq!(bench.guest.phase(), Phase::Restarting);
}

#[test]
fn what_a_guest_burned_is_known_in_its_next_life() {
    let mut bench = Bench::new(Restart::Always);
    bench.comes_up();
    assert_eq!(
        (bench.guest.duty(), bench.guest.has_burned()),
        (None, false)
    );
    bench.says(HEARTBEAT);
    assert!(bench.guest.has_burned());
    bench.does(&Event::Ended(KILLED));
    assert_eq!(bench.ticks_after(FIRST), Some(Action::Spawn));
    bench.comes_up();
    // It is quiet again, and nobody asked it to be.
    assert_eq!(bench.guest.duty(), Some(Duty::WHOLE));
    assert!(!bench.guest.has_burned());
    // Somebody did.
    bench.says(HEARTBEAT);
    bench.says(STOPPED_BURNING);
    assert_eq!(bench.guest.duty(), Some(Duty::NONE));
    assert!(bench.guest.has_burned());
    // What is heard counts more than what was recorded.
    bench.guest.remember(1, Some(Duty::WHOLE), None);
    assert_eq!(bench.guest.duty(), Some(Duty::NONE));
}

#[test]
fn the_policy_tells_what_is_replaced() {
    use Phase::{Exited, Failed, Restarting};
    let table = [
        (Restart::Always, [Restarting; 6]),
        (
            Restart::OnFailure,
            [
                Exited, Restarting, Restarting, Restarting, Restarting, Restarting,
            ],
        ),
        (
            Restart::Never,
            [Exited, Exited, Failed, Failed, Exited, Failed],
        ),
    ];
    for (restart, phases) in table {
        let ends = [
            (Some(POWER_OFF), false, End::Code(0)),
            (Some(REBOOT), false, End::Code(0)),
            // A reset.
            (None, false, End::Code(0)),
            (Some(PANIC), false, End::Code(0)),
            (None, true, KILLED),
            // A crash.
            (None, false, KILLED),
        ];
        for ((last, kill, end), phase) in ends.into_iter().zip(phases) {
            let mut bench = Bench::new(restart);
            bench.comes_up();
            if let Some(line) = last {
                bench.says(line);
            }
            if kill {
                bench.does(&Event::Kill);
            }
            bench.does(&Event::Ended(end));
            assert_eq!(bench.guest.phase(), phase, "{restart:?} {last:?} {end:?}");
        }
        let mut hung = Bench::owes();
        hung.policy = policy(restart);
        hung.does(&Event::Chance(HUNG));
        hung.does(&RUNNING);
        hung.does(&Event::Ended(KILLED));
        let phase = match restart {
            Restart::Never => Failed,
            Restart::Always | Restart::OnFailure => Restarting,
        };
        assert_eq!(hung.guest.phase(), phase, "{restart:?}");
    }
}

#[test]
fn backoff_doubles_up_to_its_most() {
    let backoff = Backoff::default();
    let delays = [0, 1, 2, 3, 8, 9, 10, u32::MAX].map(|ends| backoff.delay(ends, 0.5));
    assert_eq!(
        delays,
        [0.25, 0.25, 0.5, 1.0, 32.0, 60.0, 60.0, 60.0].map(seconds)
    );
    assert_eq!(backoff.delay(3, 0.0), seconds(0.5));
    assert_eq!(backoff.delay(3, 1.0), seconds(1.5));
    assert_eq!(backoff.delay(3, f64::NAN), seconds(1.0));
    let endless = Backoff {
        first: Duration::MAX,
        most: Duration::MAX,
    };
    assert_eq!(endless.delay(9, 1.0), Duration::MAX);
}

#[test]
fn a_guest_that_keeps_ending_is_given_up_with_its_last_words() {
    let mut bench = Bench::new(Restart::Always);
    bench.does(&START);
    for delay in [0.25, 0.5, 1.0, 2.0] {
        bench.says("the last word");
        bench.does(&Event::Ended(End::Code(1)));
        assert_eq!(bench.guest.phase(), Phase::Restarting);
        // Too early a tick is none, and so is a start that nobody asked for.
        assert_eq!(bench.does(&Event::Tick), None);
        bench.does(&START);
        assert_eq!(bench.guest.phase(), Phase::Restarting);
        assert_eq!(bench.ticks_after(seconds(delay)), Some(Action::Spawn));
        assert_eq!(bench.guest.due(), None);
        bench.does(&START);
        assert_eq!(bench.guest.tail().count(), 0);
        assert_eq!(*bench.reason(), Reason::Ended(End::Code(1)));
    }
    bench.says("really the last");
    bench.does(&Event::Ended(End::Code(2)));
    assert_eq!(bench.guest.phase(), Phase::Failed);
    assert_eq!(bench.guest.restarts(), 4);
    assert_eq!(*bench.reason(), Reason::Ended(End::Code(2)));
    assert!(bench.guest.tail().eq(["really the last"]));

    // The user may try again, and it has all its tries.
    assert_eq!(bench.does(&Event::Restart(GRACE)), Some(Action::Spawn));
    bench.does(&START);
    assert_eq!(bench.guest.restarts(), 5);
    bench.does(&Event::SpawnFailed(Reason::Spawn("no QEMU".to_owned())));
    assert_eq!(*bench.reason(), Reason::Spawn("no QEMU".to_owned()));
    assert_eq!(bench.ticks_after(FIRST), Some(Action::Spawn));
}

#[test]
fn a_start_that_the_host_keeps_from_coming_to_anything_is_none() {
    for restart in [Restart::Always, Restart::OnFailure, Restart::Never] {
        let mut bench = Bench::new(restart);
        // Before its first start.
        for _ in 0..10 * GIVE_UP {
            bench.does(&START);
            assert_eq!(bench.guest.phase(), Phase::Starting);
            let held = bench.does(&Event::SpawnFailed(full_disk()));
            assert_eq!(held, Some(Action::Spawn));
            assert_eq!(bench.guest.phase(), Phase::Planned);
            assert_eq!(*bench.reason(), full_disk());
        }
        bench.comes_up();
        assert_eq!((bench.guest.restarts(), bench.guest.reason()), (0, None));

        // And before one of its restarts.
        bench.does(&Event::Restart(GRACE));
        bench.does(&Event::Ended(End::Code(0)));
        for _ in 0..10 * GIVE_UP {
            bench.does(&START);
            bench.does(&Event::VmmText(NO_THREAD));
            assert_eq!(bench.does(&Event::Ended(ABORTED)), Some(Action::Spawn));
            assert_eq!(bench.guest.phase(), Phase::Restarting);
            assert_eq!(bench.guest.restarts(), 0);
        }
        assert_eq!(
            bench.reason().to_string(),
            format!("the host keeps it from starting: {NO_THREAD}")
        );
        bench.comes_up();
        assert_eq!((bench.guest.restarts(), bench.guest.reason()), (1, None));
    }
    // A guest on trial is not tried on.
    let mut bench = Bench::new(Restart::Never);
    bench.policy.on_trouble = OnTrouble::GiveUp;
    bench.does(&START);
    bench.does(&Event::SpawnFailed(full_disk()));
    assert_eq!(bench.guest.phase(), Phase::Failed);
    assert_eq!(*bench.reason(), full_disk());
}

#[test]
fn a_guest_whose_port_is_taken_waits_alone_and_is_to_get_another() {
    let mut bench = Bench::new(Restart::Always);
    for (tries, wait) in [0.25, 0.5, 1.0, 2.0, 4.0].into_iter().enumerate() {
        assert_eq!(bench.guest.has_lost_its_own(), tries >= 4);
        bench.does(&START);
        assert_eq!(bench.guest.has_lost_its_own(), tries >= 4);
        bench.does(&Event::VmmText(PORT));
        assert_eq!(bench.does(&Event::Ended(End::Code(1))), None);
        assert_eq!(bench.guest.phase(), Phase::Planned);
        // Nothing that starts all who are planned starts it before its time.
        bench.does(&START);
        assert_eq!(bench.guest.phase(), Phase::Planned);
        assert_eq!(bench.ticks_after(seconds(wait)), Some(Action::Spawn));
    }
    bench.comes_up();
    assert!(!bench.guest.has_lost_its_own());

    // The user's request comes before its wait.
    bench.does(&Event::Restart(GRACE));
    bench.does(&Event::Ended(End::Code(0)));
    bench.does(&START);
    bench.does(&Event::VmmText(PORT));
    bench.does(&Event::Ended(End::Code(1)));
    assert_eq!(bench.does(&Event::Restart(GRACE)), Some(Action::Spawn));
    assert_eq!(bench.guest.due(), None);
}

#[test]
fn what_a_vmm_says_of_the_host_counts_where_it_ends_its_start() {
    let host = |line: &str| Reason::Host(Trouble::in_message(line).unwrap());
    let killed = "QEMU was ended by the OOM killer".to_owned();
    for (lines, end, reason) in [
        (&[NO_THREAD][..], ABORTED, host(NO_THREAD)),
        (&["Linux version 6.12", NO_THREAD], ABORTED, host(NO_THREAD)),
        (&[], OOM, Reason::Host(Trouble::Short(killed))),
        // A machine that is reset had what it needed, and so has one that lives.
        (&[NO_THREAD], End::Code(0), Reason::Ended(End::Code(0))),
        (&[NO_THREAD, READY], ABORTED, Reason::Ended(ABORTED)),
        (&[READY, NO_THREAD], ABORTED, Reason::Ended(ABORTED)),
        (
            &[NO_THREAD, PANIC],
            ABORTED,
            Reason::KernelPanic("No working init found.".to_owned()),
        ),
    ] {
        let mut bench = Bench::new(Restart::Always);
        bench.does(&START);
        for line in lines {
            if *line == NO_THREAD {
                bench.does(&Event::VmmText(line));
            } else {
                bench.says(line);
            }
        }
        bench.does(&Event::Ended(end));
        assert_eq!(*bench.reason(), reason, "{lines:?} {end:?}");
    }
    let mut hung = Bench::new(Restart::Never);
    hung.does(&START);
    hung.does(&Event::VmmText(NO_THREAD));
    hung.now = hung.guest.due().unwrap();
    hung.does(&Event::Tick);
    assert_eq!(hung.does(&Event::Chance(IDLE)), Some(Action::Kill));
    hung.does(&Event::Ended(KILLED));
    assert_eq!(*hung.reason(), Reason::Silent(BOOT));
}

#[test]
fn ends_count_from_the_last_time_it_was_ready_for_long() {
    let ends_after = |ready: Duration| {
        let mut bench = Bench::new(Restart::Always);
        for _ in 0..20 {
            bench.comes_up();
            bench.waits(ready);
            bench.does(&Event::Ended(End::Code(1)));
            if bench.guest.phase() == Phase::Failed {
                break;
            }
            bench.now = bench.guest.due().unwrap();
            bench.does(&Event::Tick);
        }
        bench.guest.restarts()
    };
    assert_eq!(ends_after(seconds(9.9)), GIVE_UP - 1);
    assert_eq!(ends_after(SETTLED), 19);
}

#[test]
fn a_guest_that_hangs_right_after_it_is_ready_is_given_up() {
    let mut bench = Bench::new(Restart::Always);
    while bench.guest.phase() != Phase::Failed {
        bench.comes_up();
        assert_eq!(bench.ticks_after(HEALTH), Some(Action::Ask));
        assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
        assert_eq!(bench.does(&Event::Chance(HUNG)), Some(Action::Inspect));
        assert_eq!(bench.does(&RUNNING), Some(Action::Kill));
        bench.does(&Event::Ended(KILLED));
        assert_eq!(*bench.reason(), Reason::NoAnswer(ANSWER));
        if let Some(due) = bench.guest.due() {
            bench.now = due;
            assert_eq!(bench.does(&Event::Tick), Some(Action::Spawn));
        }
    }
    assert_eq!(bench.guest.restarts(), GIVE_UP - 1);
    assert_eq!(bench.guest.unresponsive(), GIVE_UP);
}

#[test]
fn a_kill_by_the_user_is_not_held_against_a_guest() {
    let mut bench = Bench::new(Restart::Always);
    for _ in 0..2 * GIVE_UP {
        bench.comes_up();
        assert_eq!(bench.does(&Event::Kill), Some(Action::Kill));
        bench.does(&Event::Ended(KILLED));
        assert_eq!(*bench.reason(), Reason::Killed);
        assert_eq!(bench.ticks_after(FIRST), Some(Action::Spawn));
    }
}

#[test]
fn what_a_vcpu_got_tells_a_hung_guest() {
    let table = [
        (chance(750, 14_250), true),
        (chance(749, 14_250), false),
        // Of a long time, a small part is enough once it is long itself.
        (of_a_minute(2_000), true),
        (of_a_minute(1_999), false),
        // On a host that it has for itself, 100 ms are.
        (
            Chance {
                wall: seconds(2.0),
                ..runnable(chance(100, 0))
            },
            true,
        ),
        (
            Chance {
                wall: seconds(1.0),
                ..runnable(chance(99, 0))
            },
            false,
        ),
        (chance(0, 14_000), true),
        (chance(0, 0), true),
        // Counters read one after another need not add up.
        (chance(50, 15_100), false),
        // It waits just now, nobody knows for how long.
        (runnable(chance(0, 0)), false),
        (runnable(chance(750, 0)), true),
        (
            Chance {
                wall: seconds(0.5),
                ..IDLE
            },
            false,
        ),
        (STOPPED, false),
    ];
    for (chance, had) in table {
        assert_eq!(chance.was_had(), had, "{chance:?}");
    }
}

#[test]
fn a_boot_is_given_up_once_its_vcpu_had_all_its_time_and_looked_at_when_it_may_have() {
    // Of what passed, it waited some; what it is given after that.
    for (chance, left) in [
        (chance(0, 0), None),
        (chance(0, 10_000), None),
        (chance(4_900, 10_100), Some(seconds(0.5))),
        (chance(0, 12_000), Some(seconds(2.0))),
        (chance(0, 14_900), Some(seconds(4.9))),
        // Of several threads, one that waits.
        (chance(5_000, 14_900), None),
        (runnable(chance(1_000, 0)), Some(seconds(4.0))),
        (runnable(chance(5_000, 0)), None),
    ] {
        let mut bench = booting_again();
        assert_eq!(bench.ticks_after(BOOT), Some(Action::Measure));
        let action = bench.does(&Event::Chance(chance));
        match left {
            None => assert_eq!(action, Some(Action::Kill), "{chance:?}"),
            Some(left) => {
                assert_eq!(action, None, "{chance:?}");
                assert_eq!(*bench.reason(), Reason::SlowBoot(BOOT));
                assert_eq!(bench.ticks_after(left), Some(Action::Measure));
            }
        }
    }
}

#[test]
fn a_quiet_guest_is_asked_and_any_sign_of_life_puts_it_off() {
    let mut bench = Bench::new(Restart::Always);
    bench.comes_up();
    for sign in [REPLY, HEARTBEAT, "a line of text"] {
        bench.waits(seconds(29.9));
        assert_eq!(bench.does(&Event::Tick), None);
        assert_eq!(bench.says(sign), None);
    }
    assert_eq!(bench.ticks_after(HEALTH), Some(Action::Ask));
    // Text is not an answer.
    bench.waits(seconds(1.0));
    bench.says("watchdog: BUG: soft lockup");
    assert_eq!(bench.ticks_after(seconds(14.0)), Some(Action::Measure));
    // The answer that comes now is in time, and what was measured of no matter.
    bench.says(HEARTBEAT);
    assert_eq!(bench.does(&Event::Chance(HUNG)), None);
    assert_eq!(bench.guest.phase(), Phase::Ready);
    assert_eq!(bench.ticks_after(HEALTH), Some(Action::Ask));

    bench.policy.health = None;
    bench.says(HEARTBEAT);
    assert_eq!(bench.guest.due(), None);
}

#[test]
fn a_guest_that_hangs_is_replaced() {
    let mut bench = Bench::owes();
    assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
    assert_eq!(bench.does(&Event::Chance(HUNG)), Some(Action::Inspect));
    assert_eq!(bench.does(&RUNNING), Some(Action::Kill));
    assert_eq!(bench.guest.phase(), Phase::Unresponsive);
    assert_eq!(*bench.reason(), Reason::NoAnswer(ANSWER));
    assert_eq!(bench.guest.due(), None);
    // An answer now is too late.
    bench.says(HEARTBEAT);
    assert_eq!(bench.guest.phase(), Phase::Unresponsive);
    bench.does(&Event::Ended(KILLED));
    assert_eq!(bench.ticks_after(FIRST), Some(Action::Spawn));
}

#[test]
fn a_guest_that_panicked_and_hangs_ends_for_its_panic() {
    let mut bench = Bench::owes();
    bench.says(PANIC);
    assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
    assert_eq!(bench.does(&Event::Chance(HUNG)), Some(Action::Inspect));
    assert_eq!(bench.does(&RUNNING), Some(Action::Kill));
    let panic = Reason::KernelPanic("No working init found.".to_owned());
    assert_eq!(*bench.reason(), panic);
}

#[test]
fn a_guest_that_starves_is_left_to_answer() {
    let mut bench = Bench::owes();
    for turn in 1..100_u32 {
        assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
        let inspect = Some(Action::Inspect);
        assert_eq!(bench.does(&Event::Chance(STARVED)), inspect);
        assert_eq!(bench.does(&RUNNING), None);
        assert_eq!(bench.guest.phase(), Phase::Unresponsive);
        assert_eq!(*bench.reason(), Reason::Late(ANSWER * turn));
        assert_eq!(bench.guest.unresponsive(), 1);
    }
    bench.says(HEARTBEAT);
    assert_eq!(bench.guest.phase(), Phase::Ready);
    assert_eq!(bench.guest.reason(), None);
    assert_eq!(bench.guest.ready_after(), Some(seconds(1.0)));
    assert_eq!(bench.ticks_after(HEALTH), Some(Action::Ask));
}

#[test]
fn a_stopped_guest_has_all_its_time_once_it_goes_on() {
    let mut bench = Bench::owes();
    for _ in 0..10 {
        assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
        assert_eq!(bench.does(&Event::Chance(STOPPED)), None);
        assert_eq!(bench.guest.phase(), Phase::Unresponsive);
        assert_eq!(*bench.reason(), Reason::VmmStopped);
    }
    // It looks idle only because it was stopped.
    assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
    assert_eq!(bench.does(&Event::Chance(HUNG)), Some(Action::Ask));
    assert_eq!(*bench.reason(), Reason::Late(ANSWER * 11));
    assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
    assert_eq!(bench.does(&Event::Chance(HUNG)), Some(Action::Inspect));
    assert_eq!(bench.does(&RUNNING), Some(Action::Kill));
    assert_eq!(*bench.reason(), Reason::NoAnswer(ANSWER));
}

#[test]
fn a_paused_guest_has_all_its_time_once_it_goes_on() {
    for (found, reason) in [
        (Event::MachineState(MachineState::Paused), Reason::Paused),
        (
            Event::MachineState(MachineState::DiskFailed),
            Reason::DiskFailed,
        ),
        (Event::OutOfReach, Reason::OutOfReach),
    ] {
        let mut bench = Bench::owes();
        for _ in 0..10 {
            assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
            let inspect = Some(Action::Inspect);
            assert_eq!(bench.does(&Event::Chance(HUNG)), inspect);
            assert_eq!(bench.does(&found), None);
            assert_eq!(bench.guest.phase(), Phase::Unresponsive);
            assert_eq!(*bench.reason(), reason);
        }
        assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
        bench.does(&Event::Chance(HUNG));
        assert_eq!(bench.does(&RUNNING), Some(Action::Ask));
        assert_eq!(*bench.reason(), Reason::Late(ANSWER * 11));
        assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
        bench.does(&Event::Chance(HUNG));
        assert_eq!(bench.does(&RUNNING), Some(Action::Kill));
        assert_eq!(*bench.reason(), Reason::NoAnswer(ANSWER));
    }
}

#[test]
fn a_guest_whose_vmm_is_silent_too_hangs() {
    let mut bench = Bench::owes();
    assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
    bench.does(&Event::Chance(HUNG));
    let wait = ANSWER / 4;
    assert_eq!(bench.ticks_after(wait), Some(Action::Kill));
    assert_eq!(*bench.reason(), Reason::NoAnswer(ANSWER + wait));
}

#[test]
fn a_measurement_that_does_not_come_is_asked_for_again() {
    let mut bench = Bench::owes();
    for _ in 0..3 {
        assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
    }
    assert_eq!(bench.guest.phase(), Phase::Ready);
}

#[test]
fn a_stop_is_by_force_after_its_grace() {
    let mut bench = Bench::new(Restart::Always);
    bench.comes_up();
    assert_eq!(bench.does(&Event::Stop(GRACE)), Some(Action::PowerOff));
    assert_eq!(bench.guest.desired(), Desired::Down);
    // What it says on the way moves nothing, the grace neither.
    bench.says(HEARTBEAT);
    assert_eq!(bench.ticks_after(GRACE), Some(Action::Kill));
    bench.does(&Event::Ended(KILLED));
    assert_eq!(bench.guest.phase(), Phase::Exited);
    assert_eq!(*bench.reason(), Reason::Stopped);
    assert_eq!(bench.guest.due(), None);

    assert_eq!(bench.does(&Event::Restart(GRACE)), Some(Action::Spawn));
    assert_eq!(bench.guest.desired(), Desired::Up);
    bench.comes_up();
    assert_eq!(bench.guest.restarts(), 1);
}

#[test]
fn the_later_request_counts() {
    let mut bench = Bench::new(Restart::Never);
    bench.comes_up();
    bench.does(&Event::Stop(GRACE));
    assert_eq!(bench.does(&Event::Restart(GRACE)), Some(Action::PowerOff));
    assert_eq!(
        bench.does(&Event::Ended(End::Code(0))),
        Some(Action::Spawn),
        "a request to restart is above the policy"
    );
    bench.comes_up();
    bench.does(&Event::Restart(GRACE));
    bench.does(&Event::Stop(Duration::ZERO));
    assert_eq!(bench.ticks_after(Duration::ZERO), Some(Action::Kill));
    assert_eq!(bench.does(&Event::Ended(KILLED)), None);
    assert_eq!(bench.guest.phase(), Phase::Exited);

    // A stop that comes after a kill keeps it down.
    bench.does(&Event::Restart(GRACE));
    bench.comes_up();
    bench.does(&Event::Kill);
    assert_eq!(bench.does(&Event::Stop(GRACE)), None);
    bench.does(&Event::Ended(KILLED));
    assert_eq!(bench.guest.phase(), Phase::Exited);
    assert_eq!(*bench.reason(), Reason::Stopped);
}

#[test]
fn a_guest_is_stopped_while_it_starts() {
    let mut bench = Bench::new(Restart::Always);
    bench.does(&START);
    assert_eq!(bench.does(&Event::Stop(GRACE)), Some(Action::Kill));
    bench.does(&Event::Ended(KILLED));
    assert_eq!(bench.guest.phase(), Phase::Exited);
    // A start that was on its way is not wanted any more.
    bench.does(&START);
    assert_eq!(bench.guest.phase(), Phase::Exited);
}

#[test]
fn an_adopted_guest_is_ready_once_it_answers() {
    let mut bench = Bench::new(Restart::Always);
    assert_eq!(bench.does(&Event::Adopted), Some(Action::Ask));
    bench.does(&Event::Heard);
    bench.says("a line of text");
    assert_eq!(bench.guest.phase(), Phase::Starting);
    bench.says(HEARTBEAT);
    assert_eq!(bench.guest.phase(), Phase::Ready);
    assert_eq!(bench.guest.ready_after(), None);
    assert_eq!(bench.guest.status().unwrap().burn.rounds, 7);
    assert_eq!(bench.ticks_after(HEALTH), Some(Action::Ask));

    // One that says nothing is judged like one that was ready.
    let mut bench = Bench::new(Restart::Always);
    bench.does(&Event::Adopted);
    assert_eq!(bench.ticks_after(ANSWER), Some(Action::Measure));
    bench.does(&Event::Chance(STARVED));
    assert_eq!(bench.guest.phase(), Phase::Unresponsive);
    bench.says(HEARTBEAT);
    assert_eq!(bench.guest.phase(), Phase::Ready);

    let mut bench = Bench::new(Restart::OnFailure);
    bench.does(&Event::Gone);
    assert_eq!(*bench.reason(), Reason::Lost);
    assert_eq!(bench.ticks_after(FIRST), Some(Action::Spawn));
    bench.does(&START);
    assert_eq!(bench.guest.restarts(), 1);
}

#[test]
fn times_beyond_a_clock_are_for_ever() {
    let mut bench = Bench::new(Restart::Always);
    bench.policy.boot_timeout = Duration::MAX;
    bench.policy.answer_within = Duration::MAX;
    bench.policy.health = Some(Duration::MAX);
    bench.comes_up();
    bench.now = bench.guest.due().unwrap();
    bench.does(&Event::Tick);
    assert_eq!(
        bench.does(&Event::Stop(Duration::MAX)),
        Some(Action::PowerOff)
    );
    assert!(bench.guest.due().is_some());
}

#[test]
fn what_a_guest_says_cannot_move_the_cursor() {
    let mut bench = Bench::new(Restart::Never);
    bench.does(&START);
    bench.says(&FATAL.replace("mount", "\\u001b[2J\\u0007mount"));
    bench.does(&Event::Ended(End::Code(0)));
    assert_eq!(
        bench.reason().to_string(),
        "init gave up: \\u{1b}[2J\\u{7}mount /proc: no such device"
    );
}

#[test]
fn the_last_status_of_a_life_is_kept() {
    let mut bench = Bench::new(Restart::Always);
    let rounds = |bench: &Bench| bench.guest.status().map(|status| status.burn.rounds);
    bench.comes_up();
    assert_eq!(rounds(&bench), Some(0));
    bench.says(HEARTBEAT);
    assert_eq!(rounds(&bench), Some(7));
    bench.does(&Event::Restart(GRACE));
    assert_eq!(bench.does(&Event::Ended(End::Code(0))), Some(Action::Spawn));
    assert_eq!(rounds(&bench), Some(7));
    bench.does(&START);
    assert_eq!(rounds(&bench), None);
}

#[test]
fn a_flood_of_text_is_kept_in_bounds() {
    let mut bench = Bench::new(Restart::Always);
    bench.does(&START);
    let long = "x".repeat(100_000);
    for _ in 0..100 {
        bench.says(&long);
        bench.says(&format!("{PANIC}{long}"));
    }
    assert_eq!(bench.guest.tail().count(), TAIL_LINES);
    assert!(bench.guest.tail().all(|line| line.len() == LINE_WIDTH));
    bench.does(&Event::Ended(End::Code(0)));
    assert!(bench.reason().to_string().len() < 2 * LINE_WIDTH);
}

#[test]
fn what_its_vmm_says_of_itself_is_not_what_a_guest_said_last() {
    let mut bench = Bench::new(Restart::Never);
    bench.does(&START);
    bench.does(&Event::VmmText(WAITS));
    assert_eq!(bench.guest.tail().count(), 0);
    bench.says("Linux version 6.12");
    bench.does(&Event::VmmText(WAITS));
    assert!(bench.guest.tail().eq(["Linux version 6.12"]));
    bench.does(&Event::VmmText(NO_THREAD));
    assert_eq!(bench.guest.tail().last(), Some(NO_THREAD));
}

#[test]
fn a_guest_at_rest_is_small() {
    assert!(size_of::<Guest>() <= 256, "{}", size_of::<Guest>());
}

#[test]
fn phases_have_one_name() {
    for phase in <Phase as clap::ValueEnum>::value_variants() {
        let json = serde_json::to_value(phase).unwrap();
        assert_eq!(json, phase.name());
        let value = clap::ValueEnum::to_possible_value(phase).unwrap();
        assert_eq!(value.get_name(), phase.name());
    }
}
