//! Why a tool failed.

use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::package::debian_package;

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The tool is not on this machine.
    #[error("`{program}` is not installed: on Debian, `apt install {package}` provides it")]
    Missing {
        program: String,
        /// The Debian package that holds it.
        package: String,
    },
    /// The tool did not start.
    #[error("cannot start `{program}`: {source}")]
    Start { program: String, source: io::Error },
    /// The tool ended with an error.
    #[error("`{command}` failed ({status}); its last lines were:\n{tail}")]
    Failed {
        command: String,
        status: ExitStatus,
        /// The last lines it wrote.
        tail: String,
    },
    /// The tool could not be watched.
    #[error("lost track of `{program}`, which was stopped: {source}")]
    Watch { program: String, source: io::Error },
    /// The tool had its time, by its own clock ([`clock`](super::clock)); it was killed.
    #[error("`{program}` did not end within {limit:?} and was killed; run it by hand")]
    TooSlow { program: String, limit: Duration },
    /// The tool hardly got the CPU; it was killed.
    #[error(
        "`{program}` was killed after {wall:.0?}, in which it got a CPU for {had:.1?}: this host \
         is too busy; try again when it is idle"
    )]
    Starved {
        program: String,
        wall: Duration,
        /// The part of it that was the tool's.
        had: Duration,
    },
    /// The user asked to stop; the tool was ended.
    #[error("interrupted while `{program}` was running; it was stopped")]
    Interrupted { program: String },
}

/// The error for a `command` that did not start, which names the package to
/// install when the tool is missing.
pub(crate) fn start_error(command: &Command, source: io::Error) -> ProcessError {
    let program = command.get_program().to_string_lossy().into_owned();
    // A folder that is not there is reported by the same errno as a missing tool.
    let has_folder = command.get_current_dir().is_none_or(Path::is_dir);
    if source.kind() == io::ErrorKind::NotFound && has_folder && !program.contains('/') {
        let package = debian_package(&program).to_owned();
        return ProcessError::Missing { program, package };
    }
    ProcessError::Start { program, source }
}
