//! Why a fleet was not launched, or not gone on with.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::artifact::ManifestError;
use crate::disk::overlay::OverlayError;
use crate::disk::qcow2::Qcow2Error;
use crate::fleet::claims::ClaimsError;
use crate::fleet::cpu::CpuError;
use crate::fleet::folder::FolderError;
use crate::fleet::journal::JournalError;
use crate::fleet::key::KeyError;
use crate::fleet::ports::TooFewPorts;
use crate::fleet::readiness::Report;
use crate::fleet::remove::RemoveError;
use crate::fleet::ssh_config::SshConfigError;
use crate::fleet::tap::{SubnetError, TapError};
use crate::fleet::users::UsersError;
use crate::host::finding::Finding;
use crate::host::settings::SettingsError;
use crate::process::ProcessError;
use crate::units::{GuestIndexError, counted};
use crate::vmm::qemu::EmulatorError;
use crate::vmm::{KvmClosed, Unreadable};

/// A fleet that could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The host cannot run the fleet.
    #[error("this host is not ready for {}", obstacles(.0))]
    NotReady(Box<Report>),
    /// The user ended it before it began.
    #[error("interrupted before a guest was started")]
    Interrupted,
    /// Host settings could not be changed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The output folder's manifest is not usable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An artifact is not what the manifest says.
    #[error("{}: {reason}; `imgbuild verify` tells more, and building again mends it", path.display())]
    Artifact {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The fleet's folders could not be made.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The key given is not one to log in with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not every guest can have a port.
    #[error("this host is not ready: {0}")]
    Ports(#[from] TooFewPorts),
    /// It cannot be told yet what is free.
    #[error(
        "another fleet is being launched, and may take the ports and user ids that new guests \
         need: try again when that is done"
    )]
    Turn,
    /// What other fleets have cannot be told, or not be told to them.
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
    /// QEMU cannot be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// What a launch left that was killed could not be removed.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// The QEMU that was chosen cannot be used.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// The QEMU that was chosen does not run guests.
    #[error("this host is not ready: {}", shortcoming(.0))]
    Unfit(Box<Finding>),
    /// A guest's user cannot read an artifact.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
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
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Prometheus cannot be answered where it was to be.
    #[error("cannot listen on {address} for --metrics: {source}; choose another address")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The supervisor of a fleet ended before it was one.
    #[error("the supervisor ended ({status}): {last}")]
    Supervisor {
        /// How it ended.
        status: ExitStatus,
        /// The last thing it said.
        last: String,
    },
    /// The host was restarted, and no guest of the fleet can live.
    #[error(
        "{name} was lost when the host was restarted: `imgbuild rm {name}` clears it, and `imgbuild \
         launch` starts one anew"
    )]
    Rebooted {
        /// The fleet.
        name: String,
    },
    /// Its artifacts are not those that its guests run from.
    #[error(
        "{} was built again since {name} was launched, and guests of two kinds would be mixed; \
         `imgbuild rm --force {name}` ends its guests, and `imgbuild launch` starts it anew",
        out.display()
    )]
    Changed {
        /// The fleet.
        name: String,
        /// The output folder.
        out: PathBuf,
    },
    /// The system refused what a supervisor needs.
    #[error("cannot supervise the fleet: {0}")]
    System(#[from] io::Error),
}

/// What a finding says, for a message.
fn shortcoming(finding: &Finding) -> String {
    let mut text = format!(
        "{}: {} (need: {}): {}",
        finding.id, finding.value, finding.need, finding.meaning
    );
    if let Some(guests) = finding.guests {
        let _ = write!(text, "; allows {}", counted(guests, "guest"));
    }
    if let Some(fix) = &finding.fix {
        let _ = write!(text, "; {fix}");
    }
    text
}

/// What makes a host not ready, for a message.
pub(super) fn obstacles(report: &Report) -> String {
    let mut text = format!(
        "{} under --accel {}:",
        counted(report.want.wanted(), "guest"),
        report.want.accel.name()
    );
    for finding in report.obstacles() {
        let _ = write!(text, "\n  {}", shortcoming(finding));
    }
    text.push_str("\n`imgbuild check` tells more; --force launches all the same");
    text
}
