//! Writes the output of verbs to stdout. A reader that goes away is not their failure.

use std::io::{self, IsTerminal as _, StdoutLock, Write as _};

use rustix::event::{PollFd, PollFlags};
use serde::Serialize;

use super::Failure;
use crate::interrupt::poll_until;
use crate::progress;
use crate::text::{self, printable, printable_lines};

/// In which form a verb writes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Prints a line for people.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    print_as_it_is(&printable(line))
}

/// Prints several lines for people or tools.
pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    print_as_it_is(&printable_lines(text))
}

/// Prints a document in one line of JSON.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    print_as_it_is(&text::json(document)?)
}

/// Prints text of which every part that is not ours was made printable, such as
/// one with colours.
pub(crate) fn print_as_it_is(text: &str) -> Result<(), Failure> {
    let written = progress::suspend(|| writeln!(io::stdout().lock(), "{text}"));
    match written {
        Err(error) if is_reader_gone(&error) => Ok(()),
        other => Ok(other?),
    }
}

/// Whether nobody reads what was to be written any more.
pub(crate) fn is_reader_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Waits until nobody reads stdout any more, which is for ever where it is a
/// file.
pub(crate) fn wait_until_unread() {
    // The end comes unasked.
    let stdout = io::stdout();
    let mut stdout = [PollFd::new(&stdout, PollFlags::empty())];
    let _ = poll_until(&mut stdout, None);
}

/// Prints what a guest said: byte for byte, but on a terminal, where whole lines
/// are shown, made printable.
#[derive(Debug)]
pub(crate) struct Verbatim {
    stdout: StdoutLock<'static>,
    is_terminal: bool,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
}

impl Verbatim {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout().lock();
        Self {
            is_terminal: stdout.is_terminal(),
            stdout,
            partial: Vec::new(),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_terminal {
            self.partial.extend_from_slice(bytes);
            let end = self.partial.iter().rposition(|byte| *byte == b'\n');
            let whole = self.partial.drain(..end.map_or(0, |end| end + 1));
            let whole = whole.collect::<Vec<_>>();
            self.show(&whole)?;
        } else {
            self.stdout.write_all(bytes)?;
        }
        self.stdout.flush()
    }

    /// Shows a last line without an end, too.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.partial);
        self.show(&rest)?;
        self.stdout.flush()
    }

    fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        let text = printable_lines(&String::from_utf8_lossy(bytes));
        self.stdout.write_all(text.as_bytes())
    }
}
