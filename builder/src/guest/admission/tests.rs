mod backlog;

use std::fs;

use super::*;

const MIB: u64 = 1 << 20;
const GUEST: u64 = 40 * MIB;
const FLOOR: u64 = 1024 * MIB;

const SPEC: AdmissionSpec = AdmissionSpec {
    keep_free: FLOOR,
    rate: None,
    parallel: None,
    guest_memory: GUEST,
    merged_memory: None,
};

/// A host with memory to spare.
const IDLE: Seen = Seen {
    booting: 0,
    living: 0,
    available: 100 * FLOOR,
    room: u64::MAX,
    memory_pressure: 0.0,
    ksm: None,
};

/// A host with no room for another guest.
const SHORT: Seen = Seen {
    living: 100,
    available: FLOOR + GUEST - 1,
    ..IDLE
};

fn ksm(full_scans: u64, merged: u64) -> KsmSeen {
    KsmSeen {
        full_scans,
        shared: 10,
        merged,
        unmerged: 1000,
        left_out: 0,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One word for a verdict.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Start => "start",
        Verdict::Full(Delay::Memory { .. } | Delay::Group { .. }) => "full",
        Verdict::Full(_) => "full for another reason",
        Verdict::Wait { why, .. } => match why {
            Delay::Parallel { .. } => "parallel",
            Delay::Rate(_) => "rate",
            Delay::Pressure(_) => "pressure",
            Delay::Memory { .. } => "memory",
            Delay::Group { .. } => "group",
            Delay::Merging { .. } => "merging",
            Delay::Backlog { .. } => "backlog",
        },
    }
}

/// The verdicts on what is seen, each at its second.
fn verdicts(admission: &mut Admission, began: Instant, seen: &[(u64, Seen)]) -> Vec<&'static str> {
    seen.iter()
        .map(|(second, seen)| word(admission.may_start(began + seconds(*second), seen)))
        .collect()
}

#[test]
fn each_bound_holds_guests_back() {
    let with = |booting, available, memory_pressure| Seen {
        booting,
        available,
        memory_pressure,
        ..IDLE
    };
    let most = IDLE.available;
    let table = [
        (with(0, most, 0.0), "start"),
        (with(4, most, 0.0), "start"),
        (with(5, most, 0.0), "parallel"),
        (with(0, most, 10.0), "start"),
        (with(0, most, 10.01), "pressure"),
        (with(0, most, f64::NAN), "start"),
        (with(0, FLOOR + GUEST, 0.0), "start"),
        (with(0, FLOOR + GUEST - 1, 0.0), "memory"),
        // Those that boot have not taken all of theirs.
        (with(2, FLOOR + 3 * GUEST, 0.0), "start"),
        (with(2, FLOOR + 3 * GUEST - 1, 0.0), "memory"),
        (with(0, 0, 99.0), "memory"),
        (with(usize::MAX, 0, 0.0), "parallel"),
    ];
    for (seen, verdict) in table {
        let mut admission = Admission::new(&SPEC, 4);
        let now = Instant::now();
        assert_eq!(word(admission.may_start(now, &seen)), verdict, "{seen:?}");
    }
    let spec = AdmissionSpec {
        parallel: Some(1),
        guest_memory: u64::MAX,
        keep_free: u64::MAX,
        ..SPEC
    };
    let mut admission = Admission::new(&spec, 4);
    let seen = [(0, with(1, most, 0.0)), (0, with(0, u64::MAX, 0.0))];
    assert_eq!(
        verdicts(&mut admission, Instant::now(), &seen),
        ["parallel", "start"]
    );
}

/// When guests start, in milliseconds, if who waits always comes so `late`.
fn starts(rate: f64, late: Duration, over: Duration) -> Vec<u128> {
    let spec = AdmissionSpec {
        rate: Some(rate),
        ..SPEC
    };
    let mut admission = Admission::new(&spec, 4);
    let began = Instant::now() + seconds(60);
    let mut now = began;
    let mut starts = Vec::new();
    while now < began + over {
        match admission.may_start(now, &IDLE) {
            Verdict::Start => {
                admission.started(now);
                starts.push((now - began).as_millis());
            }
            Verdict::Wait {
                until,
                why: Delay::Rate(why),
            } if why.to_bits() == rate.to_bits() => now = until + late,
            other => panic!("{other:?}"),
        }
    }
    starts
}

