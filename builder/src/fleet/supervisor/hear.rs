//! Reads what guests and their VMMs say, and notices their end.

use std::collections::BTreeSet;
use std::time::Instant;

use mio::Token;
use tty_init::host;
use tty_init::protocol::Message;

use super::Supervisor;
use crate::fleet::supervisor::news::untoken;
use crate::fleet::supervisor::{
    CONNECT_AGAIN, ERRORS, Member, Observation, SOURCES, not_connected, token,
};
use crate::guest::Event;
use crate::text::printable_bytes;
use crate::units::GuestIndex;
use crate::vmm::End;
use crate::vmm::monitor::Told;
use crate::vmm::qemu::conversation::ConversationError;
use crate::vmm::qemu::qmp::Restored;
use crate::vmm::running::{Amount, More, Source, is_out_of_reach};

impl Supervisor {
    /// Takes what a guest has to say, or its end, and gives how much that was.
    pub(super) fn handle(&mut self, token: Token, now: Instant) -> Amount {
        let Some((guest, source)) = untoken(token) else {
            return Amount::default();
        };
        let Some(running) = self.members.get_mut(guest).and_then(Member::running) else {
            return Amount::default();
        };
        match source {
            Source::Console => {}
            Source::End => return self.reap(guest),
            Source::Monitor => {
                self.take_answer(guest);
                return Amount::default();
            }
        }
        running.flush();
        let mut lines = Vec::new();
        let (amount, more) = running.read(now, &mut lines);
        match more {
            More::Nothing => {}
            More::Now => drop(self.unfinished.insert(token, None)),
            More::Later(at) => drop(self.unfinished.insert(token, Some(at))),
        }
        // A line that does not end is a sign of life as well.
        if amount.bytes > 0 {
            self.apply(guest, &Event::Heard);
        }
        self.take_lines(guest, lines);
        amount
    }

    /// Asks a guest's VMM how the guest's machine is.
    pub(super) fn inspect(&mut self, guest: GuestIndex) {
        let token = token(guest, Source::Monitor);
        let Some(running) = self.members[guest].running() else {
            return;
        };
        let asked = self
            .site
            .connect_monitor(guest, running.pid())
            .and_then(|monitor| (running.monitor()).inspect(monitor, self.poll.registry(), token));
        // One whose console nobody holds cannot answer, whatever its VMM says.
        let can_answer = running.is_connected();
        if let Err(error) = &asked {
            tracing::debug!("{guest}: its monitor cannot be asked: {error}");
        }
        if !can_answer || asked.is_err_and(|error| is_out_of_reach(&error)) {
            self.apply(guest, &Event::OutOfReach);
        }
    }

    pub(super) fn take_answer(&mut self, guest: GuestIndex) {
        let Some(running) = self.members[guest].running() else {
            return;
        };
        match running.monitor().told() {
            Some(Told::Machine(Ok(machine))) => self.apply(guest, &Event::MachineState(machine)),
            Some(Told::Machine(Err(error))) => tracing::warn!("{guest}: {error}"),
            Some(Told::Restored(Ok(Restored))) => self.apply(guest, &Event::Restored),
            Some(Told::Restored(Err(ConversationError::Qmp(error)))) => {
                self.apply(guest, &Event::NotRestored(error.to_string()));
            }
            // A VMM that ends says why on stderr.
            Some(Told::Restored(Err(ConversationError::Broken(_)))) | None => {}
        }
    }

    /// Gives their turn to the guests whose time has come, once they are heard.
    pub(super) fn expire(&mut self, now: Instant, unheard: &BTreeSet<GuestIndex>) {
        let mut put_off = Vec::new();
        while let Some(guest) = self.times.take(now) {
            if unheard.contains(&guest) {
                put_off.push(guest);
                continue;
            }
            self.connect(guest, now);
            let Some(member) = self.members.get_mut(guest) else {
                continue;
            };
            if member.guest().owes_an_answer()
                && let Some(running) = member.running()
            {
                running.note_silence(now);
            }
            if member.guest().due().is_some_and(|due| due <= now) {
                self.apply(guest, &Event::Tick);
            }
            self.arm(guest);
        }
        for guest in put_off {
            self.times.arm(guest, now);
        }
    }

    /// Connects to the console of a guest that took nobody when it was adopted.
    pub(super) fn connect(&mut self, guest: GuestIndex, now: Instant) {
        let Some(member) = self.members.get_mut(guest) else {
            return;
        };
        let Some(running) = member.running() else {
            return;
        };
        if not_connected(self.site.connect_console(guest, running)).is_some() {
            self.times.arm(guest, now + CONNECT_AGAIN);
        }
    }

    /// Notes when the guest wants its next turn.
    pub(super) fn arm(&mut self, guest: GuestIndex) {
        if let Some(due) = self.members[guest].guest().due() {
            self.times.arm(guest, due);
        }
    }

    pub(super) fn take_lines(&mut self, guest: GuestIndex, lines: Vec<Vec<u8>>) {
        for line in lines {
            if let Ok(message) = host::parse(&line) {
                if matches!(message, Message::Heartbeat { .. }) {
                    self.members[guest].answered();
                }
                self.apply(guest, &Event::Message(&message));
                self.notice(guest, Observation::Message(message));
            } else {
                let text = printable_bytes(&line);
                self.apply(guest, &Event::Text(&text));
            }
            if !line.is_empty() {
                self.notice(guest, Observation::Line(line));
            }
        }
    }

    /// Asks so many of the guests that burn how far they are, each in its turn.
    pub(crate) fn ask_in_turn(&mut self, count: usize) {
        self.members.ask_in_turn(count);
    }

    /// Reads what VMMs wrote to stderr.
    pub(super) fn read_errors(&mut self) {
        let written = self.errors.read();
        self.sockets_gone |= written.sockets_gone;
        if written.more {
            self.unfinished.insert(ERRORS, None);
        }
        if written.by_any {
            for guest in self.members.guests().iter() {
                self.take_errors(guest);
            }
            return;
        }
        for guest in written.by {
            self.take_errors(guest);
        }
    }

    pub(super) fn take_errors(&mut self, guest: GuestIndex) {
        let Some(member) = self.members.get_mut(guest) else {
            return;
        };
        let path = self.site.folder().error(guest);
        let Some(running) = member.running() else {
            return;
        };
        for line in running.read_errors(&path).unwrap_or_default() {
            self.take_error(guest, &line);
        }
    }

    pub(super) fn take_error(&mut self, guest: GuestIndex, line: &[u8]) {
        let text = printable_bytes(line);
        self.apply(guest, &Event::VmmText(&text));
    }

    /// Takes the end of a VMM, after the last words still in its streams.
    pub(super) fn reap(&mut self, guest: GuestIndex) -> Amount {
        self.take_errors(guest);
        let last = self.members[guest]
            .running()
            .and_then(|running| running.last_error());
        if let Some(line) = last {
            self.take_error(guest, &line);
        }
        let Some(mut running) = self.members[guest].ended() else {
            return Amount::default();
        };
        let (amount, rest) = running.read_rest();
        self.take_lines(guest, rest);
        let end = running
            .end(|| self.oom_kills.take(self.site.oom_kills()))
            .unwrap_or(End::Unknown);
        for source in SOURCES {
            self.unfinished.remove(&token(guest, source));
        }
        drop(running);
        self.site.clear_away(guest);
        self.notice(guest, Observation::Ended);
        self.apply(guest, &Event::Ended(end));
        // Room may have been made for another.
        self.starts.look_now();
        amount
    }
}
