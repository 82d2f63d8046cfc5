//! Why no host setting was read or changed.

use std::io;
use std::path::PathBuf;

/// Why no host setting was looked at or changed. What one of them alone met
/// stands in its [`Outcome`](super::Outcome) or [`Left`](super::Left).
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("{what} cannot be changed: {source}; run imgbuild as root")]
    Denied {
        /// The setting, or the record's path.
        what: String,
        source: io::Error,
    },
    /// The record, or its folder, is not as imgbuild would have left it.
    #[error(
        "{} {why}, so imgbuild neither trusts it nor changes any setting; it lists the settings \
         that imgbuild changed: restore those by hand, then remove it",
        path.display()
    )]
    Untrusted {
        /// The record, its lock or its folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The record could not be read or written.
    #[error("cannot use {}, the record of the host settings that imgbuild changed: {source}", path.display())]
    Record {
        /// The record, its lock or its folder.
        path: PathBuf,
        source: io::Error,
    },
    /// More fleets hold settings than the record has room for.
    #[error(
        "{} is full, since very many fleets hold host settings at once; stop some fleets",
        path.display()
    )]
    Full { path: PathBuf },
    /// This boot has no name, by which a record could be distinguished from an old one.
    #[error(
        "{} cannot be read: {source}; without it no change can be recorded; mount /proc",
        path.display()
    )]
    Boot { path: PathBuf, source: io::Error },
    /// It is not known whether guests rest on the settings.
    #[error("guests cannot be looked for in {}: {source}; mount /proc", path.display())]
    Guests { path: PathBuf, source: io::Error },
    /// This process cannot find out when it started.
    #[error("/proc/self/stat cannot be read: {0}; mount /proc")]
    Process(io::Error),
}
