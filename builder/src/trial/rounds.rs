//! How guests on trial are started, heard and ended.

use std::io;
use std::time::{Duration, Instant};

use super::Trial;
use crate::fleet::supervisor::{Member, Observation};
use crate::guest::Phase;

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
    ) -> io::Result<()> {
        self.supervisor.start_planned();
        let under_way = [
            Phase::Planned,
            Phase::Starting,
            Phase::Booting,
            Phase::Restarting,
        ];
        while self.supervisor.count(&under_way) > 0
            && !self.supervisor.is_hopeless()
            && !self.supervisor.interrupted()
        {
            self.tell(None, observe)?;
        }
        Ok(())
    }

    /// Listens until `until` (for ever without), until no guest is left, or
    /// until the user interrupts.
    pub(super) fn hold(
        &mut self,
        until: Option<Instant>,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> io::Result<()> {
        while self.supervisor.members().iter().any(Member::lives)
            && until.is_none_or(|at| Instant::now() < at)
            && !self.supervisor.interrupted()
        {
            self.tell(until, observe)?;
        }
        Ok(())
    }

    /// Asks every guest that is ready for a heartbeat, and returns when all
    /// have answered, at `until`, or when the user interrupts.
    pub(super) fn ask_all(
        &mut self,
        until: Instant,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> io::Result<()> {
        self.supervisor.ask_for_heartbeats();
        while self.supervisor.members().iter().any(Member::owes_an_answer)
            && Instant::now() < until
            && !self.supervisor.interrupted()
        {
            self.tell(Some(until), observe)?;
        }
        Ok(())
    }

    /// Ends all guests, and returns when they are gone.
    pub(super) fn stop_all(
        &mut self,
        grace: Duration,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> io::Result<()> {
        self.supervisor.stop_everything(grace);
        let until = Instant::now() + grace + KILL_WAIT;
        while self.supervisor.members().iter().any(Member::lives) && Instant::now() < until {
            self.tell(Some(until), observe)?;
        }
        Ok(())
    }

    fn tell(
        &mut self,
        until: Option<Instant>,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> io::Result<()> {
        for notice in self.supervisor.turn(until)? {
            observe(&self.supervisor.members()[notice.guest], &notice.what);
        }
        Ok(())
    }
}
