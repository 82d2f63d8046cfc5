//! Why a guest is not ready, or was started again.

use std::fmt;
use std::time::Duration;

use super::Trouble;
use crate::vmm::End;

/// Why a guest is not ready, or why it was started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Its VMM could not be started.
    Spawn(String),
    /// The host keeps it from being started.
    Host(Trouble),
    /// KVM cannot run this guest's code.
    KvmInternalError(String),
    /// Its kernel panicked.
    KernelPanic(String),
    /// Its init said that it cannot go on.
    Fatal(String),
    /// Its VMM ended, and nothing said why.
    Ended(End),
    /// It powered off by itself: its init was asked to, by whoever is in it.
    PoweredOff,
    /// It restarted itself: its init was asked to, by whoever is in it.
    Rebooted,
    /// Its machine was reset, after it had been ready, and its init knew nothing of
    /// it.
    Reset,
    /// A signal had its VMM end.
    Terminated(String),
    /// It said nothing at all in the time it had to get ready.
    Silent(Duration),
    /// It spoke, but did not report ready in the time it had.
    NotReady(Duration),
    /// It has not reported ready for so long, without having had its chance.
    SlowBoot(Duration),
    /// It hangs: it had its chance to answer for so long, and did not.
    NoAnswer(Duration),
    /// Its VMM was stopped by a signal, so it cannot answer.
    VmmStopped,
    /// Its VMM paused it, since its disk could not be written or read.
    DiskFailed,
    /// Somebody had its VMM pause it, so it cannot answer.
    Paused,
    /// Its sockets are gone, so nobody can ask it.
    OutOfReach,
    /// Its VMM says that it cannot go on.
    Dead,
    /// It has not answered for so long, without having had its chance.
    Late(Duration),
    /// The kernel's OOM killer ended its VMM.
    OomKilled,
    /// The user asked it to power off.
    Stopped,
    /// The user had it ended by force.
    Killed,
    /// Its VMM could not restore it from the template.
    NotRestored(String),
    /// Its supervisor died while it was restored.
    HalfRestored,
    /// Its VMM was gone when its fleet was adopted.
    Lost,
}

impl Reason {
    /// Whether something went wrong: all but what the guest or the user asked for.
    pub fn is_failure(&self) -> bool {
        !matches!(
            self,
            Self::PoweredOff | Self::Rebooted | Self::Stopped | Self::Killed
        )
    }

    /// Whether the host had it, so that the same guest may run elsewhere.
    pub(crate) fn is_of_the_host(&self) -> bool {
        matches!(
            self,
            Self::Spawn(_) | Self::Host(_) | Self::OomKilled | Self::Terminated(_)
        )
    }

    /// Whether it keeps a guest from being ready, and ends none.
    pub(crate) fn is_delay(&self) -> bool {
        matches!(self, Self::VmmStopped | Self::SlowBoot(_) | Self::Host(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(reason) => write!(f, "not started: {reason}"),
            Self::Host(trouble) => write!(f, "{trouble}"),
            Self::KvmInternalError(line) => write!(f, "KVM cannot run it: {line}"),
            Self::KernelPanic(line) => write!(f, "kernel panic: {line}"),
            Self::Fatal(reason) => write!(f, "init gave up: {reason}"),
            Self::Ended(end) => write!(f, "QEMU ended ({end})"),
            Self::PoweredOff => write!(f, "powered off by itself"),
            Self::Rebooted => write!(f, "rebooted by itself"),
            Self::Reset => write!(
                f,
                "its machine was reset without a shutdown, as by sysrq-b or a triple fault"
            ),
            Self::Terminated(line) => write!(f, "a signal ended its QEMU: {line}"),
            Self::Silent(time) => write!(f, "said nothing for {} s", time.as_secs()),
            Self::NotReady(time) => write!(f, "not ready after {} s", time.as_secs()),
            Self::SlowBoot(time) => {
                write!(
                    f,
                    "not ready after {} s, because it got too little CPU time",
                    time.as_secs()
                )
            }
            Self::NoAnswer(time) => {
                write!(
                    f,
                    "it hangs: it has not answered for {} s, although it got CPU time",
                    time.as_secs()
                )
            }
            Self::VmmStopped => write!(f, "its QEMU is stopped by a signal"),
            Self::DiskFailed => write!(
                f,
                "QEMU paused it, because its disk could not be written; it goes on once the host's \
                 disk has room"
            ),
            Self::Paused => write!(f, "somebody paused it through QEMU's monitor"),
            Self::OutOfReach => write!(
                f,
                "its sockets are gone, so it cannot be asked; `imgbuild restart` starts it again"
            ),
            Self::Dead => write!(f, "its QEMU says that it cannot go on"),
            Self::Late(time) => {
                write!(
                    f,
                    "no answer for {} s, because it got too little CPU time",
                    time.as_secs()
                )
            }
            Self::OomKilled => write!(f, "QEMU was ended by the OOM killer"),
            Self::Stopped => write!(f, "stopped on request"),
            Self::Killed => write!(f, "killed on request"),
            Self::NotRestored(reason) => write!(
                f,
                "not restored from its template: {reason}; `imgbuild launch --start boot` has guests \
                 boot"
            ),
            Self::HalfRestored => write!(
                f,
                "the fleet's supervisor died while it was restored from its template"
            ),
            Self::Lost => write!(f, "its QEMU was gone when the fleet was adopted"),
        }
    }
}
