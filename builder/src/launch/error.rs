//! Why a fleet was not launched, or not gone on with.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::artifact::opened::ArtifactsError;
use crate::fleet::remove::RemoveError;
use crate::fleet::site::SiteError;
use crate::fleet::supervise::SuperviseError;
use crate::host::settings::SettingsError;
use crate::process::ProcessError;
use crate::store::folder::FolderError;
use crate::store::journal::JournalError;
use crate::store::key::KeyError;
use crate::trial::TrialError;
use crate::trial::readiness::Report;
use crate::units::counted;
use crate::vmm::qemu::EmulatorError;

/// A fleet that could not be launched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The host cannot run the fleet.
    #[error("this host is not ready for {}", obstacles(.0))]
    NotReady(Box<Report>),
    /// The user ended it before it began.
    #[error("interrupted before a guest was started")]
    Interrupted,
    /// Host settings could not be changed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Guests cannot run from the artifacts.
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
    #[error(transparent)]
    Trial(#[from] TrialError),
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The fleet cannot be supervised.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The fleet's folders could not be made.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The key given is not one to log in with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What a launch left that was killed could not be removed.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// The QEMU that was chosen cannot be used.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The supervisor of a fleet ended before it was one.
    #[error("the fleet's supervisor ended ({status}): {last}")]
    Supervisor {
        status: ExitStatus,
        /// The last thing it said.
        last: String,
    },
    /// The host was restarted, and no guest of the fleet can live.
    #[error(
        "fleet {name} was lost when the host was restarted: `imgbuild rm {name}` removes it, and \
         `imgbuild launch` starts a new one"
    )]
    Rebooted { name: String },
    /// Its artifacts are not those that its guests run from.
    #[error(
        "cannot resume fleet {name}: {} was built again since, and guests that start now would run \
         other artifacts; `imgbuild rm --force {name}` ends its guests, and `imgbuild launch` \
         starts a new fleet",
        out.display()
    )]
    Changed { name: String, out: PathBuf },
    /// The system refused what a supervisor needs.
    #[error("cannot supervise the fleet: {0}")]
    System(#[from] io::Error),
}

/// What makes a host not ready, for a message.
pub(crate) fn obstacles(report: &Report) -> String {
    let mut text = format!(
        "{} under --accel {}:",
        counted(report.want.wanted(), "guest"),
        report.want.machine.accel.name()
    );
    for finding in report.obstacles() {
        let _ = write!(text, "\n  {}", finding.in_full());
    }
    text.push_str("\n`imgbuild check` says more; --force launches anyway");
    text
}
