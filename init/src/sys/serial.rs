//! The state of the serial line that termios does not report.

use core::ffi::c_uint;

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::ioctl::{Getter, ioctl};

const TIOCSERGETLSR: u32 = 0x5459;
const TIOCSER_TEMT: c_uint = 1;

/// Whether all that was written has left the UART.
pub(crate) fn is_drained(tty: impl AsFd) -> Result<bool, Errno> {
    // SAFETY: TIOCSERGETLSR writes one unsigned int.
    let request = unsafe { Getter::<TIOCSERGETLSR, c_uint>::new() };
    // SAFETY: the kernel writes to `request` alone.
    let state = unsafe { ioctl(tty, request) }?;
    Ok(state & TIOCSER_TEMT != 0)
}
