//! Starts beside a ksmd that merges, in a simulation of it.

use super::super::super::ksmd::Pace;
use super::super::super::simulated::{FIXED, Host, STOCK, UNMERGED};
use super::*;

/// What a guest takes once it is merged.
const MERGED: u64 = 7 * MIB / 2;
const CLONES: AdmissionSpec = AdmissionSpec {
    guest_memory: MERGED + UNMERGED,
    merged_memory: Some(MERGED),
    ..SPEC
};
/// The most starts a second that two busy CPUs were seen to do.
const FASTEST: u32 = 57;

/// Who sets ksmd's rate.
enum Ksmd {
    Driven,
    Left,
    Stopped,
}

/// How a fleet grew.
struct Grown {
    /// The most memory that it took.
    peak: u64,
    took: Duration,
    /// How long KSM was waited for.
    waited: Duration,
    last: Host,
}

/// Starts so many guests as fast as they can be, and as admission lets them.
fn grow(guests: usize, mut host: Host, ksmd: &Ksmd) -> Grown {
    let mut admission = Admission::new(&CLONES, 57);
    let mut pace = Pace::default();
    let (began, mut waited, mut peak) = (host.now, Duration::ZERO, 0);
    let mut next_look = began;
    while host.guests().living < guests {
        if matches!(ksmd, Ksmd::Driven) && host.now >= next_look {
            next_look = host.now + host.look(&mut pace);
        }
        let seen = host.guests();
        let seen = Seen {
            booting: seen.living - seen.up,
            living: seen.living,
            ksm: (!matches!(ksmd, Ksmd::Stopped)).then(|| host.ksm()),
            ..IDLE
        };
        let until = match admission.may_start(host.now, &seen) {
            Verdict::Start => {
                admission.started(host.now);
                host.start();
                host.now + seconds(1) / FASTEST
            }
            Verdict::Wait {
                until,
                why: Delay::Backlog { .. },
            } => {
                waited += until - host.now;
                until
            }
            other => panic!("{other:?}"),
        };
        while host.now < until {
            host.tick();
            peak = peak.max(host.memory(MERGED));
        }
        assert!(host.now - began < seconds(3600));
    }
    Grown {
        peak,
        took: host.now - began,
        waited,
        last: host,
    }
}

#[test]
fn a_fleet_that_grows_takes_half_as_much_again_as_it_takes_merged_at_most() {
    for guests in [300, 1500, 4680] {
        let grown = grow(guests, Host::new(FIXED), &Ksmd::Driven);
        let merged = guests as u64 * MERGED;
        assert!(
            grown.peak * 100 <= merged * 155,
            "{guests} guests: {} MiB of {} MiB",
            grown.peak / MIB,
            merged / MIB
        );
        // It is not slower than ten a second for that.
        assert!(grown.took < seconds(guests as u64 / 10), "{:?}", grown.took);
    }
}

#[test]
fn ksm_that_does_not_keep_up_is_not_waited_for() {
    // A pass over 30 guests takes 12 s, and over 300 two minutes.
    for guests in [30, 300] {
        let grown = grow(guests, Host::new(STOCK), &Ksmd::Left);
        assert!(grown.waited <= seconds(12), "{:?}", grown.waited);
    }
    // Others take all CPU time.
    let mut starved = Host::new(FIXED);
    starved.speed = 0;
    let grown = grow(300, starved, &Ksmd::Left);
    assert!(grown.waited > seconds(1), "{:?}", grown.waited);
    assert!(grown.waited <= seconds(8), "{:?}", grown.waited);
    assert_eq!(grown.last.ksm().full_scans, 0);
    // It does not run.
    let grown = grow(300, Host::new(FIXED), &Ksmd::Stopped);
    assert_eq!(grown.waited, Duration::ZERO);
}

#[test]
fn ksm_is_waited_for_again_once_it_has_caught_up() {
    let mut admission = Admission::new(&CLONES, 4);
    let began = Instant::now();
    let at = |second, full_scans, living| {
        let ksm = Some(ksm(full_scans, 0));
        (
            second,
            Seen {
                living,
                ksm,
                ..IDLE
            },
        )
    };
    let seen = [
        at(0, 5, 0),
        // 31 guests take 248 MiB more than they will.
        at(0, 5, 31),
        at(0, 5, 32),
        at(5, 5, 32),
        at(6, 5, 40),
        at(60, 5, 60),
        // It is done with all of them, and with none of those that come after.
        at(61, 9, 60),
        at(62, 12, 60),
        at(63, 12, 92),
    ];
    assert_eq!(
        verdicts(&mut admission, began, &seen),
        [
            "start", "start", "backlog", "backlog", "start", "start", "start", "start", "backlog"
        ]
    );
}

#[test]
fn what_is_not_to_be_merged_is_not_waited_for() {
    let seen = Seen {
        booting: 0,
        living: 1000,
        ksm: Some(ksm(5, 0)),
        ..IDLE
    };
    let none = AdmissionSpec {
        merged_memory: None,
        ..CLONES
    };
    let nothing = AdmissionSpec {
        merged_memory: Some(CLONES.guest_memory),
        ..CLONES
    };
    for (spec, expected) in [(none, "start"), (nothing, "start"), (CLONES, "backlog")] {
        let mut admission = Admission::new(&spec, 4);
        let now = Instant::now();
        admission.may_start(now, &Seen { living: 0, ..seen });
        let verdict = admission.may_start(now, &seen);
        assert_eq!(word(verdict), expected);
    }
    let mut admission = Admission::new(&CLONES, 4);
    let now = Instant::now();
    admission.may_start(now, &Seen { living: 0, ..seen });
    let Verdict::Wait { why, .. } = admission.may_start(now, &seen) else {
        panic!("it is not waited for");
    };
    assert_eq!(
        why.to_string(),
        "KSM has yet to merge about 7.8 GiB of 1,000 guests, and no more are started than it can \
         merge 1.7 GiB of"
    );
}
