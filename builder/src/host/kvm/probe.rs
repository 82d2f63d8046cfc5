//! Whether KVM really runs a guest's kernel code.

use serde::{Deserialize, Serialize};

use super::deadline::watched;
use super::measure;

/// Runs ring-0 code on `/dev/kvm`, for 1.5 s at most.
#[must_use]
pub fn run() -> Outcome {
    match watched(measure::BOUND, measure::probe) {
        Ok(Ok(probe)) => Outcome::Ran(probe),
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// What came of the probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It ran to its end.
    Ran(Probe),
    /// It could not be made: which system call failed, and how.
    Failed(String),
}

/// What KVM did with ring-0 code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// `KVM_GET_API_VERSION`.
    pub api: i32,
    /// Nanoseconds that an instruction of a counting loop takes in ring 0 of a
    /// 64-bit guest; `None` if the loop did not end.
    pub ring0_ns: Option<f64>,
    /// Nanoseconds of the same on the host itself, in ring 3.
    pub host_ns: f64,
    /// Exits a second of a loop of port writes; `None` if it did not end.
    pub exits_per_second: Option<f64>,
    /// Instructions that an early kernel needs, each with what became of it.
    pub instructions: Vec<Instruction>,
}

/// An instruction that an early kernel needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instruction {
    /// Its name, such as `XRSTOR`.
    pub name: String,
    /// What became of it.
    pub result: Execution,
}

/// What became of an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Execution {
    /// It did what the manual says.
    Ran,
    /// The CPU does not have it, by CPUID.
    Unsupported,
    /// It ran, and did something else.
    Wrong,
    /// `KVM_EXIT_INTERNAL_ERROR`, with its suberror: 1 is an emulation failure.
    InternalError {
        /// The suberror.
        suberror: u32,
    },
    /// The guest shut down: a triple fault.
    TripleFault,
    /// It did not come back in time.
    TimedOut,
    /// Another exit than the one expected.
    OtherExit {
        /// Its name, or what the system call said.
        exit: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn show() {
        for _ in 0..3 {
            let start = std::time::Instant::now();
            let o = run();
            println!("{:?} {o:#?}", start.elapsed());
        }
    }
}
