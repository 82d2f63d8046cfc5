use super::super::simulated::{FIXED, Host};
use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A fleet of so many guests, started at so many a second under `pace`; the most with
/// which KSM was not done.
fn grown(guests: usize, a_second: u32, pace: &mut Pace) -> (Host, usize) {
    let mut host = Host::new(FIXED);
    let mut most = 0;
    for _ in 0..guests {
        host.start();
        host.run(seconds(1) / a_second, pace);
        most = most.max(pace.merging.pending(host.guests().living));
    }
    (host, most)
}

/// The share of a CPU that ksmd takes over the next so many seconds.
fn share(host: &mut Host, pace: &mut Pace, over: Duration) -> f64 {
    let before = host.cpu();
    host.run(over, pace);
    host.cpu().saturating_sub(before).div_duration_f64(over)
}

#[test]
fn ksmd_keeps_up_with_guests_that_start() {
    for (guests, a_second) in [(100, 10), (300, 10), (300, 20), (1000, 16)] {
        let mut pace = Pace::default();
        let (_, most) = grown(guests, a_second, &mut pace);
        // They take 8 MiB more, and the others 3.5.
        assert!(
            most * 8 <= guests * 35 / 20 + 64,
            "{guests} guests, {a_second} a second: {most} pending"
        );
    }
}

#[test]
fn ksmd_takes_no_more_of_a_cpu_than_it_needs() {
    let mut pace = Pace::default();
    let (mut host, _) = grown(300, 3, &mut pace);
    assert!(host.cpu() < seconds(25), "{:?} in 100 s", host.cpu());
    assert!(!pace.has_settled());
    host.run(seconds(60), &mut pace);
    assert!(pace.has_settled());
    host.run(seconds(240), &mut pace);
    let settled = share(&mut host, &mut pace, seconds(120));
    assert!(settled < 0.01, "{settled}");
    // A pass a minute still sees what changes.
    let before = host.ksm().full_scans;
    host.run(seconds(150), &mut pace);
    assert!(host.ksm().full_scans >= before + 2);
}

#[test]
fn a_guest_that_restarts_or_writes_makes_it_go_faster_until_it_has_settled_again() {
    for change in [Host::restart, Host::write] {
        let mut pace = Pace::default();
        let (mut host, _) = grown(300, 20, &mut pace);
        host.run(seconds(300), &mut pace);
        let settled = share(&mut host, &mut pace, seconds(60));
        change(&mut host, 30);
        let mut busiest = 0.0_f64;
        for _ in 0..60 {
            busiest = busiest.max(share(&mut host, &mut pace, seconds(2)));
        }
        assert!(busiest > settled * 5.0, "{busiest}, {settled}");
        host.run(seconds(300), &mut pace);
        assert!(pace.has_settled());
        let again = share(&mut host, &mut pace, seconds(60));
        assert!(again < settled * 2.0, "{again}, {settled}");
    }
}

#[test]
fn the_rate_is_within_what_ksmd_can_do_and_is_not_set_without_need() {
    for wanted in [0, 1, 999, 5_000, 20_000, 100_000, KSMD_MAX, u64::MAX] {
        let rate = Rate::of(wanted);
        let expected = wanted.clamp(LEAST, MOST);
        let found = rate.pages_a_second();
        assert!(found.abs_diff(expected) <= expected / 20, "{rate:?}");
        assert!(rate.pages_to_scan <= 100_000, "{rate:?}");
    }
    let mut pace = Pace::default();
    let (host, _) = grown(50, 10, &mut pace);
    let (ksm, guests) = (host.ksm(), host.guests());
    assert_eq!(pace.rate(&ksm, guests, host.rate), None);
    // Somebody else of imgbuild's has set another.
    let stopped = Rate {
        pages_to_scan: 0,
        sleep_millisecs: 0,
    };
    assert!(pace.rate(&ksm, guests, stopped).is_some());
}
