//! Runs of the experiment that nobody made, with values as a real one has them.

use std::collections::BTreeMap;

use imgbuild::bundle::types::{
    Baseline, Conditions, CpuClass, Goal, GuestBurn, GuestReply, GuestStart, Happening, Headline,
    Hold, MemoryFigures, Moment, Outcome, OverCommit, Plan, RUN_VERSION, Run, RunQueue, Setting,
    Stage, Storm,
};
use imgbuild::control::types::{KsmState, MemoryParts};
use imgbuild::digest::Sha256;
use imgbuild::units::GuestIndex;

const MIB: f64 = 1024.0 * 1024.0;
const HOST: f64 = 24.0 * 1024.0 * MIB;
const CPUS: f64 = 2.0;

/// Numbers that look random and are the same in each run: Knuth's MMIX generator.
struct Chance(u64);

impl Chance {
    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 33).expect("31 bits")) / f64::from(1_u32 << 31)
    }

    /// About `middle`, with a long tail, as times are.
    fn about(&mut self, middle: f64) -> f64 {
        let bell = (0..6).map(|_| self.share()).sum::<f64>() / 6.0 - 0.5;
        let tail = if self.share() > 0.985 { 2.5 } else { 1.0 };
        middle * (3.0 * bell).exp() * tail
    }
}

fn bytes(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is an amount of memory"
    )]
    let bytes = value.max(0.0) as u64;
    bytes
}

fn guests(range: std::ops::Range<u32>) -> impl Iterator<Item = GuestIndex> {
    range.map(|index| GuestIndex::new(index).expect("it is in range"))
}

/// A fleet's memory with these MiB a guest.
fn memory(count: u32, parts: [f64; 4]) -> MemoryFigures {
    let [cannot_merge, shared_by_all, kernel, ksm] =
        parts.map(|part| bytes(part * f64::from(count) * MIB));
    let all = cannot_merge + shared_by_all + kernel + ksm;
    MemoryFigures {
        bytes: all,
        count,
        parts: MemoryParts {
            cannot_merge,
            shared_by_all,
            kernel,
            ksm,
        },
        available: Some(bytes(HOST - 900.0 * MIB).saturating_sub(all)),
        charged: Some(all + all / 20),
    }
}

fn fleet_memory(count: u32) -> MemoryFigures {
    let n = f64::from(count);
    memory(
        count,
        [2.55 + 2.0 / n, 0.22 + 34.0 / n, 0.41 + 0.6 / n, 0.19],
    )
}

fn replies(chance: &mut Chance, range: std::ops::Range<u32>, middle: f64) -> Vec<GuestReply> {
    guests(range)
        .map(|guest| GuestReply {
            guest,
            seconds: chance.about(middle),
            failed: None,
        })
        .collect()
}

/// A histogram of waits, the most in bucket `middle`, with a tail of whole slices.
fn waits(class: &str, cause: Option<&str>, middle: f64, tail: f64, all: f64) -> RunQueue {
    let row = |at: u32| {
        let at = f64::from(at);
        let bell = (-(at - middle).powi(2) / 3.0).exp();
        let late = tail * (-(at - 12.0).powi(2) / 2.5).exp();
        bytes(all * (bell + late))
    };
    RunQueue {
        source: "bpf".to_owned(),
        class: class.to_owned(),
        cause: cause.map(str::to_owned),
        buckets: (0..18).map(row).collect(),
    }
}

