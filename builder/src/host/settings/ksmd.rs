//! The nice value of ksmd, the kernel's thread that merges pages.
//!
//! It is none of the kernel's files: setpriority(2) sets it, by a process number. So
//! it is set only for a kernel thread of that name, of which it is known that the
//! number did not pass to another process meanwhile.

use std::io;
use std::path::Path;

use rustix::process::{Pid, geteuid, setpriority_process};

use crate::sample::ksm::{Ksmd, ksmd};
use crate::sample::source::Source;
use crate::sample::unseen::Unseen;

/// What its nice value is now.
pub(super) fn nice(root: &Path) -> io::Result<i64> {
    find(root).map(|ksmd| ksmd.nice)
}

/// Sets its nice value.
pub(super) fn set_nice(root: &Path, nice: i64) -> io::Result<()> {
    let found = find(root)?;
    #[cfg(test)]
    if super::tests::fake::set_nice(root, found.pid, nice) {
        return Ok(());
    }
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let pid = i32::try_from(found.pid).ok().and_then(Pid::from_raw);
    let value = i32::try_from(nice).map_err(|_| invalid())?;
    setpriority_process(Some(pid.ok_or_else(invalid)?), value)?;
    let now = find(root)?;
    if (now.pid, now.start_time) == (found.pid, found.start_time) {
        Ok(())
    } else {
        Err(io::Error::other("ksmd ended while its nice value was set"))
    }
}

/// Whether this user may set it.
pub(super) fn may_set() -> io::Result<()> {
    if cfg!(test) || geteuid().is_root() {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

fn find(root: &Path) -> io::Result<Ksmd> {
    let mut unseen = Vec::new();
    ksmd(&mut Source::new(root, &mut unseen)).ok_or_else(|| match unseen.into_iter().next() {
        Some(Unseen { what, why }) => io::Error::other(format!("{what}: {why}")),
        None => io::Error::other(
            "ksmd is not among the processes that are seen here; in a container, renice it on \
             the host",
        ),
    })
}
