//! Why a fleet is not watched.

use crate::system::SystemError;

/// The screen could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopError {
    #[error("top takes a terminal on stdin and stdout; `imgbuild ps` and `ps --json` print")]
    NoTerminal,
    #[error(transparent)]
    System(#[from] SystemError),
}
