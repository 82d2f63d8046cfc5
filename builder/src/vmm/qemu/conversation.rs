//! A talk with a guest's VMM over a connection to its monitor that is open only for
//! that time.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::qmp::{QmpError, Talk};

/// A talk that the poll set tells how to go on with.
#[derive(Debug)]
pub(crate) struct Conversation<T> {
    monitor: UnixStream,
    talk: T,
}

/// Why nothing comes of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConversationError {
    /// What it said is none.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error("its monitor cannot be asked: {0}")]
    Broken(#[from] io::Error),
}

impl<T: Talk> Conversation<T> {
    /// Begins on a connection that was made just now, without waiting for
    /// anything; `registry` tells by `token` when to go on.
    pub(crate) fn begin(
        talk: T,
        monitor: net::UnixStream,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut monitor = UnixStream::from_std(monitor);
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut monitor, token, both)?;
        Ok(Self { monitor, talk })
    }

    /// Takes what came; gives the outcome once it is there.
    pub(crate) fn go_on(&mut self) -> Result<Option<T::Outcome>, ConversationError> {
        let mut chunk = [0; 4096];
        loop {
            // What it does not take now, it takes when it is writable again.
            let outgoing = self.talk.outgoing();
            while !outgoing.is_empty()
                && let Some(written) = unless_blocked(self.monitor.write(outgoing))?
            {
                outgoing.drain(..written);
            }
            match unless_blocked(self.monitor.read(&mut chunk))? {
                None => return Ok(None),
                Some(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Some(read) => {
                    let outcome = self.talk.take(&chunk[..read])?;
                    if outcome.is_some() {
                        return Ok(outcome);
                    }
                }
            }
        }
    }
}

/// Bytes that were passed; `None` where none can be for now.
fn unless_blocked(passed: io::Result<usize>) -> io::Result<Option<usize>> {
    match passed {
        Ok(passed) => Ok(Some(passed)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
