//! What a program of the image writes, on its way to the console.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use crate::console::Console;
use crate::job::readable;

/// Most bytes of a line; what is longer becomes several lines.
const LINE_MAX: usize = 200;

/// A program's output.
pub(crate) struct Output {
    /// Until nobody can write to it any more.
    pipe: Option<OwnedFd>,
    /// What every line begins with on the console.
    name: &'static str,
    /// What the console does not have yet.
    held: [u8; LINE_MAX],
    length: usize,
}

impl Output {
    pub(crate) fn new(pipe: OwnedFd, name: &'static str) -> Self {
        Self {
            pipe: Some(pipe),
            name,
            held: [0; LINE_MAX],
            length: 0,
        }
    }

    /// What to wait for, unless there is no room for more.
    pub(crate) fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        let room = self.length < self.held.len();
        self.pipe.as_ref().filter(|_| room).map(AsFd::as_fd)
    }

    /// Whether all of it is on the console, and no more can come.
    pub(crate) fn is_over(&self) -> bool {
        self.pipe.is_none() && self.length == 0
    }

    /// Carries lines to the console while it has room; `ready` tells that there is
    /// something to read.
    pub(crate) fn carry(&mut self, ready: bool, console: &mut Console) {
        if let (Some(pipe), true) = (&self.pipe, ready) {
            match rustix::io::read(pipe, &mut self.held[self.length..]) {
                Ok(count @ 1..) => self.length += count,
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => self.pipe = None,
            }
        }
        while self.length > 0 && console.has_room() {
            let held = &mut self.held[..self.length];
            // A long line goes in parts, and one without an end at the last.
            let is_whole = held.len() == LINE_MAX || self.pipe.is_none();
            let end = held.iter().position(|byte| *byte == b'\n');
            let Some(end) = end.or(is_whole.then_some(held.len())) else {
                return;
            };
            let line = readable(&mut held[..end], true).trim_ascii_end();
            console.text(format_args!("{}: {line}", self.name));
            let taken = held.len().min(end + 1);
            held.copy_within(taken.., 0);
            self.length -= taken;
        }
    }
}
