//! Reads an HTTP/1.1 answer as it arrives, within bounds.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::marker::PhantomData;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde::de::DeserializeOwned;

use super::error::ClientError;
use crate::interrupt::{Interrupt, poll_until};
use crate::text::printable;

/// How long a request may take to be taken.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Most bytes of a whole answer, or of a stream's line: some times what the
/// largest fleet has.
const ANSWER_MAX: usize = 256 << 20;
/// Most bytes of an answer's head.
const HEAD_MAX: usize = 16 << 10;
/// An answer that is being read.
pub(super) struct Body {
    pub(super) fleet: String,
    pub(super) spec: PathBuf,
    pub(super) stream: UnixStream,
    pub(super) interrupt: Interrupt,
    /// What has come and was not taken yet.
    pub(super) buffer: Vec<u8>,
    /// Bytes of the body, where the head says so.
    pub(super) length: Option<usize>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes to take)", self.buffer.len())
    }
}

impl Body {
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(WRITE_TIME))?;
        self.stream.write_all(bytes)
    }

    /// Reads the head, and gives the status.
    pub(super) fn head(&mut self) -> Result<u16, ClientError> {
        let mut searched = 0;
        let end = loop {
            if let Some(end) = find(&self.buffer[searched..], b"\r\n\r\n") {
                break searched + end;
            }
            // The end may have come in part.
            searched = self.buffer.len().saturating_sub(3);
            if self.buffer.len() > HEAD_MAX {
                return Err(self.garbled("a head without end"));
            }
            match self.fill(None)? {
                Next::End => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Next::Item(()) | Next::Late => {}
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let (status, length) = parse_head(&head).ok_or_else(|| self.garbled(&head))?;
        self.length = length;
        Ok(status)
    }

    /// Reads the rest as one document.
    pub(super) fn document<T: DeserializeOwned>(mut self) -> Result<T, ClientError> {
        let bytes = self.whole()?;
        self.parse(&bytes)
    }

    pub(super) fn stream<T>(self) -> Stream<T> {
        Stream {
            body: self,
            items: PhantomData,
        }
    }

    pub(super) fn whole(&mut self) -> Result<Vec<u8>, ClientError> {
        while self.length.is_none_or(|length| self.buffer.len() < length) {
            if self.buffer.len() > ANSWER_MAX {
                return Err(self.garbled("an answer without end"));
            }
            if self.fill(None)? == Next::End {
                if self.length.is_some() {
                    return Err(self.lost(io::ErrorKind::UnexpectedEof.into()));
                }
                break;
            }
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    pub(super) fn line(&mut self, until: Option<Instant>) -> Result<Next<Vec<u8>>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(end) = find(&self.buffer[searched..], b"\n") {
                let mut line: Vec<u8> = self.buffer.drain(..=searched + end).collect();
                line.pop();
                return Ok(Next::Item(line));
            }
            searched = self.buffer.len();
            if searched > ANSWER_MAX {
                return Err(self.garbled("a line without end"));
            }
            match self.fill(until)? {
                Next::Item(()) => {}
                Next::Late => return Ok(Next::Late),
                Next::End => return Ok(Next::End),
            }
        }
    }

    /// Waits for more to come into the buffer.
    pub(super) fn fill(&mut self, until: Option<Instant>) -> Result<Next<()>, ClientError> {
        let mut fds = [
            PollFd::new(&self.interrupt, PollFlags::IN),
            PollFd::new(&self.stream, PollFlags::IN),
        ];
        let any = poll_until(&mut fds, until).map_err(|error| self.lost(error))?;
        if self.interrupt.requested() {
            return Err(ClientError::Interrupted);
        }
        if !any {
            return Ok(Next::Late);
        }
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => Ok(Next::End),
            Ok(read) => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Ok(Next::Item(()))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Next::Item(())),
            Err(error) => Err(self.lost(error)),
        }
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|error| self.garbled(&error.to_string()))
    }

    pub(super) fn garbled(&self, reason: &str) -> ClientError {
        ClientError::Garbled {
            fleet: self.fleet.clone(),
            reason: printable(&reason.chars().take(200).collect::<String>()),
        }
    }

    pub(super) fn lost(&self, source: io::Error) -> ClientError {
        let fleet = self.fleet.clone();
        if self.spec.exists() {
            ClientError::Lost { fleet, source }
        } else {
            ClientError::Ended { fleet }
        }
    }
}

/// The status and the length that a head tells; `None` for what is not a head of
/// HTTP/1 (RFC 9112).
pub(super) fn parse_head(head: &str) -> Option<(u16, Option<usize>)> {
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let version = first.next()?;
    if version != "HTTP/1.0" && version != "HTTP/1.1" {
        return None;
    }
    let status = first.next().filter(|status| status.len() == 3)?;
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().ok()?);
        }
    }
    Some((status.parse().ok()?, length))
}

pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|piece| piece == wanted)
}

/// What a stream has next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next<T> {
    Item(T),
    /// Nothing in the time given.
    Late,
    /// Nothing more: the fleet, or what was asked for, ended.
    End,
}

/// Documents that come one a line.
#[derive(Debug)]
pub(crate) struct Stream<T> {
    body: Body,
    items: PhantomData<T>,
}

impl<T: DeserializeOwned> Stream<T> {
    /// Waits for the next, until `until`, or for ever without.
    pub(crate) fn next(&mut self, until: Option<Instant>) -> Result<Next<T>, ClientError> {
        Ok(match self.body.line(until)? {
            Next::Item(line) => Next::Item(self.body.parse(&line)?),
            Next::Late => Next::Late,
            Next::End => Next::End,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_its_status_and_length() {
        for (head, parsed) in [
            ("HTTP/1.0 200 OK", Some((200, None))),
            ("HTTP/1.1 404 Not Found\r\nA: b", Some((404, None))),
            ("HTTP/1.0 200", Some((200, None))),
            (
                "HTTP/1.0 200 OK\r\ncontent-LENGTH:  7 \r\nx: y",
                Some((200, Some(7))),
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: -7", None),
            ("HTTP/1.0 200 OK\r\nnothing", None),
            ("HTTP/2 200 OK", None),
            ("HTTP/1.0 OK", None),
            ("HTTP/1.0 2x0 OK", None),
            ("HTTP/1.0 99999 OK", None),
            ("", None),
            ("\r\n", None),
        ] {
            assert_eq!(parse_head(head), parsed, "{head:?}");
        }
    }
}
