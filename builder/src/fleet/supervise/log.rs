//! Writes the output of consoles to the guests' logs.

use crate::fleet::supervisor::Supervisor;
use crate::store::logs;
use crate::units::GuestIndex;

/// Console lines of one guest at a time, on their way to its log.
#[derive(Default)]
pub(super) struct Log {
    guest: GuestIndex,
    lines: Vec<u8>,
}

impl Log {
    pub(super) fn add(&mut self, guest: GuestIndex, line: &[u8], supervisor: &Supervisor) {
        if guest != self.guest {
            self.write(supervisor);
            self.guest = guest;
        }
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
    }

    pub(super) fn write(&mut self, supervisor: &Supervisor) {
        if supervisor.members().get(self.guest).is_some() && !self.lines.is_empty() {
            let path = supervisor.site().folder().log(self.guest);
            // A full disk costs log lines, not guests; the journal's error says so.
            if let Err(error) = logs::append(&path, &self.lines, logs::CAP) {
                tracing::debug!("{}: {error}", path.display());
            }
        }
        self.lines.clear();
    }
}
