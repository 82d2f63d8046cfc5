//! An artifact, open for as long as guests are started from it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use crate::artifact::opened::ArtifactsError;
use crate::plain;
use std::path::Path;

/// A file of the artifacts, the same for as long as it is open whatever becomes
/// of its path.
#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl Artifact {
    pub(super) fn open(path: PathBuf) -> Result<Self, ArtifactsError> {
        match plain::open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(ArtifactsError::Artifact {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// Another descriptor of the open file.
    pub(super) fn shared(&self) -> io::Result<File> {
        let shared = self.file.try_clone();
        shared.map_err(|error| named(&self.path, &error))
    }

    /// The file opened once more, with a position and locks of its own.
    pub(super) fn again(&self) -> io::Result<File> {
        let opened = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        opened.map_err(|error| named(&self.path, &error))
    }
}

/// The same error, with what it is about.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot use {}: {error}", path.display()),
    )
}
