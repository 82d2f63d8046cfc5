//! The end of a fleet.

use std::time::Instant;

use super::Fleet;
use crate::control::types::Event;
use crate::fleet::changes::STOP_GRACE;
use crate::fleet::supervise::{SuperviseError, Tally};
use crate::fleet::supervisor::Member;
use crate::fleet::view;
use crate::guest::{Desired, Phase};

impl Fleet<'_> {
    /// Has every guest answer once more, within the time that the fleet gives.
    pub(super) fn ask_in_the_end(&mut self) -> Result<(), SuperviseError> {
        let until = Instant::now() + self.patience();
        self.supervisor.ask_for_heartbeats();
        while self.supervisor.any(Member::owes_an_answer)
            && Instant::now() < until
            && !self.supervisor.interrupted()
        {
            self.take_requests();
            self.turn(Some(until))?;
        }
        let supervisor = &self.supervisor;
        for member in supervisor
            .members()
            .iter()
            .filter(|member| member.is_ready())
        {
            (self.emit)(&Event::Guest(view::guest(supervisor.site(), member)));
        }
        Ok(())
    }

    /// Ends all guests and removes what the fleet had.
    pub(super) fn end(mut self) -> Result<(), SuperviseError> {
        self.changes.end();
        self.report_stage();
        let mut grace = self.changes.grace().unwrap_or(STOP_GRACE);
        self.supervisor.stop_everything(grace);
        while self.supervisor.any(Member::lives) {
            self.take_requests();
            // Who is in more of a hurry.
            if let Some(sooner) = self.changes.grace().filter(|sooner| *sooner < grace) {
                grace = sooner;
                self.supervisor.stop_everything(grace);
            }
            self.turn(None)?;
        }
        let Self {
            supervisor,
            inbox,
            asks,
            server,
            streams,
            changes,
            journal,
            ..
        } = self;
        asks.give_up();
        drop(journal);
        supervisor.into_site().remove();
        // Who waits for the end is answered when nothing is left.
        changes.finish();
        drop((streams, inbox));
        server.stop();
        Ok(())
    }

    pub(super) fn tally(&self, start_seconds: f64) -> Tally {
        let supervisor = &self.supervisor;
        let members = supervisor.members();
        let count = |wanted: fn(&Member) -> bool| members.iter().filter(|m| wanted(m)).count();
        let stopped = count(|member| {
            let guest = member.guest();
            guest.phase() == Phase::Exited && guest.desired() == Desired::Down
        });
        Tally {
            count: members.len(),
            ready: supervisor.count(&[Phase::Ready]),
            burning: count(|member| {
                let status = member.guest().status();
                status.is_some_and(|status| status.burn.rounds > 0)
            }),
            failed: supervisor.count(&[Phase::Failed]),
            exited: supervisor.count(&[Phase::Exited]) - stopped,
            stopped,
            planned: supervisor.count(&[Phase::Planned]),
            silent: supervisor.count(&[Phase::Unresponsive]) + count(Member::owes_an_answer),
            restarts: supervisor.totals().restarts,
            start_seconds,
            held_back: self.reported.1.clone(),
        }
    }
}
