//! The requests of clients to a supervisor.

use super::Fleet;
use crate::control::bridge::{Detail, Request};
use crate::control::types::{self, Event};
use crate::fleet::supervise::REQUESTS_A_TURN;
use crate::fleet::supervisor::Member;
use crate::fleet::view;

/// Guests that are asked how far they burned when a scraper comes: a heartbeat takes a
/// guest a millisecond or two.
const ASKED_A_SCRAPE: usize = 100;

impl Fleet<'_> {
    fn view(&self, detail: Detail) -> types::Fleet {
        let (stage, held_back) = self.reported.clone();
        view::fleet(&self.supervisor, stage, held_back, detail)
    }

    /// The event that says how the fleet stands.
    fn snapshot(&self) -> Event {
        Event::Snapshot(Box::new(self.view(Detail::Whole)))
    }

    /// Tells those who listen of all guests, if they are others than before.
    pub(super) fn tell_of_others(&mut self) {
        let guests = self.supervisor.members().guests();
        if guests != self.told_of {
            self.told_of = guests;
            self.streams.send(&self.snapshot());
        }
    }

    pub(super) fn take_requests(&mut self) {
        self.has_requests = false;
        for _ in 0..REQUESTS_A_TURN {
            match self.inbox.try_recv() {
                Ok(request) => self.take(request),
                Err(_) => return,
            }
        }
        self.has_requests = true;
    }

    pub(super) fn take(&mut self, request: Request) {
        let supervisor = &mut self.supervisor;
        match request {
            Request::Fleet { detail, reply } => {
                let _ = reply.send(self.view(detail));
            }
            Request::Scrape { reply } => {
                let _ = reply.send(self.view(Detail::Summary));
                self.supervisor.ask_in_turn(ASKED_A_SCRAPE);
            }
            Request::Processes { reply } => {
                self.ksmd.look(supervisor);
                let _ = reply.send(view::processes(supervisor, self.ksmd.state()));
            }
            Request::Guest { guest, reply } => {
                let member = supervisor.members().get(guest);
                let _ = reply.send(member.map(|member| view::guest(supervisor.site(), member)));
            }
            Request::Act {
                act,
                request,
                reply,
            } => {
                self.changes
                    .act(supervisor, &mut self.journal, act, &request, reply);
            }
            Request::Scale { count, reply } => {
                self.changes
                    .scale(supervisor, &mut self.journal, count, reply);
            }
            Request::Ask { request, answers } => {
                let patience = self.patience();
                self.asks
                    .begin(&mut self.supervisor, &request, answers, patience);
            }
            Request::Attend { guests, held } => self.asks.attend(supervisor, &guests, held),
            Request::Events { events } => {
                let snapshot = self.snapshot();
                self.streams.add_events(events, snapshot);
            }
            Request::Console { guest, lines } => {
                self.streams.add_console(guest, lines);
            }
            Request::Type {
                guest,
                lines,
                reply,
            } => {
                let lives = supervisor.members().get(guest).is_some_and(Member::lives);
                let _ = reply.send(if lives {
                    // In their order: no later one overtakes one that is not taken.
                    let taken = |line: &&String| supervisor.type_line(guest, line);
                    Ok(lines.iter().take_while(taken).count())
                } else {
                    Err(format!("{guest} is not running"))
                });
            }
        }
    }
}
