//! A root file system's archive: a file, or what comes on stdin.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::event::{PollFd, PollFlags};

use super::manifest::FileRecord;
use crate::digest::Hasher;
use crate::interrupt::{Interrupt, poll_until};
use crate::plain;
use crate::recipe::is_stdin;

/// An archive that is digested as it is read. The user's interrupt ends the wait for
/// a pipe, which then seems to end.
pub(super) struct Input<'a> {
    file: File,
    interrupt: &'a Interrupt,
    hasher: Hasher,
    size: u64,
}

impl<'a> Input<'a> {
    pub(super) fn open(source: &Path, interrupt: &'a Interrupt) -> io::Result<Self> {
        let file = if is_stdin(source) {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                let reason = "stdin is a terminal: pipe a tar into it, such as of `docker export`";
                return Err(io::Error::other(reason));
            }
            stdin.as_fd().try_clone_to_owned()?.into()
        } else {
            plain::open(source)?
        };
        Ok(Self {
            file,
            interrupt,
            hasher: Hasher::default(),
            size: 0,
        })
    }

    /// Size and digest, with what is left of it.
    pub(super) fn finish(mut self) -> io::Result<FileRecord> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(FileRecord {
            sha256: self.hasher.finish(),
            size: self.size,
        })
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let events = &mut [
            PollFd::new(&self.file, PollFlags::IN),
            PollFd::new(self.interrupt, PollFlags::IN),
        ];
        poll_until(events, None)?;
        if self.interrupt.requested() {
            return Ok(0);
        }
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        Ok(read)
    }
}
