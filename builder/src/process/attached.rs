//! A program that has this process's own streams and terminal.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::child::die_with_parent;
use super::error::{ProcessError, start_error};
use crate::interrupt::{Interrupt, poll_until};

/// What the program gets between `over` and SIGTERM: what its other side said last
/// may be on its way.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs `command` to its end, with this process's own streams, and ends it soon once
/// `over` is raised.
pub(crate) fn attached(mut command: Command, over: &Interrupt) -> Result<ExitStatus, ProcessError> {
    // A terminal that it changed it can put back at this signal.
    die_with_parent(&mut command, Signal::TERM);
    let mut child = (command.spawn()).map_err(|source| start_error(&command, source))?;
    let watched = watch(&child, over);
    if !matches!(watched, Ok(true)) {
        // Not waited for yet, so that its number is still its own.
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    }
    watched.and(child.wait()).map_err(|source| {
        let program = command.get_program().to_string_lossy().into_owned();
        ProcessError::Watch { program, source }
    })
}

/// Waits for its end; tells whether that came in time.
fn watch(child: &Child, over: &Interrupt) -> io::Result<bool> {
    let exited = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let exited = || PollFd::new(&exited, PollFlags::IN);
    poll_until(&mut [exited(), PollFd::new(over, PollFlags::IN)], None)?;
    poll_until(&mut [exited()], Some(Instant::now() + FAREWELL))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_ends_by_itself_or_when_all_is_over() {
        let over = Interrupt::never().unwrap();
        let ended = attached(sh("exit 7"), &over).unwrap();
        assert_eq!(ended.code(), Some(7));
        over.raise();
        let last = attached(sh("exit 8"), &over).unwrap();
        assert_eq!(last.code(), Some(8));
        let endless = attached(sh("exec sleep infinity"), &over).unwrap();
        assert_eq!(endless.signal(), Some(Signal::TERM.as_raw()));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let over = Interrupt::never().unwrap();
        let error = attached(Command::new("imgbuild-has-none"), &over).unwrap_err();
        assert!(error.to_string().contains("imgbuild-has-none"), "{error}");
    }
}