fn stage(chance: &mut Chance, count: u32, before: u32, began: f64) -> Stage {
    let n = f64::from(count);
    let added = f64::from(count - before);
    let grown = began + 0.6 + added * (0.11 + n / 2600.0);
    let settled = grown + 9.0 + n / 40.0;
    let starts = guests(before..count).zip(0_u32..).map(|(guest, at)| {
        let ready = chance.about(0.45 + n / 700.0);
        GuestStart {
            guest,
            process: began + (grown - began) * f64::from(at) / added,
            spoke: Some(ready * (0.4 + 0.2 * chance.share())),
            ready: Some(ready),
        }
    });
    let starts: Vec<_> = starts.collect();
    let answers = replies(chance, 0..count, 0.004 + n * 0.000_45);
    let logins = replies(chance, 0..count, 0.11 + n * 0.003);
    let a_guest = 1.92 / n.max(2.0);
    let burns = guests(0..count).map(|guest| {
        let cpu = a_guest.min(0.98) * (0.93 + 0.14 * chance.share());
        GuestBurn {
            guest,
            rounds: Some(cpu * 41_000.0),
            cpu: Some(cpu),
        }
    });
    let burns = burns.collect();
    let used = (a_guest * n).min(0.98 * n);
    let cpu = [
        (CpuClass::Guests, used),
        (CpuClass::Supervisor, 0.004 + n * 0.000_008),
        (CpuClass::Ksm, 0.03),
        (CpuClass::Others, 0.02),
        (CpuClass::Idle, (CPUS - used - 0.06).max(0.0)),
    ];
    let pressure = [
        ("cpu.some", (n * 8.0).min(99.4)),
        ("memory.some", n / 900.0),
        ("memory.full", n / 2000.0),
        ("io.some", 0.3 + n / 700.0),
    ];
    let ksm = [
        ("full_scans", 40 + u64::from(count) / 3),
        ("pages_shared", 2900 + u64::from(count) * 3),
        ("pages_sharing", u64::from(count) * 2500),
        ("pages_unshared", u64::from(count) * 640),
        ("pages_volatile", u64::from(count) * 12),
    ];
    let tail = 0.02 + n / 4000.0;
    Stage {
        guests: count,
        ready: count,
        began,
        grown,
        settled,
        ended: settled + 12.0 + n / 30.0,
        ksm_state: Some(KsmState::Settled),
        memory: fleet_memory(count),
        ksm: ksm.map(|(name, value)| (name.to_owned(), value)).into(),
        starts,
        answers,
        deadline: Some((n * 0.2).max(10.0)),
        logins,
        burns,
        cpu: cpu.into(),
        wakeups: Some(310.0 + n * 2.1),
        pressure: pressure
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        over_commit: OverCommit {
            cpu: n / CPUS,
            memory: n * 64.0 * MIB / HOST,
            disk: Some(1024.0 * 64.0),
        },
        predicted: Some(bytes((3.9 + 30.0 / n) * MIB)),
        run_queue: vec![
            waits("vcpu", Some("guest"), 2.6 + n.log10() * 0.6, tail, 40_000.0),
            waits("vcpu", Some("ksmd"), 4.0, 0.0, 1_500.0),
            waits("vmm", None, 2.2, tail / 3.0, 9_000.0),
        ],
    }
}

fn moments(stages: &[Stage], end: f64) -> Vec<Moment> {
    let mut moments = Vec::new();
    let mut unmerged = 0.0;
    let mut at = stages[0].began;
    while at < end {
        let begun = stages.iter().take_while(|stage| stage.began <= at).last();
        let Some(stage) = begun else { break };
        let before = guests_before(stages, stage);
        let share = ((at - stage.began) / (stage.grown - stage.began)).clamp(0.0, 1.0);
        let now = f64::from(before) + share * f64::from(stage.guests - before);
        let growing = share < 1.0;
        let rate = f64::from(stage.guests - before) / (stage.grown - stage.began);
        unmerged += if growing { rate * 5.0 } else { 0.0 };
        unmerged -= (unmerged - now * 2.5).max(0.0) * 0.12;
        let taken = now * 0.9 + unmerged;
        moments.push(Moment {
            at,
            ready: u32::try_from(bytes(now)).expect("few guests"),
            alive: u32::try_from(bytes((now + 4.0).min(f64::from(stage.guests)))).expect("few"),
            available: Some(bytes(HOST - (900.0 + taken) * MIB)),
            unmerged: Some(bytes(unmerged * MIB)),
            saved: Some(bytes(now * 9.8 * MIB * (1.0 - (-at / 20.0).exp()))),
            ksmd: Some(at * 0.2),
        });
        at += 1.0;
    }
    moments
}

