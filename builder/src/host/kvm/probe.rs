//! Whether KVM really runs a guest's kernel code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What came of the probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It ran to its end.
    Ran(Probe),
    /// It could not be made: which system call failed, and how.
    Failed(String),
    /// The host was too busy for it to end.
    Overdue(String),
}

/// What KVM did with ring-0 code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// `KVM_GET_API_VERSION`.
    pub api: i32,
    /// Nanoseconds of CPU time that an instruction of a counting loop takes in
    /// ring 0 of a 64-bit guest, the way in and out left out; `None` if the loop
    /// did not end.
    pub ring0_ns: Option<f64>,
    /// Nanoseconds of the same on the host itself, in ring 3.
    pub host_ns: f64,
    /// Exits of a loop of port writes, in a second of CPU time; `None` if it
    /// ended otherwise, or had none.
    pub exits_per_second: Option<f64>,
    /// Instructions that an early kernel needs, each with what became of it.
    pub instructions: Vec<Instruction>,
    /// Nanoseconds that `KVM_CREATE_VM` takes, waiting included; `None` if it was
    /// not timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_create_ns: Option<Extremes>,
}

/// The least and the most of a few measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extremes {
    /// The least.
    pub least: u64,
    /// The most.
    pub most: u64,
}

/// A loop this much slower in ring 0 than on the host is emulated, and not only
/// slow: a CPU that runs the guest's code takes as long in both.
const EMULATED_FACTOR: f64 = 50.0;
/// Nor does any CPU that runs the code take this many nanoseconds for an
/// instruction of it; emulating one takes hundreds.
pub(crate) const EMULATED_NS: f64 = 20.0;

impl Probe {
    /// Whether ring-0 code is emulated instead of run: the loop did not end, or
    /// was more than 50 times slower than on the host and took more than 20 ns
    /// an instruction.
    pub fn emulates(&self) -> bool {
        let emulated = |ns| ns > EMULATED_NS && ns > EMULATED_FACTOR * self.host_ns;
        self.ring0_ns.is_none_or(emulated)
    }

    /// The instructions that the CPU should have, and that did not do what the
    /// manual says.
    pub fn broken(&self) -> impl Iterator<Item = &Instruction> {
        self.instructions.iter().filter(|instruction| {
            !matches!(instruction.result, Execution::Ran | Execution::Unsupported)
        })
    }
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
    /// The guest's CPU does not have it, by `KVM_GET_SUPPORTED_CPUID`. A kernel
    /// looks there first, and does without it.
    Unsupported,
    /// It ran, and did something else.
    Wrong,
    /// `KVM_EXIT_INTERNAL_ERROR`, with its suberror: 1 is an emulation failure.
    InternalError { suberror: u32 },
    /// The guest shut down: a triple fault.
    TripleFault,
    /// It did not end, although it had its time.
    TimedOut,
    /// Another exit than the one expected.
    OtherExit {
        /// Its name, or what the system call said.
        exit: String,
    },
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ran => f.write_str("ran"),
            Self::Unsupported => f.write_str("not offered"),
            Self::Wrong => f.write_str("wrong result"),
            Self::InternalError { suberror: 1 } => f.write_str("emulation failure"),
            Self::InternalError { suberror } => write!(f, "KVM internal error {suberror}"),
            Self::TripleFault => f.write_str("triple fault"),
            Self::TimedOut => f.write_str("no end"),
            Self::OtherExit { exit } => f.write_str(exit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(ring0_ns: Option<f64>, host_ns: f64, results: &[(&str, Execution)]) -> Probe {
        Probe {
            api: 12,
            ring0_ns,
            host_ns,
            exits_per_second: Some(1e6),
            instructions: results
                .iter()
                .map(|(name, result)| Instruction {
                    name: (*name).into(),
                    result: result.clone(),
                })
                .collect(),
            vm_create_ns: None,
        }
    }

    fn broken(probe: &Probe) -> Vec<&str> {
        probe
            .broken()
            .map(|instruction| instruction.name.as_str())
            .collect()
    }

    #[test]
    fn cpu_that_runs_guests_does_not_emulate() {
        for (ring0_ns, host_ns) in [
            (0.15, 0.15),
            (0.4, 0.3),
            (3.0, 0.2),
            (15.0, 0.2),
            (30.0, 1.0),
        ] {
            let probe = probe(Some(ring0_ns), host_ns, &[("INT3", Execution::Ran)]);
            assert!(!probe.emulates(), "{ring0_ns} ns, {host_ns} ns on the host");
            assert_eq!(broken(&probe), [""; 0]);
        }
    }

    #[test]
    fn slow_or_endless_ring_0_is_emulated() {
        for ring0_ns in [Some(21.0), Some(360.0), Some(700.0), None] {
            assert!(probe(ring0_ns, 0.33, &[]).emulates(), "{ring0_ns:?}");
        }
    }

    #[test]
    fn what_neither_ran_nor_is_lacking_is_broken() {
        let suberror = |suberror| Execution::InternalError { suberror };
        let exit = "KVM_EXIT_HLT".to_owned();
        let probe = probe(
            Some(0.2),
            0.2,
            &[
                ("CPUID", Execution::Ran),
                ("XRSTOR", Execution::Unsupported),
                ("INT3", suberror(1)),
                ("RDMSR", Execution::Wrong),
                ("INVLPG", Execution::TripleFault),
                ("MOV CR3", Execution::TimedOut),
                ("WRMSR", Execution::OtherExit { exit }),
            ],
        );
        assert_eq!(
            broken(&probe),
            ["INT3", "RDMSR", "INVLPG", "MOV CR3", "WRMSR"]
        );
        let said: Vec<String> = probe
            .broken()
            .map(|instruction| instruction.result.to_string())
            .collect();
        assert_eq!(
            said,
            [
                "emulation failure",
                "wrong result",
                "triple fault",
                "no end",
                "KVM_EXIT_HLT"
            ]
        );
    }
}
