//! Asks a guest's VMM for the state of the guest's machine, over a connection to its
//! monitor that is open only for that time.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use super::qmp::{Inquiry, QmpError};
use crate::vmm::MachineState;

#[derive(Debug)]
pub(crate) struct Inspection {
    monitor: UnixStream,
    inquiry: Inquiry,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectionError {
    /// What it said is none.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error("its monitor cannot be asked: {0}")]
    Broken(#[from] io::Error),
}

impl Inspection {
    /// Begins on a connection that was made just now, without waiting for
    /// anything; `registry` tells by `token` when to go on.
    pub(crate) fn begin(
        monitor: net::UnixStream,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut monitor = UnixStream::from_std(monitor);
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut monitor, token, both)?;
        Ok(Self {
            monitor,
            inquiry: Inquiry::begin(),
        })
    }

    /// Takes what came; gives the answer once it is there.
    pub(crate) fn go_on(&mut self) -> Result<Option<MachineState>, InspectionError> {
        let mut chunk = [0; 4096];
        loop {
            // What it does not take now, it takes when it is writable again.
            let outgoing = self.inquiry.outgoing();
            while !outgoing.is_empty()
                && let Some(written) = unless_blocked(self.monitor.write(outgoing))?
            {
                outgoing.drain(..written);
            }
            match unless_blocked(self.monitor.read(&mut chunk))? {
                None => return Ok(None),
                Some(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Some(read) => {
                    let machine = self.inquiry.take(&chunk[..read])?;
                    if machine.is_some() {
                        return Ok(machine);
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
