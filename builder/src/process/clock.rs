//! How long a tool may take, measured so that a slow or busy host is not mistaken
//! for a tool that hangs.
//!
//! A tool's clock is the time that passes, less the time that the tool waited for a
//! CPU ([`Schedule::had`]). The clock runs while the tool runs and while it sleeps,
//! so a tool that loops and one that waits for ever both reach their limit. It
//! stands still while the tool could run but gets no CPU, so a starved tool does not
//! reach it. A tool that is starved for too long is given up as well, and its error
//! says that the host is too busy.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::sample::schedule::Schedule;

/// So many times its limit may pass in all, whoever had the CPU.
const PATIENCE: u32 = 6;
/// Least time between two looks at what a tool waited.
const PAUSE: Duration = Duration::from_millis(20);

/// What a tool may take by its clock.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// From its start to its end.
    Whole(Duration),
    /// From one piece of its output to the next.
    Silence(Duration),
}

impl Limit {
    fn time(self) -> Duration {
        match self {
            Self::Whole(time) | Self::Silence(time) => time,
        }
    }
}

/// Why a tool is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// It had all its time.
    HadItsTime(Duration),
    /// It waited for a CPU for most of what passed.
    Starved {
        wall: Duration,
        /// What of it was the tool's.
        had: Duration,
    },
}

/// The clock of a tool that runs.
#[derive(Debug)]
pub(crate) struct Clock {
    limit: Limit,
    pid: u32,
    since: Instant,
    /// What it had got of the CPU until then.
    before: Schedule,
    next_look: Option<Instant>,
}

impl Clock {
    /// That of a tool which starts now.
    pub(crate) fn start(limit: Limit, pid: Pid) -> Self {
        let since = Instant::now();
        Self {
            limit,
            pid: pid.as_raw_pid().cast_unsigned(),
            since,
            before: Schedule::NONE,
            // A time beyond what the system's clock holds is for ever.
            next_look: since.checked_add(limit.time()),
        }
    }

    /// When it is to be looked at next.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// Takes note that the tool said something.
    pub(crate) fn hear(&mut self) {
        if let Limit::Silence(time) = self.limit {
            self.since = Instant::now();
            self.before = Schedule::of(self.pid);
            self.next_look = self.since.checked_add(time);
        }
    }

    /// Whether the tool is overdue, once it is time for a look.
    pub(crate) fn look(&mut self) -> Option<Overdue> {
        let now = Instant::now();
        if self.next_look.is_none_or(|at| now < at) {
            return None;
        }
        let wall = now - self.since;
        let had = Schedule::of(self.pid).since(self.before).had(wall);
        match judge(self.limit.time(), wall, had) {
            Ok(rest) => {
                self.next_look = now.checked_add(rest);
                None
            }
            Err(overdue) => Some(overdue),
        }
    }
}

/// What is left of a tool's time, of which `wall` passed and it `had` so much.
fn judge(limit: Duration, wall: Duration, had: Duration) -> Result<Duration, Overdue> {
    let left = limit.saturating_sub(had);
    if left.is_zero() {
        return Err(Overdue::HadItsTime(limit));
    }
    let most = limit.saturating_mul(PATIENCE).saturating_sub(wall);
    if most.is_zero() {
        return Err(Overdue::Starved { wall, had });
    }
    Ok(left.min(most).max(PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn judged(wall: u64, had: u64) -> Result<Duration, Overdue> {
        judge(LIMIT, Duration::from_secs(wall), Duration::from_secs(had))
    }

    #[test]
    fn a_tool_has_its_limit_however_long_that_takes() {
        for wall in [10, 14, 59, 90] {
            assert_eq!(judged(wall, 10), Err(Overdue::HadItsTime(LIMIT)));
        }
        for (wall, had, rest) in [(10, 9, 1), (10, 1, 9), (20, 0, 10), (59, 2, 1)] {
            assert_eq!(judged(wall, had), Ok(Duration::from_secs(rest)));
        }
    }

    #[test]
    fn one_that_starves_for_ever_is_told_from_one_that_hangs() {
        let starved = Overdue::Starved {
            wall: Duration::from_secs(60),
            had: Duration::from_secs(3),
        };
        assert_eq!(judged(60, 3), Err(starved));
        assert!(judge(Duration::MAX, LIMIT, LIMIT).is_ok_and(|left| left > 1_000 * LIMIT));
    }

    #[test]
    fn looks_are_not_made_without_pause() {
        let almost = LIMIT.saturating_sub(Duration::from_nanos(1));
        assert_eq!(judge(LIMIT, LIMIT, almost), Ok(PAUSE));
    }
}
