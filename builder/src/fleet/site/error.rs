//! Why a site could not be made, and why a VMM was not started.

use std::io;
use std::path::PathBuf;

use crate::artifact::opened::ArtifactsError;
use crate::disk::overlay::OverlayError;
use crate::disk::qcow2::Qcow2Error;
use crate::guest::{Reason, Trouble};
use crate::net::ports::TooFewPorts;
use crate::net::tap::{SubnetError, TapError};
use crate::placement::CpuError;
use crate::store::claims::ClaimsError;
use crate::store::folder::FolderError;
use crate::store::ssh_config::SshConfigError;
use crate::store::users::UsersError;
use crate::system::SystemError;
use crate::units::GuestIndexError;
use crate::vmm::KvmClosed;
use crate::vmm::qemu::EmulatorError;

/// What guests run from and within could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// An artifact cannot be opened.
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
    /// The fleet's folders could not be made.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Not every guest can have a port.
    #[error("this host is not ready: {0}")]
    Ports(#[from] TooFewPorts),
    /// Another fleet is choosing, so what is free is not known yet.
    #[error(
        "another fleet is being launched, and may take the ports and user ids that new guests \
         need: try again when that is done"
    )]
    Turn,
    /// The record of what fleets have cannot be read or written.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
    /// Guests cannot have user ids of their own.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The files for ssh(1) could not be written.
    #[error(transparent)]
    SshConfig(#[from] SshConfigError),
    /// More guests than can be numbered.
    #[error(transparent)]
    Count(#[from] GuestIndexError),
    /// The overlays cannot be laid out.
    #[error(transparent)]
    Layout(#[from] Qcow2Error),
    /// The overlays could not be written.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// The QEMU that was chosen cannot be used.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// Guests' users cannot use KVM.
    #[error(transparent)]
    Kvm(#[from] KvmClosed),
    /// Guests cannot be placed as asked.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// Guests cannot be connected by taps.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Guests have no addresses.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The system refused.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// A guest's VMM that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The folder of its sockets went, as at a log-out.
    #[error(
        "cannot make the guest's sockets: the folder {} was removed, as the system does at a \
         log-out; the fleet's supervisor makes it again, and the guest starts then",
        path.display()
    )]
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
    pub fn reason(&self) -> Reason {
        let said = self.to_string();
        match self {
            // A package that is upgraded is gone for a moment.
            Self::NoRuntimeFolder { .. } | Self::Qemu(_) => Reason::Host(Trouble::Short(said)),
            Self::Tap(TapError::Busy(_)) => Reason::Host(Trouble::Taken(said)),
            Self::Tap(_) | Self::Files(_) | Self::Process(_) => {
                Trouble::in_message(&said).map_or(Reason::Spawn(said), Reason::Host)
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
