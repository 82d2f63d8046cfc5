//! What consoles said, on its way to the guests' logs.

use crate::fleet::supervisor::Supervisor;
use crate::store::logs;

/// Console lines of one guest at a time, on their way to its log.
#[derive(Default)]
pub(super) struct Log {
    which: usize,
    lines: Vec<u8>,
}

impl Log {
    pub(super) fn add(&mut self, which: usize, line: &[u8], supervisor: &Supervisor) {
        if which != self.which {
            self.write(supervisor);
            self.which = which;
        }
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
    }

    pub(super) fn write(&mut self, supervisor: &Supervisor) {
        if let Some(member) = supervisor.members().get(self.which)
            && !self.lines.is_empty()
        {
            let path = supervisor.site().folder().log(member.index());
            // A full disk costs log lines, not guests; the journal's error says so.
            if let Err(error) = logs::append(&path, &self.lines, logs::CAP) {
                tracing::debug!("{}: {error}", path.display());
            }
        }
        self.lines.clear();
    }
}
