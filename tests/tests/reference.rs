//! The reference experiment's way, which a run of the experiment is compared with: its
//! guests are made of Debian's packages, measured, and gone.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use imgbuild::artifact::opened::Artifacts;
use imgbuild::digest::memo::Memo;
use imgbuild::directories::Directories;
use imgbuild::interrupt::Interrupt;
use imgbuild::reference::{Options, ReferenceError, measure};
use imgbuild::vmm::Accel;
use imgbuild::vmm::qemu::{Emulator, Program};
use imgbuild_tests::{TestEnv, wait_until};

/// What guests of the reference's kind are measured with, in a test's own folder; the
/// packages are in the user's cache, as kernels are.
struct Bed {
    env: TestEnv,
    artifacts: Artifacts,
    directories: Directories,
    qemu: Emulator,
    interrupt: Interrupt,
}

impl Bed {
    fn new() -> Self {
        let env = TestEnv::new();
        let artifacts = Artifacts::open(&env.artifacts("tty-burn")).unwrap();
        let directories = Directories {
            state: env.path().join("state/imgbuild"),
            runtime: env.path().join("run/imgbuild"),
            ..Directories::from_environment().unwrap()
        };
        let program = Program::installed().unwrap();
        let memo = Memo::in_cache(&directories.cache);
        let qemu = Emulator::of(program.path(), None, &memo).unwrap();
        Self {
            env,
            artifacts,
            directories,
            qemu,
            interrupt: Interrupt::never().unwrap(),
        }
    }

    fn options(&self, guests: u32) -> Options<'_> {
        Options {
            guests,
            artifacts: &self.artifacts,
            qemu: &self.qemu,
            accel: Accel::Tcg,
            keep_free: 1 << 30,
            settle: Duration::from_secs(1),
            directories: &self.directories,
            interrupt: &self.interrupt,
        }
    }

    fn assert_nothing_left(&self) {
        self.env.assert_no_process_left();
        self.env.assert_no_fleet_left();
    }
}

#[test]
fn two_guests_of_debian_s_parts_are_measured_and_gone() {
    let bed = Bed::new();
    let measured = measure(&bed.options(2)).unwrap();
    assert_eq!((measured.guests, measured.ready), (2, 2), "{measured:?}");
    assert_eq!(measured.memory.count, 2);
    // Two kernels of a distribution, each with its RAM touched by its boot.
    let a_guest = measured.memory.bytes / 2 >> 20;
    assert!((40..600).contains(&a_guest), "{measured:?}");
    assert!(measured.peak >= measured.memory.bytes, "{measured:?}");
    let numbers: Vec<_> = (measured.logins.iter())
        .map(|reply| (reply.guest.get(), reply.failed.as_deref()))
        .collect();
    assert_eq!(numbers, [(0, None), (1, None)]);
    for package in ["linux-image-", "busybox-static", "dropbear-bin"] {
        let mut names = measured.made_of.iter();
        let found = names.find(|(name, _)| name.starts_with(package));
        assert!(found.is_some_and(|(_, what)| what.contains(", sha256 ")));
    }
    let line = measured.argv.join(" ");
    assert!(line.contains("-machine pc,mem-merge=on -accel tcg -m 1G "));
    assert!(!line.contains('/'), "{line}");
    bed.assert_nothing_left();
}

#[test]
fn nothing_is_left_of_guests_that_were_interrupted_or_did_not_fit() {
    let bed = Bed::new();
    let options = Options {
        keep_free: u64::MAX,
        ..bed.options(2)
    };
    let error = measure(&options).unwrap_err();
    assert!(
        error.to_string().contains("no guest of the baseline fits"),
        "{error}"
    );
    bed.assert_nothing_left();

    let error = thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("two guests boot", || bed.env.processes().len() == 2);
            bed.interrupt.raise();
        });
        measure(&bed.options(2)).unwrap_err()
    });
    assert!(matches!(error, ReferenceError::Interrupted), "{error}");
    bed.assert_nothing_left();
}

#[test]
fn a_qemu_that_ends_is_an_error_with_its_words() {
    let mut bed = Bed::new();
    bed.qemu.path = PathBuf::from("/bin/ls");
    let error = measure(&bed.options(2)).unwrap_err().to_string();
    assert!(
        error.contains("guest g00000 ended (exit status: 2)"),
        "{error}"
    );
    assert!(
        error.contains("unrecognized option") || error.contains("invalid option"),
        "{error}"
    );
    bed.assert_nothing_left();
}
