//! Errors of system calls, with what failed: an error number alone does not say it.

use std::io;

use rustix::io::Errno;

/// The system refused something.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}{}", advice(source))]
pub struct SystemError {
    /// What was asked of it.
    what: String,
    source: io::Error,
}

impl SystemError {
    /// What the system does not refuse, and is wrong all the same.
    pub(crate) fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self {
            what: what.into(),
            source,
        }
    }
}

/// Says of a failure what failed.
pub(crate) trait Doing<T> {
    /// `what` goes on after "cannot".
    fn doing(self, what: impl Into<String>) -> Result<T, SystemError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, SystemError> {
        self.map_err(|error| SystemError::new(what, error.into()))
    }
}

/// What the user may do, where the kind of error says it.
fn advice(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE) => "; raise the limit on open files (ulimit -n)",
        Some(Errno::NFILE) => "; raise the sysctl fs.file-max",
        Some(Errno::NOMEM) => "; free memory of the host",
        Some(Errno::AGAIN) => "; raise the limit on processes (ulimit -u)",
        Some(Errno::NOSPC | Errno::DQUOT) => "; free disk space",
        Some(Errno::ACCESS | Errno::PERM) => "; run imgbuild as root",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_what_failed_and_what_helps() {
        let text = |errno| Err::<(), Errno>(errno).doing("watch it").unwrap_err();
        assert_eq!(
            text(Errno::MFILE).to_string(),
            "cannot watch it: Too many open files (os error 24); raise the limit on open files \
             (ulimit -n)"
        );
        assert_eq!(
            text(Errno::INVAL).to_string(),
            "cannot watch it: Invalid argument (os error 22)"
        );
    }
}
