//! A run of 300 guests that never was, for tests of this crate and of the command
//! line: every field of it is filled, and it is the same each time.

use std::collections::BTreeMap;

use imgbuild::bundle::conditions::{guest, host};
use imgbuild::bundle::headline;
use imgbuild::bundle::types::{
    Baseline, Conditions, CpuClass, Goal, GuestBurn, GuestReply, GuestStart, Happening, Headline,
    Hold, MemoryFigures, Moment, Outcome, OverCommit, Plan, RUN_VERSION, Run, RunQueue, Setting,
    Stage, Storm,
};
use imgbuild::control::types::{KsmState, MemoryParts};
use imgbuild::digest::Sha256;
use imgbuild::units::GuestIndex;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// `MemAvailable` before the first guest.
const AVAILABLE: u64 = 22 * GIB;

/// The run of guests 0 to 299.
pub fn example() -> Run {
    shard(0)
}

/// The same run of 300 guests from another number on.
pub fn shard(first: u32) -> Run {
    let stages = [1, 10, 100, 300];
    let mut run = Run {
        run_version: RUN_VERSION,
        imgbuild: "0.1.0".to_owned(),
        fleet: "tty-burn".to_owned(),
        plan: Plan {
            command: ["imgbuild", "density", "--count", "300", "--accel", "tcg"]
                .map(str::to_owned)
                .to_vec(),
            goal: Goal::Count,
            stages: stages.to_vec(),
            first: number(first),
            seed: 16,
            sample: None,
            hold: Some(600.0),
            storm: Some(30),
            settle: 120.0,
            keep_free: GIB,
        },
        began: 1_790_000_000,
        lasted: 1_250.5,
        outcome: Outcome::Complete,
        headline: Headline::default(),
        conditions: conditions(),
        stages: Vec::new(),
        baseline: Some(baseline(first)),
        hold: Some(Hold {
            began: 460.0,
            ended: 1_060.0,
            memory: [memory(300), memory(302)],
            answers: guests(first, 300)
                .map(|guest| reply(guest, 0.012, None))
                .collect(),
            replaced: 2,
            restarts: 3,
        }),
        storm: Some(storm(first)),
        series: (0..=90)
            .map(|step| moment(f64::from(step) * 10.0))
            .collect(),
        events: [
            (0, "the first guest was started"),
            (210_500, "300 guests are ready"),
            (1_060_000, "the storm began"),
        ]
        .map(|(at_ms, what)| Happening {
            at_ms,
            what: what.to_owned(),
        })
        .to_vec(),
    };
    let mut before = 0;
    for (guests, began) in stages.into_iter().zip([0.0, 25.0, 60.0, 180.0]) {
        run.stages.push(stage(first, before, guests, began));
        before = guests;
    }
    run.headline = headline(&run);
    run
}

fn number(index: u32) -> GuestIndex {
    GuestIndex::new(index).unwrap()
}

fn guests(first: u32, count: u32) -> impl Iterator<Item = GuestIndex> {
    (first..first + count).map(number)
}

/// From 0 to 1, by the guest's number alone.
fn scatter(guest: GuestIndex) -> f64 {
    f64::from(guest.get().wrapping_mul(2_654_435_761) >> 16) / f64::from(1 << 16)
}

/// A few replies take ten times as long as most.
fn reply(guest: GuestIndex, typical: f64, failed: Option<&str>) -> GuestReply {
    let scatter = scatter(guest);
    let tail = if scatter > 0.95 { 10.0 } else { 1.0 };
    GuestReply {
        guest,
        seconds: typical * (0.5 + scatter) * tail,
        failed: failed.map(str::to_owned),
    }
}

/// A guest takes less where there are more.
fn memory(count: u32) -> MemoryFigures {
    let guests = u64::from(count);
    let parts = MemoryParts {
        cannot_merge: guests * 27 * MIB / 10,
        shared_by_all: 60 * MIB + guests * MIB / 10,
        kernel: guests * 4 * MIB / 10,
        ksm: guests * 2 * MIB / 10,
    };
    let bytes = parts.cannot_merge + parts.shared_by_all + parts.kernel + parts.ksm;
    MemoryFigures {
        bytes,
        count,
        parts,
        available: Some(AVAILABLE - bytes),
        charged: Some(bytes + 10 * MIB),
    }
}

