//! Calls to a fleet's supervisor.
//!
//! Requests are HTTP/1.0, one a connection: the answer then ends where the
//! connection does, so that a stream is read as it comes, beside the user's
//! interrupt, with neither a thread nor a runtime.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::marker::PhantomData;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bridge::Act;
use super::types::{
    API_VERSION, ActAnswer, ActRequest, AttendRequest, Error, Event, Fleet, ScaleRequest,
    Selection, Typed,
};
use crate::interrupt::Interrupt;
use crate::private::is_served_by_us;
use crate::store::folder::{Paths, Supervised};
use crate::text::printable;
use crate::units::GuestIndex;

/// Most bytes of an answer's head.
const HEAD_MAX: usize = 16 << 10;
/// Most bytes of a whole answer, or of a stream's line: some times what the
/// largest fleet has.
const ANSWER_MAX: usize = 256 << 20;
/// The status of a supervisor that ends, or cannot now (RFC 9110).
const UNAVAILABLE: u16 = 503;
/// How long a request may take to be taken.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// How long a supervisor may take to listen, and how often it is tried.
const LISTEN_TIME: Duration = Duration::from_secs(3);
const LISTEN_AGAIN: Duration = Duration::from_millis(50);

/// The way to a fleet's supervisor.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    fleet: String,
    paths: Paths,
    interrupt: Interrupt,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens on the fleet's control socket.
    #[error(
        "nothing supervises the fleet {fleet}: `imgbuild launch --resume {fleet}` goes on with it, \
         `imgbuild rm {fleet}` removes it"
    )]
    NotSupervised { fleet: String },
    /// A process supervises the fleet, and nobody listens on its control socket.
    #[error(
        "process {pid} supervises the fleet {fleet}, but does not listen at {}; try again, since \
         it replaces a socket that is gone within a second, and check that it is not stopped",
        control.display()
    )]
    Deaf {
        fleet: String,
        pid: String,
        control: PathBuf,
    },
    /// The control socket could not be connected to.
    #[error("cannot connect to {}: {source}; is the fleet another user's?", control.display())]
    Unreachable { control: PathBuf, source: io::Error },
    /// The supervisor is of another version of imgbuild.
    #[error(
        "the supervisor of fleet {fleet} speaks version {} of the control interface, and this \
         imgbuild version {API_VERSION}; use the imgbuild that launched it",
        listed(versions)
    )]
    Version {
        fleet: String,
        /// The versions that it speaks.
        versions: Vec<u32>,
    },
    /// The supervisor says: not now.
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Refused(String),
    #[error(
        "lost the supervisor of fleet {fleet}: {source}; `imgbuild ps --fleet {fleet}` says \
         whether it lives"
    )]
    Lost { fleet: String, source: io::Error },
    /// What came is no answer of the interface.
    #[error("the supervisor of fleet {fleet} sent a malformed answer: {reason}")]
    Garbled {
        fleet: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The fleet ended before it answered.
    #[error("the fleet {fleet} has ended")]
    Ended { fleet: String },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

fn listed(versions: &[u32]) -> String {
    let versions: Vec<_> = versions.iter().map(u32::to_string).collect();
    versions.join(", ")
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

/// What a guest's console says, a line at a time.
#[derive(Debug)]
pub(crate) struct Console {
    body: Body,
}

impl Console {
    /// Waits for the next line, given without its end, until `until`, or for
    /// ever without. It is the guest's own: a terminal is to be shown
    /// [`printable`] text.
    ///
    /// [`printable`]: crate::text::printable
    pub(crate) fn next(&mut self, until: Option<Instant>) -> Result<Next<Vec<u8>>, ClientError> {
        self.body.line(until)
    }
}

impl Client {
    /// The way to the supervisor of the fleet called `fleet`, whose files are
    /// there; nothing is connected yet.
    #[must_use]
    pub(crate) fn new(fleet: &str, paths: &Paths, interrupt: &Interrupt) -> Self {
        Self {
            fleet: fleet.to_owned(),
            paths: paths.clone(),
            interrupt: interrupt.clone(),
        }
    }

    /// The fleet, without its guests if those are not wanted.
    pub(crate) fn fleet(&self, guests: bool) -> Result<Fleet, ClientError> {
        self.get(&format!("fleet?guests={guests}"))?.document()
    }

    #[cfg(test)]
    pub(crate) fn guest(&self, guest: GuestIndex) -> Result<super::types::Guest, ClientError> {
        self.get(&format!("guests/{guest}"))?.document()
    }

    /// Stops, kills or restarts guests; returns when it is done.
    pub(crate) fn act(&self, act: Act, request: &ActRequest) -> Result<ActAnswer, ClientError> {
        let path = match act {
            Act::Stop => "stop",
            Act::Kill => "kill",
            Act::Restart => "restart",
        };
        self.post(path, request)?.document()
    }

    /// Has the fleet be of `count` guests; returns when they are told.
    pub(crate) fn scale(&self, count: u32) -> Result<ActAnswer, ClientError> {
        self.post("scale", &ScaleRequest { count })?.document()
    }

    /// Has guests run a console command.
    #[cfg(test)]
    pub(crate) fn ask(
        &self,
        request: &super::types::AskRequest,
    ) -> Result<Stream<super::types::Answer>, ClientError> {
        Ok(self.post("ask", request)?.stream())
    }

    /// What changes from now on.
    pub(crate) fn events(&self) -> Result<Stream<Event>, ClientError> {
        Ok(self.get("events")?.stream())
    }

    /// What a guest's console says from now on.
    pub(crate) fn console(&self, guest: GuestIndex) -> Result<Console, ClientError> {
        let body = self.get(&format!("guests/{guest}/console"))?;
        Ok(Console { body })
    }

    /// Types lines on a guest's console; [`ClientError::Busy`] if it takes none for
    /// now.
    pub(crate) fn type_lines(&self, guest: GuestIndex, lines: &str) -> Result<Typed, ClientError> {
        let path = format!("guests/{guest}/console");
        self.call("POST", &path, lines.as_bytes())?.document()
    }

    /// Has guests be `urgent` for as long as the connection is open, which is
    /// returned, in whichever process.
    pub(crate) fn attend(&self, guests: Selection) -> Result<UnixStream, ClientError> {
        let body = self.post("attend", &AttendRequest { guests })?;
        Ok(body.stream)
    }

    fn get(&self, path: &str) -> Result<Body, ClientError> {
        self.call("GET", path, &[])
    }

    fn post(&self, path: &str, request: &impl Serialize) -> Result<Body, ClientError> {
        let bytes = serde_json::to_vec(request).expect("requests have nothing but strings as keys");
        self.call("POST", path, &bytes)
    }

    /// Connects to the supervisor. One that lives makes a control socket anew
    /// that is gone, and may have moved it.
    fn connect(&self) -> Result<UnixStream, ClientError> {
        let fleet = self.fleet.clone();
        let until = Instant::now() + LISTEN_TIME;
        let mut control = self.paths.control();
        loop {
            let connected = UnixStream::connect(&control)
                .and_then(|stream| is_served_by_us(&stream, None).map(|()| stream));
            let error = match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {}
                _ => {
                    let source = error;
                    return Err(ClientError::Unreachable { control, source });
                }
            }
            if !self.paths.spec_file().exists() {
                return Err(ClientError::Ended { fleet });
            }
            match self.paths.supervised() {
                Supervised::No => return Err(ClientError::NotSupervised { fleet }),
                Supervised::By(pid) if Instant::now() >= until => {
                    let pid = pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
                    return Err(ClientError::Deaf {
                        fleet,
                        pid,
                        control,
                    });
                }
                Supervised::By(_) if self.interrupt.requested() => {
                    return Err(ClientError::Interrupted);
                }
                Supervised::By(_) => sleep(LISTEN_AGAIN),
            }
            control = self.paths.as_they_are().control();
        }
    }

    /// Sends a request and waits for the head of its answer.
    fn call(&self, method: &str, path: &str, bytes: &[u8]) -> Result<Body, ClientError> {
        let stream = self.connect()?;
        let mut body = Body {
            fleet: self.fleet.clone(),
            spec: self.paths.spec_file(),
            stream,
            interrupt: self.interrupt.clone(),
            buffer: Vec::new(),
            length: None,
        };
        let head = format!(
            "{method} /v{API_VERSION}/{path} HTTP/1.0\r\nHost: imgbuild\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        // A server that refuses a request may close before it has read it, and
        // its answer says why.
        let sent = body.send(&[head.as_bytes(), bytes].concat());
        let status = match (body.head(), sent) {
            (Ok(status), _) => status,
            (Err(ClientError::Lost { .. }), Err(error)) => return Err(body.lost(error)),
            (Err(error), _) => return Err(error),
        };
        if (200..300).contains(&status) {
            return Ok(body);
        }
        if status == UNAVAILABLE && !self.paths.spec_file().exists() {
            let fleet = self.fleet.clone();
            return Err(ClientError::Ended { fleet });
        }
        let error: Error = body.document()?;
        Err(match error.versions {
            Some(versions) => ClientError::Version {
                fleet: self.fleet.clone(),
                versions,
            },
            None if status == UNAVAILABLE => ClientError::Busy(error.error),
            None => ClientError::Refused(error.error),
        })
    }
}

/// An answer that is being read.
struct Body {
    fleet: String,
    spec: PathBuf,
    stream: UnixStream,
    interrupt: Interrupt,
    /// What has come and was not taken yet.
    buffer: Vec<u8>,
    /// Bytes of the body, where the head told.
    length: Option<usize>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes to take)", self.buffer.len())
    }
}