#[test]
fn starts_keep_to_their_rate() {
    assert_eq!(starts(4.0, Duration::ZERO, seconds(1)), [0, 250, 500, 750]);
    assert_eq!(starts(0.5, Duration::ZERO, seconds(5)), [0, 2000, 4000]);
    // A short delay is made good.
    let late = starts(100.0, Duration::from_millis(7), seconds(10));
    assert_eq!(late.len(), 1000);

    let spec = AdmissionSpec {
        rate: Some(10.0),
        ..SPEC
    };
    let mut admission = Admission::new(&spec, 4);
    let began = Instant::now() + seconds(60);
    admission.started(began);
    // A long pause is not.
    let later = began + seconds(3600);
    let mut burst = 0;
    while admission.may_start(later, &IDLE) == Verdict::Start {
        admission.started(later);
        burst += 1;
    }
    assert_eq!(burst, 2);
}

#[test]
fn a_host_is_full_when_memory_does_not_come_back() {
    let short = |more| Seen {
        available: SHORT.available - 50 * MIB + more,
        ..SHORT
    };
    let mut admission = Admission::new(&SPEC, 4);
    let seen = [
        (0, short(0)),
        (9, short(0)),
        // It got better, if not enough.
        (9, short(MIB)),
        (18, short(MIB)),
        // What comes and goes is nothing.
        (18, short(MIB + 4096)),
        (19, short(2 * MIB - 1)),
        // Full it stays until there is enough.
        (20, short(20 * MIB)),
        (21, short(40 * MIB)),
        (22, IDLE),
        (23, short(0)),
        (33, short(0)),
    ];
    assert_eq!(
        verdicts(&mut admission, Instant::now(), &seen),
        [
            "memory", "memory", "memory", "memory", "memory", "full", "full", "full", "start",
            "memory", "full"
        ]
    );
}

/// What is seen at which second, and the verdicts on it.
type Row<'a> = (&'a [(u64, Seen)], &'a [&'a str]);

#[test]
fn a_control_group_that_is_full_holds_guests_back() {
    // Nothing of what it allows is to stay free, unlike on the host.
    let with = |booting, room| Seen {
        booting,
        room,
        ..IDLE
    };
    let mut admission = Admission::new(&SPEC, 4);
    let began = Instant::now();
    let seen = [
        (0, with(0, GUEST)),
        (1, with(1, 2 * GUEST - 1)),
        (1, with(1, 2 * GUEST)),
        (2, with(0, GUEST - 1)),
        (13, with(0, GUEST - 1)),
    ];
    assert_eq!(
        verdicts(&mut admission, began, &seen),
        ["start", "group", "start", "group", "full"]
    );
    let verdict = admission.may_start(began + seconds(14), &with(0, 0));
    let Verdict::Full(delay) = verdict else {
        panic!("{verdict:?}");
    };
    assert!(
        delay.to_string().contains("limit leaves 0 bytes"),
        "{delay}"
    );
}

#[test]
fn ksm_is_waited_for_while_it_merges() {
    let at = |full_scans, merged| Seen {
        ksm: Some(ksm(full_scans, merged)),
        ..SHORT
    };
    let began = Instant::now();
    let start = |full_scans| {
        let mut admission = Admission::new(&SPEC, 4);
        let seen = Seen {
            ksm: Some(ksm(full_scans, 0)),
            ..IDLE
        };
        assert_eq!(admission.may_start(began, &seen), Verdict::Start);
        admission.started(began);
        admission
    };
    let table: [Row<'_>; 5] = [
        // Still growing, long after all was looked at.
        (
            &[
                (0, at(9, 0)),
                (9, at(10, 300)),
                (18, at(11, 600)),
                (27, at(12, 900)),
            ],
            &["merging", "merging", "merging", "merging"],
        ),
        // Nothing more to come: it has been over all memory.
        (&[(0, at(9, 500)), (10, at(9, 500))], &["merging", "full"]),
        (&[(0, at(9, 500)), (10, at(9, 755))], &["merging", "full"]),
        // It has not.
        (
            &[
                (0, at(5, 500)),
                (10, at(5, 500)),
                (30, at(7, 500)),
                (31, at(8, 500)),
            ],
            &["merging", "merging", "merging", "full"],
        ),
        // It does not get to it: others take its CPU time.
        (
            &[(0, at(5, 500)), (59, at(5, 500)), (60, at(5, 500))],
            &["merging", "merging", "full"],
        ),
    ];
    for (seen, expected) in table {
        assert_eq!(verdicts(&mut start(5), began, seen), expected, "{seen:?}");
    }

    // There is nothing to merge but other people's memory.
    let none = Seen {
        living: 0,
        ..at(5, 0)
    };
    let seen = [(0, none), (10, none)];
    assert_eq!(verdicts(&mut start(5), began, &seen), ["memory", "full"]);
}

