//! Waits for any of a few descriptors.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::thread::Timespec;

use crate::failure::{Context, Failure};

/// Most descriptors that anybody here waits for.
const MAX: usize = 6;

/// Descriptors to wait for, and then what became of each.
pub(crate) struct Waiting<'a> {
    fds: [PollFd<'a>; MAX],
    count: usize,
}

impl<'a> Waiting<'a> {
    /// For this descriptor.
    pub(crate) fn new(fd: BorrowedFd<'a>, events: PollFlags) -> Self {
        Self {
            fds: core::array::from_fn(|_| PollFd::from_borrowed_fd(fd, events)),
            count: 1,
        }
    }

    /// For this one too, if there is one; gives its place.
    pub(crate) fn and(&mut self, fd: Option<BorrowedFd<'a>>, events: PollFlags) -> Option<usize> {
        let place = self.count;
        *self.fds.get_mut(place)? = PollFd::from_borrowed_fd(fd?, events);
        self.count += 1;
        Some(place)
    }

    /// Waits, but no longer than this many milliseconds; `false` if that was
    /// how it ended.
    pub(crate) fn wait(&mut self, limit_ms: Option<u64>) -> Result<bool, Failure> {
        let limit = limit_ms.map(|limit| Timespec {
            tv_sec: (limit / 1000).cast_signed(),
            tv_nsec: (limit % 1000 * 1_000_000).cast_signed(),
        });
        let fds = self.fds.get_mut(..self.count).unwrap_or_default();
        match poll(fds, limit.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(errno).context("poll"),
        }
    }

    /// What became of the descriptor at this place.
    pub(crate) fn ready(&self, place: Option<usize>) -> PollFlags {
        place
            .and_then(|place| self.fds.get(place))
            .map_or(PollFlags::empty(), PollFd::revents)
    }
}
