//! What guests and their VMMs say, and their end.

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
use crate::vmm::End;
use crate::vmm::running::{Amount, More, Source, is_out_of_reach};

impl Supervisor {
    /// Takes what a guest has to say, or its end, and gives how much that was.
    pub(super) fn handle(&mut self, token: Token, now: Instant) -> Amount {
        let (which, source) = untoken(token);
        let Some(running) = self.members.get_mut(which).and_then(Member::running) else {
            return Amount::default();
        };
        match source {
            Source::Console => {}
            Source::End => return self.reap(which),
            Source::Monitor => {
                self.take_answer(which);
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
            self.apply(which, &Event::Heard);
        }
        self.take_lines(which, lines);
        amount
    }

    /// Asks a guest's VMM how the guest's machine is.
    pub(super) fn inspect(&mut self, which: usize) {
        let index = self.members[which].index();
        let token = token(which, Source::Monitor);
        let Some(running) = self.members[which].running() else {
            return;
        };
        let asked = self
            .site
            .connect_monitor(index, running.pid())
            .and_then(|monitor| running.inspect(monitor, self.poll.registry(), token));
        // One whose console nobody holds cannot answer, whatever its VMM says.
        let can_answer = running.is_connected();
        if let Err(error) = &asked {
            tracing::debug!("{index}: its monitor cannot be asked: {error}");
        }
        if !can_answer || asked.is_err_and(|error| is_out_of_reach(&error)) {
            self.apply(which, &Event::OutOfReach);
        }
    }

    pub(super) fn take_answer(&mut self, which: usize) {
        let index = self.members[which].index();
        let Some(running) = self.members[which].running() else {
            return;
        };
        match running.inspected() {
            Ok(Some(machine)) => self.apply(which, &Event::MachineState(machine)),
            Ok(None) => {}
            Err(error) => tracing::warn!("{index}: {error}"),
        }
    }

    /// Gives their turn to the guests whose time has come, once they are heard.
    pub(super) fn expire(&mut self, now: Instant, unheard: &BTreeSet<usize>) {
        let mut put_off = Vec::new();
        while let Some(which) = self.times.take(now) {
            if unheard.contains(&which) {
                put_off.push(which);
                continue;
            }
            self.connect(which, now);
            let Some(member) = self.members.get_mut(which) else {
                continue;
            };
            if member.guest().owes_an_answer()
                && let Some(running) = member.running()
            {
                running.note_silence(now);
            }
            if member.guest().due().is_some_and(|due| due <= now) {
                self.apply(which, &Event::Tick);
            }
            self.arm(which);
        }
        for which in put_off {
            self.times.arm(which, now);
        }
    }

    /// Connects to the console of a guest that took nobody when it was adopted.
    pub(super) fn connect(&mut self, which: usize, now: Instant) {
        let Some(member) = self.members.get_mut(which) else {
            return;
        };
        let index = member.index();
        let Some(running) = member.running() else {
            return;
        };
        if not_connected(self.site.connect_console(index, running)).is_some() {
            self.times.arm(which, now + CONNECT_AGAIN);
        }
    }

    /// Notes when the guest wants its next turn.
    pub(super) fn arm(&mut self, which: usize) {
        if let Some(due) = self.members[which].guest().due() {
            self.times.arm(which, due);
        }
    }

    pub(super) fn take_lines(&mut self, which: usize, lines: Vec<Vec<u8>>) {
        for line in lines {
            if let Ok(message) = host::parse(&line) {
                if matches!(message, Message::Heartbeat { .. }) {
                    self.members[which].answered();
                }
                self.apply(which, &Event::Message(&message));
                self.notice(which, Observation::Message(message));
            } else {
                let text = printable_bytes(&line);
                self.apply(which, &Event::Text(&text));
            }
            if !line.is_empty() {
                self.notice(which, Observation::Line(line));
            }
        }
    }

    /// Reads what VMMs wrote to stderr.
    pub(super) fn read_errors(&mut self) {
        let written = self.errors.read();
        self.sockets_gone |= written.sockets_gone;
        if written.more {
            self.unfinished.insert(ERRORS, None);
        }
        if written.by_any {
            for which in 0..self.members().len() {
                self.take_errors(which);
            }
            return;
        }
        for index in written.by {
            self.take_errors(index.get() as usize);
        }
    }

    pub(super) fn take_errors(&mut self, which: usize) {
        let Some(member) = self.members.get_mut(which) else {
            return;
        };
        let path = self.site.folder().error(member.index());
        let Some(running) = member.running() else {
            return;
        };
        for line in running.read_errors(&path).unwrap_or_default() {
            self.take_error(which, &line);
        }
    }

    pub(super) fn take_error(&mut self, which: usize, line: &[u8]) {
        let text = printable_bytes(line);
        self.apply(which, &Event::VmmText(&text));
    }

    /// Takes the end of a VMM, after the last words still in its streams.
    pub(super) fn reap(&mut self, which: usize) -> Amount {
        self.take_errors(which);
        let last = self.members[which]
            .running()
            .and_then(|running| running.last_error());
        if let Some(line) = last {
            self.take_error(which, &line);
        }
        let Some(mut running) = self.members[which].ended() else {
            return Amount::default();
        };
        let (amount, rest) = running.read_rest();
        self.take_lines(which, rest);
        let end = running
            .end(|| self.oom_kills.take(self.site.oom_kills()))
            .unwrap_or(End::Unknown);
        for source in SOURCES {
            self.unfinished.remove(&token(which, source));
        }
        drop(running);
        self.site.clear_away(self.members[which].index());
        self.notice(which, Observation::Ended);
        self.apply(which, &Event::Ended(end));
        // Room may have been made for another.
        self.starts.look_now();
        amount
    }
}
