//! Signals as a file descriptor.

use rustix::fd::{FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;

use super::syscall;

const RT_SIGPROCMASK: usize = 14;
const SIGNALFD4: usize = 289;
const SIG_BLOCK: usize = 0;
const SFD_NONBLOCK_CLOEXEC: usize = 0o2_004_000;
/// SIGCHLD, number 17, as a kernel signal set.
static CHILD: u64 = 1 << 16;

/// A descriptor that becomes readable when a child has ended.
pub fn child_fd() -> Result<OwnedFd, Errno> {
    let set = (&raw const CHILD).expose_provenance();
    // SAFETY: rt_sigprocmask(2) reads a set of eight bytes and writes nothing,
    // the old set's pointer being null.
    unsafe { syscall(RT_SIGPROCMASK, [SIG_BLOCK, set, 0, size_of::<u64>()]) }?;
    let new = usize::MAX;
    // SAFETY: signalfd4(2) reads a set of eight bytes.
    let fd = unsafe {
        syscall(
            SIGNALFD4,
            [new, set, size_of::<u64>(), SFD_NONBLOCK_CLOEXEC],
        )
    }?;
    let fd = RawFd::try_from(fd).or(Err(Errno::BADF))?;
    // SAFETY: the kernel just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
