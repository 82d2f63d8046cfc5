//! Processes: fork and exec, which rustix leaves to a libc.

use core::ffi::CStr;
use core::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use super::syscall;

const FORK: usize = 57;
const EXECVE: usize = 59;
const EXIT_GROUP: usize = 231;

/// Most words of a program's arguments or environment.
pub(crate) const WORDS_MAX: usize = 11;

/// Which of the two a process is after a fork.
pub(crate) enum Forked {
    /// The new one.
    Child,
    /// The old one, and the new one's number.
    Parent(Pid),
}

/// Makes a second process of this one; the child has this thread only.
pub(crate) fn fork() -> Result<Forked, Errno> {
    // SAFETY: fork(2) takes no arguments. The child gets copies of all memory;
    // no lock of ours exists that another thread could hold at this moment.
    let number = unsafe { syscall(FORK, [0; 4]) }?;
    let number = i32::try_from(number).unwrap_or_default();
    Ok(Pid::from_raw(number).map_or(Forked::Child, Forked::Parent))
}

/// Ends the process.
pub(crate) fn exit(code: u8) -> ! {
    loop {
        // SAFETY: exit_group(2) takes a number and does not return.
        let _ = unsafe { syscall(EXIT_GROUP, [code.into(), 0, 0, 0]) };
    }
}

/// Whether this process is PID 1, and not one that it made.
pub(crate) fn is_init() -> bool {
    getpid() == Pid::INIT
}

/// Becomes the program `path`; gives the reason if it cannot.
pub(crate) fn exec(path: &CStr, arguments: &[&CStr], environment: &[&CStr]) -> Errno {
    let (Some(arguments), Some(environment)) = (pointers(arguments), pointers(environment)) else {
        return Errno::TOOBIG;
    };
    let call = [
        path.as_ptr().expose_provenance(),
        arguments.as_ptr().expose_provenance(),
        environment.as_ptr().expose_provenance(),
        0,
    ];
    // SAFETY: execve(2) reads a string and two arrays of strings, each array
    // with a null pointer at its end.
    match unsafe { syscall(EXECVE, call) } {
        Ok(_) => Errno::IO,
        Err(errno) => errno,
    }
}

/// The words as the kernel takes them, with a null pointer at the end.
fn pointers(words: &[&CStr]) -> Option<[*const u8; WORDS_MAX + 1]> {
    let mut pointers = [ptr::null(); WORDS_MAX + 1];
    for (place, word) in pointers
        .get_mut(..words.len().max(1))?
        .iter_mut()
        .zip(words)
    {
        *place = word.as_ptr().cast();
    }
    (words.len() <= WORDS_MAX).then_some(pointers)
}
