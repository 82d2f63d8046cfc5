//! The channels between the HTTP thread and the supervisor's thread.
//!
//! The server sends a [`Request`] and wakes the supervisor's poll set. The
//! supervisor's answers never block it: streams are bounded, and a client that
//! reads too slowly loses lines.

use std::sync::{Arc, mpsc};

use mio::Waker;
use tokio::sync::{mpsc as stream, oneshot};

use super::memory::Processes;
use super::types::{ActAnswer, ActRequest, Answer, AskRequest, Event, Fleet, Guest, Selection};
use crate::units::GuestIndex;

/// Lines that a stream holds for a reader that is slow.
pub(crate) const STREAM_LINES: usize = 1024;

/// What is asked of the supervisor. A reply that nobody waits for any more is
/// dropped.
#[derive(Debug)]
pub(crate) enum Request {
    Fleet {
        detail: Detail,
        reply: oneshot::Sender<Fleet>,
    },
    /// The fleet without its guests, some of which are asked how far they burned.
    Scrape { reply: oneshot::Sender<Fleet> },
    /// The processes that the fleet consists of, for whoever measures them.
    Processes { reply: oneshot::Sender<Processes> },
    Guest {
        guest: GuestIndex,
        /// For the answer; `None` if there is no such guest.
        reply: oneshot::Sender<Option<Guest>>,
    },
    /// Stop, kill or restart; answered when done.
    Act {
        act: Act,
        request: ActRequest,
        reply: oneshot::Sender<ActAnswer>,
    },
    Scale {
        count: u32,
        /// For the answer, or why it cannot be.
        reply: oneshot::Sender<Result<ActAnswer, String>>,
    },
    Ask {
        request: AskRequest,
        /// Ends when all have answered, or the time is over.
        answers: stream::Sender<Answer>,
    },
    /// These guests are `urgent` until `held` is closed.
    Attend {
        guests: Selection,
        /// Sent once they are; the receiver's end ends it. The server drops it
        /// when the client's connection closes.
        held: stream::Sender<()>,
    },
    Events {
        /// Dropped by the supervisor when the fleet ends.
        events: stream::Sender<Event>,
    },
    /// What a guest's console says from now on, lines without their ends.
    Console {
        guest: GuestIndex,
        /// Dropped by the supervisor when the fleet ends.
        lines: stream::Sender<Vec<u8>>,
    },
    /// Lines for a guest's console.
    Type {
        guest: GuestIndex,
        /// The lines, without their ends.
        lines: Vec<String>,
        /// For how many were taken, which are the first, or why none can be.
        reply: oneshot::Sender<Result<usize, String>>,
    },
}

/// How much of a fleet an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// All, with each of its guests.
    Whole,
    /// What it is in sum, without its guests.
    Summary,
}

/// What is done to guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Power off, by force after the grace; they stay down.
    Stop,
    /// SIGKILL; replaced as `--restart` says.
    Kill,
    /// Power off, by force after the grace, and start again, whatever they were.
    Restart,
}

#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    requests: mpsc::Sender<Request>,
    waker: Arc<Waker>,
}

impl Outbox {
    /// Hands a request to the supervisor; `false` if it has ended.
    pub(crate) fn send(&self, request: Request) -> bool {
        self.requests.send(request).is_ok() && self.wake()
    }

    /// Has the supervisor look who has gone; `false` if it has ended.
    pub(crate) fn wake(&self) -> bool {
        self.waker.wake().is_ok()
    }
}

/// Both ends; `waker` wakes the poll set of who receives.
pub(crate) fn bridge(waker: Waker) -> (Outbox, mpsc::Receiver<Request>) {
    let (requests, inbox) = mpsc::channel();
    let waker = Arc::new(waker);
    (Outbox { requests, waker }, inbox)
}
