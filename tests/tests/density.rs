//! What makes thousands of guests fit on one host: each touches little memory,
//! has most of it in common with the others, and sleeps when it has nothing to
//! do. `docs/density.md` has the numbers.

use std::time::Duration;

use imgbuild::vmm::Net;
use imgbuild_tests::TestEnv;
use imgbuild_tests::guest::{Guest, Way};

/// Windows watched for one without a wakeup. Timers of the first minute, and
/// whatever else a busy machine does to QEMU, fall into some, not into all.
const WINDOWS: usize = 6;
const WINDOW: Duration = Duration::from_secs(10);

#[test]
fn guests_of_a_fleet_touch_little_share_most_and_sleep() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let pair = Guest::fleet(&out, Way::Ours(Net::User), 2);
    for guest in &pair {
        let touched = guest.touched_mib();
        assert!(touched <= 10.0, "{touched} MiB touched");
    }
    let difference = pair[0].difference(&pair[1]);
    assert!(difference.by_content <= 1.0, "{difference:?}");

    let wakeups = Guest::wakeups(&[&pair[0], &pair[1]], WINDOWS, WINDOW);
    for guest in &wakeups {
        let least = guest.iter().map(|seen| seen.vcpu).min();
        assert_eq!(least, Some(0), "{wakeups:?}");
    }
}