#[test]
fn what_holds_guests_back_is_reported_in_figures() {
    let table = [
        (
            Delay::Parallel { booting: 3 },
            "3 guests are booting, which is the most at a time (--parallel)",
        ),
        (Delay::Rate(2.5), "--rate allows 2.5 starts a second"),
        (
            Delay::Pressure(12.34),
            "tasks wait for memory 12.3 % of the time, more than 10 %",
        ),
        (
            Delay::Memory {
                available: 3 << 29,
                floor: 1 << 30,
                guests: 600 * MIB,
            },
            "1.5 GiB of memory are available; the next guest and those that boot take 600.0 MiB, \
             and 1.0 GiB are to stay free",
        ),
        (
            Delay::Merging {
                available: 1 << 30,
                living: 1200,
                merged: 1 << 18,
                unmerged: 1 << 8,
            },
            "1.0 GiB of memory are available, and KSM is still merging the memory of 1,200 guests: \
             it has saved 1.0 GiB and scanned 1.0 MiB",
        ),
    ];
    for (delay, text) in table {
        assert_eq!(delay.to_string(), text);
    }
}

const KSM: &str = "sys/kernel/mm/ksm";

/// What is seen under a root with these files.
fn look_at(files: &[(&str, &[u8])]) -> Seen {
    let root = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    look(root.path(), None, 2, 7)
}

/// KSM's files, with `run` set so.
fn ksm_files(run: &'static [u8]) -> Vec<(String, &'static [u8])> {
    let files: [(&str, &[u8]); 6] = [
        ("run", run),
        ("full_scans", b"12\n"),
        ("pages_shared", b"70\n"),
        ("pages_sharing", b"3400\n"),
        ("pages_unshared", b"50\n"),
        ("pages_volatile", b"6\n"),
    ];
    files
        .into_iter()
        .map(|(name, bytes)| (format!("{KSM}/{name}"), bytes))
        .collect()
}

const NOTHING: Seen = Seen {
    booting: 2,
    living: 7,
    available: u64::MAX,
    room: u64::MAX,
    memory_pressure: 0.0,
    ksm: None,
};

#[test]
fn a_host_is_looked_at() {
    let ksm = ksm_files(b"1\n");
    let mut files: Vec<_> = ksm.iter().map(|(path, bytes)| (&**path, *bytes)).collect();
    files.push((
        "proc/meminfo",
        b"MemTotal:       2048 kB\nMemAvailable:   1024 kB\n",
    ));
    files.push((
        "proc/pressure/memory",
        b"some avg10=1.25 avg60=0.00 avg300=0.01 total=10461462\nfull avg10=9.00 avg60=0.00\n",
    ));
    let seen = Seen {
        available: MIB,
        memory_pressure: 1.25,
        ksm: Some(KsmSeen {
            full_scans: 12,
            shared: 70,
            merged: 3400,
            unmerged: 56,
            left_out: 0,
        }),
        ..NOTHING
    };
    assert_eq!(look_at(&files), seen);
}

#[test]
fn what_cannot_be_read_holds_nobody_back() {
    assert_eq!(look_at(&[]), NOTHING);
    let long = vec![b'9'; 2 << 20];
    let hostile: [&[u8]; 12] = [
        b"",
        b"\n",
        b"\xff\xfe\0",
        b"MemAvailable",
        b"MemAvailable:\nMemAvailable: kB",
        b"MemAvailable: -1 kB",
        b"MemAvailable: 99999999999999999999 kB",
        b"some",
        b"some avg10=",
        b"some avg10=nan avg60=0.00",
        b"some avg10=1e999",
        &long,
    ];
    for bytes in hostile {
        let seen = look_at(&[("proc/meminfo", bytes), ("proc/pressure/memory", bytes)]);
        assert_eq!(
            seen,
            NOTHING,
            "{:?}",
            String::from_utf8_lossy(bytes).get(..20)
        );
    }
    for broken in 0..6 {
        let ksm = ksm_files(b"1\n");
        let mut files: Vec<_> = ksm.iter().map(|(path, bytes)| (&**path, *bytes)).collect();
        files[broken].1 = b"many";
        assert_eq!(look_at(&files), NOTHING, "{}", files[broken].0);
    }
    for run in [&b"0\n"[..], b"2\n"] {
        let ksm = ksm_files(run);
        let files: Vec<_> = ksm.iter().map(|(path, bytes)| (&**path, *bytes)).collect();
        assert_eq!(look_at(&files), NOTHING);
    }
}
