//! When the image's SSH server is started, started again, and given up waiting for.
//!
//! Times are in milliseconds of uptime.

use crate::protocol::DeviceState;

/// How often it is looked at whether it listens.
const LOOK_MS: u64 = 20;
/// The same once it did not in time.
const LATE_LOOK_MS: u64 = 1000;
/// How long it is down before it is started again, at first and at the most. One
/// that listened for the latter begins anew.
const DELAY_MS: u64 = 1000;
const DELAY_MAX_MS: u64 = 60_000;
/// A server comes up on as little CPU time as some log-ins take, and what those may
/// take grows with the fleet.
const LOGINS: u64 = 3;

/// The server's life so far, through all its starts.
#[derive(Debug)]
pub struct Upkeep {
    patience_ms: u64,
    /// Until when the guest is not ready, for the server may come up yet.
    coming_until_ms: Option<u64>,
    state: State,
    delay_ms: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// It is to listen soon.
    Starting {
        until_ms: u64,
    },
    /// It did not in time.
    Mute,
    Listening {
        since_ms: u64,
    },
    /// It is not running.
    Down {
        until_ms: u64,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The server is to be started.
    Start,
    /// It is to be said that the server does not listen.
    Report,
}

impl Upkeep {
    /// Of a server that is to be started at `now`, in a fleet where a log-in may take
    /// `login_ms`.
    pub fn new(now: u64, login_ms: u64) -> Self {
        let patience_ms = login_ms.saturating_mul(LOGINS);
        Self {
            patience_ms,
            coming_until_ms: Some(now.saturating_add(patience_ms)),
            state: State::Down { until_ms: now },
            delay_ms: DELAY_MS,
        }
    }

    /// Whether it may come up soon, so that the guest is not ready yet. One that ends
    /// meanwhile is started again in time.
    pub fn is_coming(&self) -> bool {
        self.coming_until_ms.is_some()
    }

    /// Whether it serves.
    pub fn state(&self) -> DeviceState {
        match self.state {
            State::Listening { .. } => DeviceState::Up,
            _ if self.is_coming() => DeviceState::Absent,
            State::Starting { .. } | State::Mute | State::Down { .. } => DeviceState::Failed,
        }
    }

    /// How long from `now` until it needs a turn.
    pub fn waits_ms(&self, now: u64) -> Option<u64> {
        match self.state {
            State::Starting { .. } => Some(LOOK_MS),
            State::Mute => Some(LATE_LOOK_MS),
            State::Listening { .. } => None,
            State::Down { until_ms } => {
                let until_ms = until_ms.min(self.coming_until_ms.unwrap_or(until_ms));
                Some(until_ms.saturating_sub(now))
            }
        }
    }

    /// Takes note of the time, and of whether it listens, which is looked at only
    /// where that matters.
    pub fn go_on(&mut self, now: u64, is_listening: impl Fn() -> bool) -> Option<Due> {
        let mut due = None;
        match self.state {
            State::Starting { .. } | State::Mute if is_listening() => {
                self.state = State::Listening { since_ms: now };
                self.coming_until_ms = None;
            }
            State::Starting { until_ms } if now >= until_ms => {
                self.state = State::Mute;
                due = Some(Due::Report);
            }
            State::Down { until_ms } if now >= until_ms => due = Some(Due::Start),
            _ => {}
        }
        self.coming_until_ms = self.coming_until_ms.filter(|until| now < *until);
        due
    }

    /// Takes note that it was started.
    pub fn started(&mut self, now: u64) {
        let until_ms = now.saturating_add(self.patience_ms);
        self.state = State::Starting { until_ms };
    }

    /// Takes note that it ended, or could not be started; gives in how many seconds it
    /// is started again.
    pub fn ended(&mut self, now: u64) -> u64 {
        if let State::Listening { since_ms } = self.state
            && now.saturating_sub(since_ms) >= DELAY_MAX_MS
        {
            self.delay_ms = DELAY_MS;
        }
        let delay_ms = self.delay_ms;
        let until_ms = now.saturating_add(delay_ms);
        self.state = State::Down { until_ms };
        self.delay_ms = (delay_ms * 2).min(DELAY_MAX_MS);
        delay_ms / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN_MS: u64 = 10_000;

    fn started() -> Upkeep {
        let mut upkeep = Upkeep::new(500, LOGIN_MS);
        assert_eq!(upkeep.go_on(500, || false), Some(Due::Start));
        upkeep.started(500);
        upkeep
    }

    #[test]
    fn a_server_that_ends_before_it_listens_is_still_waited_for() {
        let mut upkeep = started();
        assert_eq!(upkeep.ended(600), 1);
        assert_eq!(upkeep.go_on(600, || false), None);
        assert!(upkeep.is_coming());
        assert_eq!(upkeep.state(), DeviceState::Absent);
        assert_eq!(upkeep.waits_ms(600), Some(1000));
        assert_eq!(upkeep.go_on(1600, || false), Some(Due::Start));
        upkeep.started(1600);
        assert_eq!(upkeep.go_on(1700, || true), None);
        assert!(!upkeep.is_coming());
        assert_eq!(upkeep.state(), DeviceState::Up);
    }

    #[test]
    fn a_server_is_waited_for_once_and_so_long() {
        let mut upkeep = started();
        for now in [600, 2_000, 5_000, 9_000, 18_000] {
            upkeep.ended(now);
        }
        // It is down beyond the time: the guest is ready without it all the same.
        assert_eq!(upkeep.waits_ms(18_000), Some(12_500));
        assert_eq!(upkeep.go_on(30_499, || false), None);
        assert!(upkeep.is_coming());
        assert_eq!(upkeep.go_on(30_500, || false), None);
        assert!(!upkeep.is_coming());
        assert_eq!(upkeep.state(), DeviceState::Failed);
        // Later starts hold nothing up, and say failed and not absent.
        assert_eq!(upkeep.go_on(34_000, || false), Some(Due::Start));
        upkeep.started(34_000);
        assert!(!upkeep.is_coming());
        assert_eq!(upkeep.state(), DeviceState::Failed);
        assert_eq!(upkeep.go_on(64_000, || false), Some(Due::Report));
        assert_eq!(upkeep.go_on(65_000, || false), None);
        assert_eq!(upkeep.go_on(66_000, || true), None);
        assert_eq!(upkeep.state(), DeviceState::Up);
    }

    #[test]
    fn the_wait_grows_with_what_a_log_in_may_take() {
        let mut upkeep = Upkeep::new(0, 40_000);
        upkeep.started(0);
        assert_eq!(upkeep.go_on(119_999, || false), None);
        assert!(upkeep.is_coming());
        assert_eq!(upkeep.go_on(120_000, || false), Some(Due::Report));
        assert!(!upkeep.is_coming());
    }

    #[test]
    fn one_that_ends_is_started_later_each_time_until_it_served_for_long() {
        let mut upkeep = started();
        let delays: [u64; 8] = core::array::from_fn(|_| upkeep.ended(600));
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        upkeep.started(100_000);
        assert_eq!(upkeep.go_on(100_100, || true), None);
        assert_eq!(upkeep.waits_ms(100_100), None);
        assert_eq!(upkeep.ended(160_100), 1);
    }
}
