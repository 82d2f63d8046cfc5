//! The flag that says which QEMU runs guests.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::interrupt::Interrupt;
use crate::vmm::qemu::{Program, ProgramError};

/// Which QEMU runs guests.
#[derive(Debug, Args)]
pub(crate) struct QemuArgs {
    /// Run guests on this QEMU [default: qemu-system-x86_64 or qemu-kvm in PATH,
    /// or where distributions put it]
    #[arg(long, value_name = "PATH", env = "IMGBUILD_QEMU")]
    qemu: Option<PathBuf>,
}

impl QemuArgs {
    /// The QEMU asked for, or else the installed one; `None` where there is none.
    /// What it answers is noted in the cache folder `cache`.
    pub(super) fn program(
        &self,
        cache: &Path,
        interrupt: &Interrupt,
    ) -> Result<Option<Program>, ProgramError> {
        match &self.qemu {
            Some(path) => Ok(Some(Program::given(path, cache, interrupt)?)),
            None => Ok(Program::installed().map(|program| program.remembered(cache))),
        }
    }
}