impl Body {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(WRITE_TIME))?;
        self.stream.write_all(bytes)
    }

    /// Reads the head, and gives the status.
    fn head(&mut self) -> Result<u16, ClientError> {
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
    fn document<T: DeserializeOwned>(mut self) -> Result<T, ClientError> {
        let bytes = self.whole()?;
        self.parse(&bytes)
    }

    fn stream<T>(self) -> Stream<T> {
        Stream {
            body: self,
            items: PhantomData,
        }
    }

    fn whole(&mut self) -> Result<Vec<u8>, ClientError> {
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

    fn line(&mut self, until: Option<Instant>) -> Result<Next<Vec<u8>>, ClientError> {
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
    fn fill(&mut self, until: Option<Instant>) -> Result<Next<()>, ClientError> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // Longer than a Timespec holds is for ever.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [
            PollFd::new(&self.interrupt, PollFlags::IN),
            PollFd::new(&self.stream, PollFlags::IN),
        ];
        let ready = match poll(&mut fds, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Next::Item(())),
            other => other.map_err(|errno| self.lost(errno.into()))?,
        };
        if self.interrupt.requested() {
            return Err(ClientError::Interrupted);
        }
        if ready == 0 {
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

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|error| self.garbled(&error.to_string()))
    }

    fn garbled(&self, reason: &str) -> ClientError {
        ClientError::Garbled {
            fleet: self.fleet.clone(),
            reason: printable(&reason.chars().take(200).collect::<String>()),
        }
    }

    fn lost(&self, source: io::Error) -> ClientError {
        let fleet = self.fleet.clone();
        if self.spec.exists() {
            ClientError::Lost { fleet, source }
        } else {
            ClientError::Ended { fleet }
        }
    }
}

/// The status and the length that a head tells; `None` for what is no head of
/// HTTP/1 (RFC 9112).
fn parse_head(head: &str) -> Option<(u16, Option<usize>)> {
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

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|piece| piece == wanted)
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
