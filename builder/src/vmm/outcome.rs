//! How a VMM ended.

use std::fmt;
use std::time::Duration;

use crate::sample::schedule::Schedule;

/// CPU time in which a guest that works answers, if it comes as one piece of this
/// share of the time: in slices seconds apart it takes more, since an answer goes
/// through several threads that each wait for their turn.
const CHANCE_CPU: Duration = Duration::from_millis(100);
const CHANCE_SHARE: u32 = 20;
/// CPU time in which it answers however it comes.
const CHANCE_LONG: Duration = Duration::from_secs(2);
/// Time without a need for a CPU after which a guest is not going to answer.
const CHANCE_IDLE: Duration = Duration::from_secs(1);

/// How a VMM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit status.
    Code(i32),
    /// By a signal.
    Signal {
        /// Its number.
        signal: i32,
        /// Whether the kernel's OOM killer sent it.
        by_oom: bool,
    },
    /// The VMM of an adopted guest: its status went to who reaped it.
    Unknown,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status: {code}"),
            Self::Signal { signal, .. } => write!(f, "signal: {signal}"),
            Self::Unknown => write!(f, "status unknown"),
        }
    }
}

/// What became of a guest's vCPU since soon after the guest was asked for a sign
/// of life, or since its start if it boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance {
    /// What its VMM got of the CPU.
    pub got: Schedule,
    /// Time that passed.
    pub wall: Duration,
}

impl Chance {
    /// Whether a guest that works would have answered: it ran for long enough,
    /// or had nothing to run for.
    pub fn was_had(&self) -> bool {
        let idle = self.had().saturating_sub(self.got.cpu);
        let cpu = self.got.cpu;
        let ran = cpu >= CHANCE_CPU && cpu * CHANCE_SHARE >= self.wall || cpu >= CHANCE_LONG;
        !self.got.stopped && (ran || idle >= CHANCE_IDLE)
    }

    /// What of the time was the guest's own, which is what it boots in.
    pub(crate) fn had(&self) -> Duration {
        self.got.had(self.wall)
    }
}
