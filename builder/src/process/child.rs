//! What a process sets for its own safety, and before it executes a program.

use std::io;
use std::ops::Range;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{
    Resource, Rlimit, Signal, getpid, getppid, getrlimit, set_parent_process_death_signal,
    setrlimit,
};

/// The first descriptor after the standard streams.
const FIRST_FILE: libc::c_uint = 3;
/// Where it ends that files are looked for one by one: `fs.nr_open`'s default.
const MOST_FILES: u32 = 1024 * 1024;

/// Keeps this process's memory from core files for good, those of a handler
/// that the kernel starts for them as well. For such a handler a limit of 0
/// means nothing, and 1 means no (core(5), "Piping core dumps to a program").
///
/// Where the limit is 0 already, and nothing else is allowed, it stays. One
/// system call, and so allowed between fork and exec.
pub(crate) fn leave_no_core() -> io::Result<()> {
    let limit = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    match setrlimit(Resource::Core, limit) {
        Err(Errno::PERM) => Ok(()),
        other => Ok(other?),
    }
}

/// Has the kernel send `signal` to the process when the thread that starts it
/// ends, however it ends (prctl(2), `PR_SET_PDEATHSIG`).
pub(crate) fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = getpid();
    // SAFETY: the closure runs between fork and exec, and makes two system calls;
    // it takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(signal))?;
            // The parent may have died before the line above took effect.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(Errno::SRCH.into())
            }
        })
    };
}

/// This program once more. By this name the kernel finds its file where a folder on the
/// way is closed to this user, as root's own are to whom `--user` names.
pub(crate) fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(std::env::args_os().next().unwrap_or_default());
    command
}

/// Has `command` keep no file open but its standard streams, and those that it
/// is handed after this: not what its starter inherited from a shell or a
/// make(1), whose files need not be marked to be closed.
pub(crate) fn close_inherited(command: &mut Command) {
    let limit = getrlimit(Resource::Nofile).current;
    let end = limit.and_then(|limit| u32::try_from(limit).ok());
    let end = end.map_or(MOST_FILES, |end| end.min(MOST_FILES));
    let mark = move || {
        // SAFETY: the call takes no pointer, and marks files without closing any.
        let marked = unsafe {
            libc::syscall(
                libc::SYS_close_range,
                FIRST_FILE,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
        if marked != 0 {
            mark_each(FIRST_FILE..end);
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and makes system calls only;
    // it takes no lock and allocates nothing.
    unsafe { command.pre_exec(mark) };
}

/// Marks files one by one, as Linux before 5.11 must (close_range(2)), and who may
/// not call that; async-signal-safe.
fn mark_each(files: Range<u32>) {
    for file in files {
        // SAFETY: the call takes no pointer, and marks a file without closing it;
        // of a number that is not a file's it says so.
        unsafe { libc::fcntl(file.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use rustix::io::FdFlags;

    use super::*;

    #[test]
    fn files_are_marked_one_by_one_where_they_cannot_be_at_once() {
        let file = rustix::io::dup(io::stderr()).unwrap();
        let is_marked = || rustix::io::fcntl_getfd(&file).unwrap() == FdFlags::CLOEXEC;
        assert!(!is_marked());
        let number = file.as_raw_fd().cast_unsigned();
        mark_each(number..number + 1);
        assert!(is_marked());
        // As nothing is open there.
        mark_each(MOST_FILES - 1..MOST_FILES);
    }
}
