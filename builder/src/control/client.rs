//! Calls to a fleet's supervisor.
//!
//! Each request is HTTP/1.0 on a connection of its own, and the answer ends where
//! the connection ends. So the client can read a stream as it arrives and watch for
//! the user's interrupt meanwhile, without a thread or an async runtime.

use std::io;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::bridge::{Act, Detail};
use super::types::{
    API_VERSION, ActAnswer, ActRequest, Answer, AskRequest, AttendRequest, Error, Event, Fleet,
    Guest, Memory, ScaleRequest, Selection, Typed,
};
use crate::control::client::body::Body;
use crate::guest::Phase;
use crate::interrupt::Interrupt;
use crate::private::is_served_by_us;
use crate::store::folder::{Paths, Supervised, remains_in};
use crate::units::GuestIndex;

mod body;
mod error;

pub(crate) use body::{Next, Stream};
pub(crate) use error::ClientError;

/// The status of a supervisor that ends, or cannot now (RFC 9110).
const UNAVAILABLE: u16 = 503;
/// How long a supervisor may take to listen, and how often it is tried.
const LISTEN_TIME: Duration = Duration::from_secs(3);
const LISTEN_AGAIN: Duration = Duration::from_millis(50);
/// How long all guests together have to report what they burned.
const ROUNDS_TIME: Duration = Duration::from_secs(1);

/// The way to a fleet's supervisor.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    fleet: String,
    paths: Paths,
    interrupt: Interrupt,
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
    pub(crate) fn new(fleet: &str, paths: &Paths, interrupt: &Interrupt) -> Self {
        Self {
            fleet: fleet.to_owned(),
            paths: paths.clone(),
            interrupt: interrupt.clone(),
        }
    }

    /// The fleet.
    pub(crate) fn fleet(&self, detail: Detail) -> Result<Fleet, ClientError> {
        let path = match detail {
            Detail::Whole => "fleet?guests=true",
            Detail::Summary => "fleet?guests=false",
        };
        self.get(path)?.document()
    }

    /// What the fleet costs its host in memory.
    pub(crate) fn memory(&self) -> Result<Memory, ClientError> {
        self.get("memory")?.document()
    }

    /// One guest.
    pub(crate) fn guest(&self, guest: GuestIndex) -> Result<Guest, ClientError> {
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

    /// Has the fleet be of `count` guests; returns when they were asked to.
    pub(crate) fn scale(&self, count: u32) -> Result<ActAnswer, ClientError> {
        self.post("scale", &ScaleRequest { count })?.document()
    }

    /// The fleet, once those of these guests that burn reported how far they are, or
    /// did not in the time that they have for it.
    pub(crate) fn fleet_with_rounds(
        &self,
        fleet: Fleet,
        guests: &[GuestIndex],
    ) -> Result<Fleet, ClientError> {
        let until = Instant::now() + ROUNDS_TIME;
        let burns = |guest: &&Guest| {
            let burns = guest.burn.is_some_and(|burn| burn.duty.burns());
            burns && guest.state == Phase::Ready && guests.binary_search(&guest.id).is_ok()
        };
        let burning: Vec<_> = (fleet.guests.iter().filter(burns))
            .map(|guest| guest.id)
            .collect();
        if burning.is_empty() {
            return Ok(fleet);
        }
        let mut answers = self.ask(&AskRequest {
            guests: Selection::These(burning),
            command: "heartbeat".to_owned(),
            within_seconds: None,
        })?;
        while let Next::Item(_) = answers.next(Some(until))? {}
        self.fleet(Detail::Whole)
    }

    /// Has guests run a console command.
    pub(crate) fn ask(&self, request: &AskRequest) -> Result<Stream<Answer>, ClientError> {
        Ok(self.post("ask", request)?.stream())
    }

    /// How the fleet stands, and what changes from now on.
    pub(crate) fn watch(&self) -> Result<(Fleet, Stream<Event>), ClientError> {
        let mut events: Stream<Event> = self.get("events")?.stream();
        match events.next(None)? {
            Next::Item(Event::Snapshot(fleet)) => Ok((*fleet, events)),
            // A supervisor that was started by an imgbuild before snapshots.
            _ => Ok((self.fleet(Detail::Whole)?, events)),
        }
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

    /// Connects to the supervisor. One that lives makes a control socket again
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
                Supervised::No => {
                    let remains = remains_in(self.paths.path());
                    return Err(ClientError::NotSupervised { fleet, remains });
                }
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
