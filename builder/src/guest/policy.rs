//! When a guest counts as late, and whether and when it is started again.

use std::time::Duration;

use super::Reason;
use crate::guest::Restart;

/// How long a guest must have been ready for its next end to count as the first.
pub const SETTLED: Duration = Duration::from_secs(10);
/// Ends in a row after which a guest is given up, unless a policy says otherwise.
pub const GIVE_UP: u32 = 5;

/// What a guest's state machine goes by.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Which guests are started again once they ended.
    pub restart: Restart,
    /// How long a guest may take to report ready, what its VMM waited for a CPU
    /// not counted.
    pub boot_timeout: Duration,
    /// How long it may take to answer.
    pub answer_within: Duration,
    /// How long after its last sign of life it is asked for one; never without.
    pub health: Option<Duration>,
    /// How long a guest that ended stays down.
    pub backoff: Backoff,
    /// Ends in a row, without being ready for [`SETTLED`] in between, after which
    /// it is given up.
    pub give_up: u32,
    /// What becomes of one that the host keeps from being started.
    pub on_trouble: OnTrouble,
}

/// What becomes of a guest that the host keeps from being started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTrouble {
    /// It is tried on until it starts, and nothing of that counts as an end.
    TryOn,
    /// It ended, as for any other reason.
    GiveUp,
}

/// How far apart starts are tried that the host keeps from coming to anything: a
/// minute at most, jitter included.
pub const TRY_ON: Backoff = Backoff {
    first: Duration::from_millis(250),
    most: Duration::from_secs(40),
};

impl Policy {
    /// Whether a guest that ended for this reason is to be started again.
    pub(crate) fn replaces(&self, reason: &Reason) -> bool {
        match self.restart {
            Restart::Always => true,
            Restart::OnFailure => *reason != Reason::PoweredOff,
            Restart::Never => false,
        }
    }
}

/// How long a guest that ended stays down: doubled with each end in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first end.
    pub first: Duration,
    /// The most, before jitter.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            most: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// How long to stay down after so many `ends` in a row, times 0.5 to 1.5 as
    /// `jitter` goes from 0 to 1, so that guests that ended together do not
    /// start together.
    pub fn delay(&self, ends: u32, jitter: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(ends.saturating_sub(1));
        let delay = self.first.saturating_mul(doubled).min(self.most);
        // Fails only for a jitter that is not a number, or a time beyond a clock's.
        Duration::try_from_secs_f64(delay.as_secs_f64() * (0.5 + jitter)).unwrap_or(delay)
    }
}
