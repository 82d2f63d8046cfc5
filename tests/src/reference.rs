//! What guests of the reference experiment's kind are measured with.

use std::time::Duration;

use imgbuild::artifact::opened::Artifacts;
use imgbuild::digest::memo::Memo;
use imgbuild::directories::Directories;
use imgbuild::interrupt::Interrupt;
use imgbuild::reference::Options;
use imgbuild::vmm::Accel;
use imgbuild::vmm::qemu::{Emulator, Program};

use crate::TestEnv;

/// Memory of the host that such guests leave free.
const KEEP_FREE: u64 = 1 << 30;

/// A place for such guests in a test's own folder; the packages that they are made of
/// are in the user's cache, as kernels are.
#[derive(Debug)]
pub struct Bed {
    artifacts: Artifacts,
    directories: Directories,
    qemu: Emulator,
    /// Asks them to stop.
    pub interrupt: Interrupt,
}

impl Bed {
    /// One in this environment.
    #[must_use]
    pub fn new(env: &TestEnv) -> Self {
        let artifacts = Artifacts::open(&env.artifacts("tty-burn")).expect("they were just built");
        let users = Directories::from_environment().expect("a user has a home");
        let directories = Directories {
            state: env.path().join("state/imgbuild"),
            runtime: env.path().join("run/imgbuild"),
            ..users
        };
        let program = Program::installed().expect("bootstrap installs QEMU");
        let memo = Memo::in_cache(&directories.cache);
        Self {
            artifacts,
            qemu: Emulator::of(program.path(), None, &memo).expect("it can be read"),
            directories,
            interrupt: Interrupt::never().expect("two descriptors"),
        }
    }

    /// So many guests under TCG, and so much time for KSM.
    #[must_use]
    pub fn options(&self, guests: u32, settle: Duration) -> Options<'_> {
        Options {
            guests,
            artifacts: &self.artifacts,
            qemu: &self.qemu,
            accel: Accel::Tcg,
            keep_free: KEEP_FREE,
            settle,
            directories: &self.directories,
            interrupt: &self.interrupt,
        }
    }
}
