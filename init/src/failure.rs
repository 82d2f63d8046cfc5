//! A failed system call, and what it was for.

use core::fmt;

use rustix::io::Errno;

/// What failed, and the kernel's reason.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    what: &'static str,
    errno: Errno,
}

impl Failure {
    /// This call failed for this reason.
    pub(crate) const fn new(what: &'static str, errno: Errno) -> Self {
        Self { what, errno }
    }
}

/// Says what a system call was for.
pub(crate) trait Context<T> {
    /// Names what failed.
    fn context(self, what: &'static str) -> Result<T, Failure>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn context(self, what: &'static str) -> Result<T, Failure> {
        self.map_err(|errno| Failure { what, errno })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The errors that a guest meets; the number tells the others.
        let reason = match self.errno {
            Errno::PERM => "Operation not permitted",
            Errno::NOENT => "No such file or directory",
            Errno::IO => "Input/output error",
            Errno::AGAIN => "Resource temporarily unavailable",
            Errno::NOMEM => "Out of memory",
            Errno::ACCESS => "Permission denied",
            Errno::BUSY => "Device or resource busy",
            Errno::NODEV => "No such device",
            Errno::EXIST => "File exists",
            Errno::NOTDIR => "Not a directory",
            Errno::ISDIR => "Is a directory",
            Errno::INVAL => "Invalid argument",
            Errno::FBIG => "File too large",
            Errno::NOSPC => "No space left on device",
            Errno::ROFS => "Read-only file system",
            Errno::NOSYS => "Function not implemented",
            Errno::UCLEAN => "Structure needs cleaning",
            Errno::ADDRNOTAVAIL => "Cannot assign requested address",
            Errno::NETDOWN => "Network is down",
            Errno::NETUNREACH => "Network is unreachable",
            _ => "Error",
        };
        let Self { what, errno } = self;
        write!(f, "{what}: {reason} (errno {})", errno.raw_os_error())
    }
}
