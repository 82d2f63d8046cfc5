//! Why a guest's VMM was not started.

use std::io;
use std::path::PathBuf;

use crate::fleet::guest::{Reason, Trouble};
use crate::fleet::tap::TapError;
use crate::vmm::qemu::EmulatorError;

/// A guest's VMM that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The folder of its sockets went, as at a log-out.
    #[error("the folder {} of its sockets is gone; it starts once that is there again", path.display())]
    NoRuntimeFolder {
        /// The folder.
        path: PathBuf,
    },
    /// Its tap cannot be had.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Its QEMU is out of reach.
    #[error(transparent)]
    Qemu(#[from] EmulatorError),
    /// Its files cannot be had.
    #[error(transparent)]
    Files(#[from] io::Error),
    /// Its process cannot be had.
    #[error("cannot start QEMU: {0}")]
    Process(io::Error),
}

impl SpawnError {
    /// Why the guest is not started: for the host's reasons, or for its own.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let said = self.to_string();
        match self {
            // A package that is upgraded is gone for a moment.
            Self::NoRuntimeFolder { .. } | Self::Qemu(_) => Reason::Host(Trouble::Short(said)),
            Self::Tap(TapError::Busy(_)) => Reason::Host(Trouble::Taken(said)),
            Self::Tap(_) | Self::Files(_) | Self::Process(_) => {
                Trouble::told_by(&said).map_or(Reason::Spawn(said), Reason::Host)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn the_host_s_reasons_are_told_from_the_guest_s_own() {
        let files = |errno: Errno| SpawnError::from(io::Error::from(errno));
        let process = |errno: Errno| SpawnError::Process(errno.into());
        let refused = |errno: Errno| {
            SpawnError::from(TapError::Refused {
                what: "attach to the tap ib0".to_owned(),
                source: errno.into(),
            })
        };
        for error in [
            files(Errno::NOSPC),
            files(Errno::MFILE),
            process(Errno::AGAIN),
            // A crate's own kind of error, which has no number.
            SpawnError::from(io::Error::other(
                "Too many open files (os error 24) at path x",
            )),
            refused(Errno::NOMEM),
            SpawnError::NoRuntimeFolder {
                path: PathBuf::from("/run/imgbuild/f"),
            },
        ] {
            assert!(
                matches!(error.reason(), Reason::Host(Trouble::Short(_))),
                "{error}"
            );
        }
        let busy = SpawnError::from(TapError::Busy("ib0".to_owned()));
        assert!(matches!(busy.reason(), Reason::Host(Trouble::Taken(_))));
        for error in [
            files(Errno::NOENT),
            process(Errno::ACCESS),
            refused(Errno::INVAL),
            TapError::Gone("ib0".to_owned()).into(),
        ] {
            assert!(matches!(error.reason(), Reason::Spawn(_)), "{error}");
        }
    }
}
