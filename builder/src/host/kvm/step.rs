//! The steps of the probe and their results, which are the messages between its two
//! processes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::code::{PROGRAMS, Program};
use super::probe::{Execution, Extremes};

/// What one step of the probe tries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A counting loop on the host.
    HostLoop,
    /// The same in a guest's ring 0.
    GuestLoop,
    /// Making an empty machine.
    VmCreate,
    /// A loop of port writes.
    Exits,
    /// An instruction that an early kernel needs.
    Instruction(&'static Program),
}

impl Step {
    /// Every step, in the order that they are taken in.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let loops = [Self::HostLoop, Self::GuestLoop];
        let instructions = PROGRAMS.iter().map(Self::Instruction);
        let rest = [Self::Exits, Self::VmCreate];
        loops.into_iter().chain(instructions).chain(rest)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HostLoop => "host-loop",
            Self::GuestLoop => "guest-loop",
            Self::VmCreate => "vm-create",
            Self::Exits => "exits",
            Self::Instruction(program) => program.name,
        })
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::all()
            .find(|step| step.to_string() == name)
            .ok_or_else(|| format!("`{name}` is not a step of the probe"))
    }
}

/// What the process that takes the steps says in a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Shown {
    /// `/dev/kvm` is open, and says that it has this version of the interface.
    Opened(i32),
    /// Nanoseconds that an instruction takes on the host.
    HostLoop(f64),
    /// The same in a guest; `None` if the loop ended otherwise than it should.
    GuestLoop(Option<f64>),
    /// Nanoseconds that machines took to make.
    VmCreate(Extremes),
    /// Exits in a second; `None` if the loop ended by itself.
    Exits(Option<f64>),
    /// What became of an instruction.
    Instruction(Execution),
    /// A system call failed: which, and how. Nothing follows.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own() {
        for step in Step::all() {
            let read: Step = step.to_string().parse().unwrap();
            assert_eq!(format!("{read:?}"), format!("{step:?}"));
        }
        assert!("HLT".parse::<Step>().unwrap_err().contains("HLT"));
    }
}