fn guests_before(stages: &[Stage], stage: &Stage) -> u32 {
    let before = stages
        .iter()
        .rev()
        .find(|other| other.guests < stage.guests);
    before.map_or(0, |other| other.guests)
}

fn words<const N: usize>(words: [(&str, &str); N]) -> BTreeMap<String, String> {
    words
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn conditions() -> Conditions {
    let setting = |name: &str, values: [Option<&str>; 3]| {
        let [before, during, after] = values.map(|value| value.map(str::to_owned));
        Setting {
            name: name.to_owned(),
            before,
            during,
            after,
        }
    };
    let argv = "qemu-system-x86_64 -name g00000 -machine microvm,accel=tcg,mem-merge=on,pic=off \
        -accel tcg,tb-size=1 -cpu max -m 64M -smp 1 -nodefaults -no-user-config -display none \
        -kernel vmlinux -initrd initramfs.cpio.gz -append console=ttyS0,quiet,tty.burn=100 \
        -drive if=none,id=disk,format=qcow2,file=00000.qcow2 -device virtio-blk-device,drive=disk \
        -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:20000-:22 \
        -device virtio-net-device,netdev=net,mac=52:54:00:00:00:00";
    Conditions {
        host: words([
            ("kernel", "6.12.117-cloud-amd64"),
            ("cpu", "AMD EPYC 9B14 96-Core Processor"),
            ("microcode", "0xa101148"),
            ("cgroups", "v2"),
            ("distribution", "Debian GNU/Linux 12 (bookworm)"),
            ("thp", "madvise"),
        ]),
        guest: words([
            ("accelerator", "tcg"),
            ("qemu", "7.2.22"),
            ("sharing", "all"),
            ("start", "clone"),
            ("network", "user"),
            ("recipe", "tty-burn"),
        ]),
        argv: argv.split_whitespace().map(str::to_owned).collect(),
        artifacts: [
            "vmlinux",
            "initramfs.cpio.gz",
            "base.qcow2",
            "kernel.config",
        ]
        .map(|name| (name.to_owned(), Sha256::of_bytes(name)))
        .into(),
        settings: vec![
            setting("ksm.run", [Some("0"), Some("1"), Some("0")]),
            setting(
                "ksm.pages_to_scan",
                [Some("100"), Some("14200"), Some("100")],
            ),
            setting("ksm.sleep_millisecs", [Some("20"), Some("20"), Some("20")]),
            setting("ksm.use_zero_pages", [Some("0"), Some("1"), Some("0")]),
            setting(
                "kernel.pid_max",
                [Some("32768"), Some("4194304"), Some("32768")],
            ),
            setting("ksm.smart_scan", [None, None, None]),
        ],
        findings: vec!["ksm-off".to_owned(), "pid-max".to_owned()],
        memory: bytes(HOST),
        cpus: 2,
        guest_memory: bytes(64.0 * MIB),
        guest_disk: bytes(1024.0 * MIB),
        load: 0.03,
        available: bytes(HOST - 900.0 * MIB),
    }
}

/// A run to 1,000 guests, with all that can be asked for.
pub fn complete() -> Run {
    let mut chance = Chance(7);
    let mut stages: Vec<Stage> = Vec::new();
    for count in [1, 10, 30, 100, 300, 1000] {
        let before = stages.last().map_or(0, |stage| stage.guests);
        let began = stages.last().map_or(2.0, |stage| stage.ended);
        stages.push(stage(&mut chance, count, before, began));
    }
    let last = stages.last().expect("there are stages");
    let held = last.ended;
    let end = held + 600.0;
    let mut after = fleet_memory(1000);
    after.bytes += after.bytes / 60;
    let hold = Hold {
        began: held,
        ended: end,
        memory: [last.memory.clone(), after],
        answers: replies(&mut chance, 0..1000, 0.46),
        replaced: 3,
        restarts: 3,
    };
    let killed: Vec<_> = guests(0..1000).filter(|_| chance.share() < 0.3).collect();
    let back = killed.iter().map(|guest| GuestReply {
        guest: *guest,
        seconds: 4.0 + chance.share() * 38.0,
        failed: None,
    });
    let storm = Storm {
        began: end,
        ended: end + 45.0,
        guests: 1000,
        resumed: Some(3.4),
        back: back.collect(),
        killed,
        lost: Vec::new(),
    };
    let least = |values: &mut dyn Iterator<Item = f64>| values.reduce(f64::min);
    let headline = Headline {
        guests: 1000,
        ready: 1000,
        asked: 1000,
        answered: 1000,
        answered_within: last
            .answers
            .iter()
            .map(|reply| reply.seconds)
            .reduce(f64::max),
        tried: 1000,
        reached: 1000,
        bytes_a_guest: Some(last.memory.bytes / 1000),
        guests_a_gib: Some(1024.0 * MIB * 1000.0 / (3.404 * MIB * 1000.0)),
        peak: Some(1.37),
        growing: stages.iter().map(|stage| stage.grown - stage.began).sum(),
        fairness: Some(0.9984),
        least_burn: Some(0.931),
        least_cpu: least(&mut last.burns.iter().filter_map(|burn| burn.cpu)),
        baseline_ratio: Some((74.2 + 6.1 + 0.9 + 4.3) / (2.57 + 0.56 + 0.416 + 0.19)),
    };
    Run {
        run_version: RUN_VERSION,
        imgbuild: "0.1.0".to_owned(),
        fleet: "thousand".to_owned(),
        plan: plan(&stages),
        began: 1_795_000_000,
        lasted: end + 60.0,
        outcome: Outcome::Complete,
        headline,
        conditions: conditions(),
        series: moments(&stages, end),
        baseline: Some(baseline(&mut chance)),
        hold: Some(hold),
        storm: Some(storm),
        events: events(&stages),
        stages,
    }
}

fn plan(stages: &[Stage]) -> Plan {
    let command = "imgbuild density --count 1000 --accel tcg --sharing all --fix --baseline \
                   --hold 10m --storm 30%";
    Plan {
        command: command.split_whitespace().map(str::to_owned).collect(),
        goal: Goal::Count,
        stages: stages.iter().map(|stage| stage.guests).collect(),
        first: GuestIndex::new(0).expect("it is in range"),
        seed: 2018,
        sample: None,
        hold: Some(600.0),
        storm: Some(30),
        settle: 300.0,
        keep_free: bytes(1024.0 * MIB),
    }
}

fn baseline(chance: &mut Chance) -> Baseline {
    let argv = "qemu-system-x86_64 -machine pc,accel=tcg,mem-merge=on -m 1G -kernel \
                vmlinuz-6.1-cloud-amd64 -initrd baseline.cpio.gz -nographic";
    Baseline {
        guests: 100,
        ready: 100,
        growing: 184.0,
        made_of: words([
            ("kernel", "Debian's cloud kernel 6.1.0"),
            ("machine", "pc"),
            ("memory", "1 GiB"),
            ("ssh", "dropbear"),
            ("burn", "a shell loop"),
        ]),
        argv: argv.split_whitespace().map(str::to_owned).collect(),
        memory: memory(100, [74.2, 6.1, 0.9, 4.3]),
        ksm_state: Some(KsmState::Settled),
        peak: bytes(14_000.0 * MIB),
        logins: replies(chance, 0..100, 1.1),
    }
}

fn events(stages: &[Stage]) -> Vec<Happening> {
    let mut events = Vec::new();
    let mut add = |at: f64, what: String| {
        events.push(Happening {
            at_ms: bytes(at * 1000.0),
            what,
        });
    };
    for stage in stages {
        let guests = stage.guests;
        add(stage.began, format!("the fleet grows to {guests} guests"));
        add(stage.grown, format!("all {guests} guests are ready"));
        add(stage.settled, "KSM has settled".to_owned());
    }
    events
}
