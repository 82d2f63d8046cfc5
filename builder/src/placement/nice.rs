//! Nice values of processes and of their sessions.
//!
//! With `kernel.sched_autogroup_enabled`, each session shares the CPU as one
//! against the others, and a process's nice value counts in its session only
//! (sched(7), "The autogroup feature"). Every guest leads a session, so this
//! module sets the nice value of the session, at `/proc/PID/autogroup`. That has
//! no effect on processes in a cgroup with the CPU controller.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, getpriority_process, getrlimit, setpriority_pgrp, setpriority_process,
};
use rustix::thread::{CapabilitySet, capabilities};

/// The least urgent nice value.
pub(crate) const LAST: i32 = 19;

/// Whether sessions share the CPU as groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autogroups {
    On,
    Off,
}

impl Autogroups {
    /// As the host has it; `root` stands for `/`.
    pub(crate) fn of(root: &Path) -> Self {
        let path = root.join("proc/sys/kernel/sched_autogroup_enabled");
        match fs::read_to_string(path) {
            Ok(text) if text.trim() == "1" => Self::On,
            _ => Self::Off,
        }
    }
}

pub(crate) fn own() -> i32 {
    getpriority_process(None).unwrap_or(0)
}

/// Whether this process may give itself a nice value (setpriority(2)).
pub(crate) fn is_allowed(nice: i32) -> bool {
    let capable =
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_NICE));
    // The limit counts from the other end: 1 stands for 19, and 40 for -20.
    let limit = || getrlimit(Resource::Nice).current.unwrap_or(u64::MAX);
    let needed = u64::try_from(20 - nice).unwrap_or(0);
    nice >= own() || capable() || needed <= limit()
}

/// Gives all processes and threads of a guest a nice value, and its session.
/// `pid` leads the guest's session and process group.
///
/// [`io::ErrorKind::WouldBlock`]: a user without CAP_SYS_ADMIN may change one
/// session each tenth of a second; nothing was changed.
pub(crate) fn set(pid: u32, nice: i32, autogroups: Autogroups) -> io::Result<()> {
    let leader = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let leader = leader.ok_or(io::ErrorKind::InvalidInput)?;
    if autogroups == Autogroups::On {
        let session = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/autogroup"));
        session?.write_all(nice.to_string().as_bytes())?;
    }
    // `PRIO_PROCESS` would mean the first thread alone.
    match setpriority_pgrp(Some(leader), nice) {
        // Once nicer, a user's process stays so; the session's value, where it
        // counts, is set.
        Err(Errno::ACCESS | Errno::PERM) if autogroups == Autogroups::On => Ok(()),
        result => Ok(result?),
    }
}

/// What a child about to be a VMM does to have a nice value.
#[derive(Debug, Clone)]
pub(crate) struct OwnNice {
    nice: i32,
    /// The value as text, if its session is to have it too.
    session: Option<String>,
}

impl OwnNice {
    pub(crate) fn new(nice: i32, autogroups: Autogroups) -> Self {
        Self {
            nice,
            session: (autogroups == Autogroups::On).then(|| nice.to_string()),
        }
    }

    /// Gives the calling process its nice value, and the session that it leads,
    /// unless the kernel takes none for that now (see [`set`]): whoever starts it
    /// is not to be held up. Async-signal-safe.
    pub(crate) fn apply(&self) -> io::Result<()> {
        setpriority_process(None, self.nice)?;
        let Some(value) = &self.session else {
            return Ok(());
        };
        let path = c"/proc/self/autogroup";
        let session = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        match rustix::io::write(&session, value.as_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command};
    use std::thread;
    use std::time::Duration;

    use rustix::process::geteuid;

    use super::*;

    /// A process that leads a session, with the nice value that it gave itself.
    fn leader(own: Option<OwnNice>) -> Child {
        let mut command = Command::new("sleep");
        command.arg("60");
        // SAFETY: the closure makes system calls only, on values made before.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                own.as_ref().map_or(Ok(()), OwnNice::apply)
            });
        }
        command.spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn nice_of(child: &Child) -> i32 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        fields
            .split_ascii_whitespace()
            .nth(16)
            .unwrap()
            .parse()
            .unwrap()
    }

    fn session_nice_of(child: &Child) -> Option<i32> {
        let text = fs::read_to_string(format!("/proc/{}/autogroup", child.id())).ok()?;
        text.trim().rsplit_once(' ')?.1.parse().ok()
    }

    /// Does what the kernel takes of a user once each tenth of a second.
    fn in_turn<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match act() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(10));
                }
                result => return result,
            }
        }
    }

    #[test]
    fn a_child_gives_itself_and_its_session_a_nice_value() {
        let autogroups = Autogroups::of(Path::new("/"));
        let child = in_turn(|| {
            let child = leader(Some(OwnNice::new(7, autogroups)));
            assert_eq!(nice_of(&child), 7);
            if autogroups == Autogroups::On && session_nice_of(&child) != Some(7) {
                end(child);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(child)
        });
        end(child.unwrap());
    }

    #[test]
    fn a_guest_gets_another_nice_value_while_it_runs() {
        let autogroups = Autogroups::of(Path::new("/"));
        let child = leader(None);
        for nice in [LAST, own()] {
            let result = in_turn(|| set(child.id(), nice, autogroups));
            // A user's process stays as nice as it is.
            if nice == LAST || geteuid().is_root() {
                result.unwrap();
                assert_eq!(nice_of(&child), nice);
            }
            assert_eq!(
                session_nice_of(&child),
                (autogroups == Autogroups::On).then_some(nice)
            );
        }
        end(child);
    }

    #[test]
    fn what_is_no_process_is_refused() {
        assert!(set(0, 5, Autogroups::Off).is_err());
        assert!(set(u32::MAX, 5, Autogroups::Off).is_err());
    }

    #[test]
    fn to_be_nicer_is_always_allowed() {
        assert!(is_allowed(LAST));
        assert!(is_allowed(own()));
    }
}
