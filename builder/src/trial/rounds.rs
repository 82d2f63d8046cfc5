//! Starts guests on trial, listens to them, and ends them.

use std::time::{Duration, Instant};

use super::Trial;
use crate::fleet::supervisor::{Member, Observation, Supervisor, TO_COME};
use crate::system::SystemError;

/// How long after SIGKILL a process may take to end.
const KILL_WAIT: Duration = Duration::from_secs(10);

impl Trial {
    /// Its first guest.
    pub(super) fn member(&self) -> &Member {
        let first = self.supervisor.members().iter().next();
        first.expect("a trial has a guest")
    }

    /// Starts all guests, and returns when each is ready or given up, or when
    /// the user interrupts.
    pub(super) fn start_all(
        &mut self,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> Result<(), SystemError> {
        self.supervisor.start_planned();
        self.turns(None, observe, |supervisor| {
            supervisor.count(&TO_COME) > 0 && !supervisor.is_hopeless() && !supervisor.interrupted()
        })
    }

    /// Listens until `until` (for ever without), until no guest is left, or
    /// until the user interrupts.
    pub(super) fn listen(
        &mut self,
        until: Option<Instant>,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> Result<(), SystemError> {
        self.turns(until, observe, |supervisor| {
            supervisor.any(Member::lives) && !supervisor.interrupted()
        })
    }

    /// Asks every guest that is ready for a heartbeat, and returns when all
    /// have answered, at `until`, or when the user interrupts.
    pub(super) fn ask_all(
        &mut self,
        until: Instant,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> Result<(), SystemError> {
        self.supervisor.ask_for_heartbeats();
        self.turns(Some(until), observe, |supervisor| {
            supervisor.any(Member::owes_an_answer) && !supervisor.interrupted()
        })
    }

    /// Ends all guests, and returns when they are gone.
    pub(super) fn stop_all(
        &mut self,
        grace: Duration,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> Result<(), SystemError> {
        self.supervisor.stop_everything(grace);
        let until = Instant::now() + grace + KILL_WAIT;
        self.turns(Some(until), observe, |supervisor| {
            supervisor.any(Member::lives)
        })
    }

    /// Listens while that `goes_on`, until `until` at the latest.
    fn turns(
        &mut self,
        until: Option<Instant>,
        observe: &mut dyn FnMut(&Member, &Observation),
        goes_on: fn(&Supervisor) -> bool,
    ) -> Result<(), SystemError> {
        while goes_on(&self.supervisor) && until.is_none_or(|at| Instant::now() < at) {
            for notice in self.supervisor.turn(until)? {
                observe(&self.supervisor.members()[notice.guest], &notice.what);
            }
        }
        Ok(())
    }
}
