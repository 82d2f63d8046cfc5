//! Why a fleet was not launched or resumed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
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
use crate::system::SystemError;
use crate::trial::TrialError;
use crate::trial::readiness::Report;
use crate::trial::template::TemplateError;
use crate::units::counted;
use crate::vmm::qemu::EmulatorError;

/// A fleet that could not be launched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The host cannot run the fleet.
    #[error("this host is not ready for {}", obstacles(.0))]
    NotReady(Box<Report>),
    /// The name is like those that `run` gives.
    #[error(
        "a fleet cannot be named {name}: `run-` and eight hexadecimal digits name the throw-away \
         guests of `imgbuild run`, which removes those that it finds unsupervised; choose another \
         name with --name"
    )]
    Reserved { name: String },
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
    /// Guests have nothing to be restored from.
    #[error("cannot restore guests from a template (--start boot has them boot): {0}")]
    Template(#[from] TemplateError),
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
    #[error(
        "the fleet's supervisor ended ({status}) before the fleet started: {}",
        last_words(last, log.as_deref())
    )]
    Supervisor {
        status: ExitStatus,
        /// Where it is still there.
        log: Option<PathBuf>,
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
    #[error(transparent)]
    System(#[from] SystemError),
}

/// What a supervisor said last, and where the rest stands.
fn last_words(last: &str, log: Option<&Path>) -> String {
    let last = if last.is_empty() {
        "it logged nothing"
    } else {
        last
    };
    match log {
        Some(log) => format!("{last}; its log is {}", log.display()),
        None => last.to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn a_supervisor_that_ended_leads_to_its_log_while_that_is_there() {
        let error = |last: &str, log: Option<&str>| {
            let error = LaunchError::Supervisor {
                status: ExitStatus::from_raw(0x100),
                last: last.to_owned(),
                log: log.map(PathBuf::from),
            };
            error.to_string()
        };
        let began = "the fleet's supervisor ended (exit status: 1) before the fleet started: ";
        assert_eq!(
            error("no memory", Some("/f/log")),
            format!("{began}no memory; its log is /f/log")
        );
        assert_eq!(error("", None), format!("{began}it logged nothing"));
    }
}
