//! The reference experiment's way, which a run of the experiment is compared with: its
//! guests are made of Debian's packages, measured, and gone.

use std::thread;
use std::time::Duration;

use imgbuild::reference::{Options, ReferenceError, measure};
use imgbuild_tests::reference::Bed;
use imgbuild_tests::{TestEnv, wait_until};

#[test]
fn two_guests_of_debian_s_parts_are_measured_and_gone() {
    let env = TestEnv::new();
    let bed = Bed::new(&env);
    let options = bed.options(2, Duration::from_secs(1));
    let measured = measure(&options).unwrap();
    assert_eq!((measured.guests, measured.ready), (2, 2), "{measured:?}");
    assert_eq!(measured.memory.count, 2);
    // Two kernels of a distribution, each with its RAM touched by its boot.
    let a_guest = (measured.memory.bytes / 2) >> 20;
    assert!((40..600).contains(&a_guest), "{measured:?}");
    assert!(measured.peak >= measured.memory.bytes, "{measured:?}");
    let logins = measured.logins.iter();
    let logins = logins.map(|reply| (reply.guest.get(), reply.failed.as_deref()));
    assert_eq!(logins.collect::<Vec<_>>(), [(0, None), (1, None)]);
    for package in ["linux-image-", "busybox-static", "dropbear-bin"] {
        let mut parts = measured.made_of.iter();
        let found = parts.find(|(name, _)| name.starts_with(package));
        assert!(found.is_some_and(|(_, what)| what.contains(", sha256 ")));
    }
    let line = measured.argv.join(" ");
    assert!(line.contains(" -machine pc,mem-merge=on -accel tcg -m 1G "));
    assert!(!line.contains('/'), "{line}");
    assert_nothing_left(&env);

    let error = measure(&Options {
        keep_free: u64::MAX,
        ..options
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no guest of the baseline fits"), "{error}");

    let interrupted = thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("two guests boot", || env.processes().len() == 2);
            bed.interrupt.raise();
        });
        measure(&options).unwrap_err()
    });
    let is_interrupted = matches!(interrupted, ReferenceError::Interrupted);
    assert!(is_interrupted, "{interrupted}");
    assert_nothing_left(&env);
}

fn assert_nothing_left(env: &TestEnv) {
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}