fn stage(first: u32, before: u32, count: u32, began: f64) -> Stage {
    let added = count - before;
    let growing = f64::from(added) * 0.15;
    let all = || guests(first, count);
    Stage {
        guests: count,
        ready: count,
        began,
        grown: began + growing,
        settled: began + growing + 12.0,
        ended: began + growing + 20.0,
        ksm_state: Some(KsmState::Settled),
        memory: memory(count),
        ksm: BTreeMap::from([
            ("full_scans".to_owned(), 40 + u64::from(count)),
            ("pages_shared".to_owned(), 5_000),
            ("pages_sharing".to_owned(), 4_000 * u64::from(count)),
        ]),
        starts: (guests(first + before, added).zip(0_u32..))
            .map(|(guest, place)| GuestStart {
                guest,
                process: began + f64::from(place) * 0.15,
                spoke: Some(0.1 + 0.1 * scatter(guest)),
                ready: Some(0.4 + 0.5 * scatter(guest)),
            })
            .collect(),
        answers: all().map(|guest| reply(guest, 0.01, None)).collect(),
        deadline: Some(10.0),
        logins: all()
            .map(|guest| {
                let is_lost = count == 300 && guest.get() == first + 7;
                reply(guest, 0.9, is_lost.then_some("no reply within 10 s"))
            })
            .collect(),
        burns: all()
            .map(|guest| GuestBurn {
                guest,
                rounds: Some(2_000.0 / f64::from(count) * (0.9 + 0.2 * scatter(guest))),
                cpu: Some(1.9 / f64::from(count) * (0.9 + 0.2 * scatter(guest))),
            })
            .collect(),
        cpu: BTreeMap::from([
            (CpuClass::Guests, 1.8),
            (CpuClass::Supervisor, 0.01),
            (CpuClass::Ksm, 0.1),
            (CpuClass::Others, 0.05),
            (CpuClass::Idle, 0.04),
        ]),
        wakeups: Some(f64::from(count) * 0.5),
        pressure: BTreeMap::from([
            ("cpu.some".to_owned(), 95.0),
            ("memory.full".to_owned(), 0.0),
        ]),
        over_commit: OverCommit {
            cpu: f64::from(count) / 2.0,
            memory: f64::from(count) * 64.0 / 24_576.0,
            disk: Some(1_024.0),
        },
        predicted: Some(4 * MIB),
        run_queue: ["vcpu", "vmm", "io"]
            .into_iter()
            .map(|class| RunQueue {
                source: "bpf".to_owned(),
                class: class.to_owned(),
                cause: Some("fleet".to_owned()),
                buckets: (0..16).map(|n| u64::from(count) * (16 - n) * n).collect(),
            })
            .collect(),
    }
}

fn baseline(first: u32) -> Baseline {
    let parts = MemoryParts {
        cannot_merge: 4_000 * MIB,
        shared_by_all: 300 * MIB,
        kernel: 100 * MIB,
        ksm: 100 * MIB,
    };
    Baseline {
        guests: 100,
        ready: 100,
        growing: 420.0,
        made_of: BTreeMap::from([
            ("kernel".to_owned(), "Debian's cloud kernel 6.1".to_owned()),
            ("machine".to_owned(), "pc".to_owned()),
        ]),
        argv: ["qemu-system-x86_64", "-machine", "pc,mem-merge=on"]
            .map(str::to_owned)
            .to_vec(),
        memory: MemoryFigures {
            bytes: 4_500 * MIB,
            count: 100,
            parts,
            available: Some(AVAILABLE - 4_500 * MIB),
            charged: None,
        },
        ksm_state: Some(KsmState::Settled),
        peak: 9_000 * MIB,
        logins: guests(first, 100)
            .map(|guest| reply(guest, 1.5, None))
            .collect(),
    }
}

fn storm(first: u32) -> Storm {
    let killed: Vec<_> = guests(first, 300)
        .filter(|guest| guest.get() % 10 < 3)
        .collect();
    Storm {
        began: 1_060.0,
        ended: 1_100.0,
        guests: 300,
        back: killed
            .iter()
            .map(|guest| reply(*guest, 4.0, None))
            .collect(),
        killed,
        resumed: Some(1.2),
        lost: Vec::new(),
    }
}

/// Memory rises as the fleet grows, and falls as KSM merges.
fn moment(at: f64) -> Moment {
    let alive = match at {
        at if at < 25.0 => 1,
        at if at < 60.0 => 10,
        at if at < 180.0 => 100,
        _ => 300,
    };
    let settled = memory(alive).bytes;
    let unmerged = if at < 240.0 { settled / 4 } else { 0 };
    Moment {
        at,
        ready: alive,
        alive,
        available: Some(AVAILABLE - settled - unmerged),
        unmerged: Some(unmerged),
        saved: Some(settled * 8),
        ksmd: Some(at * 0.1),
    }
}

fn conditions() -> Conditions {
    Conditions {
        host: BTreeMap::from(
            [
                (host::KERNEL, "Linux 6.12.117 #1 SMP"),
                (host::CPU_MODEL, "Example CPU @ 2.10GHz"),
                (host::CPU_VENDOR, "GenuineIntel"),
                (host::CGROUP, "2"),
                (host::THP, "madvise"),
                (host::SWAP, "none"),
                (host::SMT, "on"),
                (host::BOOT, "7d3c4e0a-5b1f-4a58-9a6e-0d6c2f1b9e11"),
            ]
            .map(|(condition, value)| (condition.name.to_owned(), value.to_owned())),
        ),
        guest: BTreeMap::from(
            [
                (guest::QEMU, "QEMU 7.2.0"),
                (guest::QEMU_SHA256, &*"ab".repeat(32)),
                (guest::ACCEL, "tcg"),
                (guest::SHARING, "all"),
                (guest::NET, "user"),
                (guest::START, "clone"),
                (guest::RECIPE, "tty-burn"),
                (guest::RESTART, "always"),
                (guest::DISK, "overlay"),
            ]
            .map(|(condition, value)| (condition.name.to_owned(), value.to_owned())),
        ),
        argv: [
            "qemu-system-x86_64",
            "-machine",
            "microvm,accel=tcg",
            "-m",
            "64M",
        ]
        .map(str::to_owned)
        .to_vec(),
        artifacts: ["vmlinux", "initramfs.cpio.gz", "base.qcow2"]
            .map(|name| (name.to_owned(), Sha256::of_bytes(name)))
            .into(),
        settings: vec![Setting {
            name: "ksm.pages_to_scan".to_owned(),
            before: Some("100".to_owned()),
            during: Some("20000".to_owned()),
            after: Some("100".to_owned()),
        }],
        findings: vec!["ksm-rate".to_owned()],
        memory: 24 * GIB,
        cpus: 2,
        guest_memory: 64 * MIB,
        guest_disk: GIB,
        load: 0.05,
        available: AVAILABLE,
    }
}
