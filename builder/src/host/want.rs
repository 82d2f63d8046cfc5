//! The fleet that a host is checked for, and what a guest of it costs.

use serde::{Deserialize, Serialize};

use super::severity::Severity;
use crate::units::MAX_GUESTS;
use crate::vmm::{Accel, Machine, Net, Sharing};

/// Open files that a supervisor holds for each guest: the guest's console and
/// its VMM's pidfd.
pub(crate) const LAUNCHER_FILES_A_GUEST: u64 = 2;

/// Open files that a supervisor holds beside those, with room to spare: 25 at
/// rest, some 12 while a guest starts, and one for each request under way.
pub(crate) const LAUNCHER_FILES_BESIDE: u64 = 48;

/// What a host is to be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Want {
    /// Number of guests; with none given, the question is how many fit.
    pub guests: Option<u32>,
    /// Number of the first one.
    #[serde(default)]
    pub first: u32,
    /// What a guest runs on.
    #[serde(flatten)]
    pub machine: Machine,
    /// Under which users guests run.
    pub users: GuestUsers,
    /// What a guest costs the host.
    pub cost: Cost,
}

/// Under which users guests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GuestUsers {
    /// All under the one that launches them.
    Own,
    /// Each under one of its own, where root launches them and there are such.
    Apart,
}

impl Want {
    /// Number of guests that there is to be room for: one at least.
    pub(crate) fn wanted(&self) -> u64 {
        u64::from(self.guests.unwrap_or(1)).max(1)
    }

    /// How many numbers there are from 0 up to its last guest's: what follows a
    /// guest's number, such as its user id, is set aside for those before the first
    /// guest too.
    pub(crate) fn numbers(&self) -> u64 {
        u64::from(self.first).saturating_add(self.wanted())
    }

    /// How many of its guests have something of which there is so much, one for each
    /// number from 0 on.
    pub(crate) fn of_numbers(&self, numbers: u64) -> u64 {
        numbers.saturating_sub(self.first.into())
    }

    /// Most guests that a fleet which begins so may have.
    pub(crate) fn most(&self) -> u32 {
        MAX_GUESTS.saturating_sub(self.first)
    }

    /// How much something matters that is felt under KVM alone. What would stop
    /// guests there keeps those under TCG from being faster; what would slow them
    /// there changes nothing for those.
    pub(crate) fn under_kvm(&self, severity: Severity) -> Severity {
        match (self.machine.accel, severity) {
            (Accel::Kvm, severity) => severity,
            (Accel::Tcg, Severity::Blocker | Severity::Limit) => Severity::Advice,
            (Accel::Tcg, Severity::Advice | Severity::Ok) => Severity::Ok,
        }
    }

    /// What helps guests under KVM, or, if they are to run under it, TCG instead.
    pub(crate) fn or_tcg(&self, instruction: &str) -> String {
        match self.machine.accel {
            Accel::Kvm => format!("{instruction}, or use --accel tcg"),
            Accel::Tcg => instruction.to_owned(),
        }
    }

    /// How much something matters that only sharing pages needs.
    pub(crate) fn when_shared(&self, severity: Severity) -> Severity {
        match self.machine.sharing {
            Sharing::None => Severity::Ok,
            Sharing::Guest | Sharing::All => severity,
        }
    }

    /// How much something matters that only taps need.
    pub(crate) fn with_taps(&self, severity: Severity) -> Severity {
        match self.machine.net {
            Net::Tap => severity,
            Net::User | Net::None => Severity::Ok,
        }
    }

    /// How much it matters that no more than `allowed` guests fit.
    pub(crate) fn limit(&self, allowed: u64) -> Severity {
        if allowed < self.wanted() {
            Severity::Limit
        } else {
            Severity::Ok
        }
    }
}

/// What a guest costs the host.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Where these figures come from.
    pub basis: Basis,
    /// Host memory of one guest more, in bytes, while nothing is shared.
    pub memory: u64,
    /// The same once KSM has merged guests' RAM; `None` where that is unknown.
    pub memory_merged: Option<u64>,
    /// Host memory that all guests share and that counts once, in bytes.
    pub memory_once: u64,
    /// Threads of its VMM.
    pub threads: u64,
    /// Threads that the kernel has for it, which count for the host alone.
    #[serde(default)]
    pub kernel_threads: u64,
    /// Open files of its VMM.
    pub files: u64,
    /// Its files on the disk of the fleet's folder, in bytes.
    pub disk: u64,
}

/// Where the figures of a [`Cost`] come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Basis {
    /// Measured by canaries on this host.
    Measured,
    /// Typical of the reference guest; a canary tells better.
    Assumed,
}
