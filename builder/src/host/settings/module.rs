//! Kernel modules that imgbuild may load.

use std::fmt;
use std::process::Command;

use rustix::process::geteuid;
use serde::Serialize;

use crate::interrupt::Interrupt;
use crate::process::{self, ProcessError};

/// A kernel module that imgbuild may load; no other ever is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Module {
    KvmIntel,
    KvmAmd,
}

/// Why a module was not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    #[error("the module {module} cannot be loaded by this user; run imgbuild as root")]
    Denied { module: Module },
    /// modprobe(8) did not load it.
    #[error("the module {module} is not loaded: {source}")]
    Modprobe {
        module: Module,
        source: ProcessError,
    },
}

impl Module {
    /// Its name, as modprobe(8) has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::KvmIntel => "kvm_intel",
            Self::KvmAmd => "kvm_amd",
        }
    }

    /// What it is for, in a few words.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::KvmIntel => "/dev/kvm on Intel's processors",
            Self::KvmAmd => "/dev/kvm on AMD's processors",
        }
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Loads a module, with what it needs. Nothing undoes it: a module may have come
/// into use since, and an unused one costs nothing. Tell the user so.
pub(crate) fn load_module(module: Module, interrupt: &Interrupt) -> Result<(), ModuleError> {
    if !geteuid().is_root() {
        return Err(ModuleError::Denied { module });
    }
    let mut command = Command::new("modprobe");
    command.arg(module.name());
    process::run(command, interrupt, |_, line| tracing::debug!("{line}"))
        .map_err(|source| ModuleError::Modprobe { module, source })
}
