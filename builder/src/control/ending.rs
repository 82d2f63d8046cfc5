//! Ends a fleet by its supervisor.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::bridge::{Act, Detail};
use super::client::{Client, ClientError};
use super::types::{ActAnswer, ActRequest, Selection};
use crate::interrupt::{Interrupt, poll_until};

/// Ends a fleet; gives the process that was its supervisor, too.
pub(crate) fn end(
    client: &Client,
    grace: Duration,
) -> Result<(ActAnswer, Option<OwnedFd>), ClientError> {
    // Before it ends, lest its number is another's.
    let supervisor = client
        .fleet(Detail::Summary)?
        .supervisor
        .and_then(|supervisor| {
            let pid = Pid::from_raw(supervisor.pid.cast_signed())?;
            pidfd_open(pid, PidfdFlags::empty()).ok()
        });
    let request = ActRequest {
        guests: Selection::All,
        grace_seconds: Some(grace.as_secs_f64()),
    };
    Ok((client.act(Act::Stop, &request)?, supervisor))
}

/// Waits until that process has ended, or the user asks to stop.
pub(crate) fn wait(supervisor: &OwnedFd, interrupt: &Interrupt) -> io::Result<()> {
    let events = [supervisor.as_fd(), interrupt.as_fd()];
    let mut events = events.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    poll_until(&mut events, None).map(drop)
}
