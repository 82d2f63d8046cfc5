//! An artifact, open for as long as guests are started from it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::artifact::opened::ArtifactsError;
use crate::vmm::may_read_again;
use crate::{plain, sealed};

/// A file of the artifacts, the same for as long as it is open whatever becomes
/// of its path.
#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) path: PathBuf,
    pub(super) file: File,
    in_memory: u64,
}

impl Artifact {
    pub(super) fn open(path: PathBuf) -> Result<Self, ArtifactsError> {
        match plain::open(&path) {
            Ok(file) => Ok(Self {
                path,
                file,
                in_memory: 0,
            }),
            Err(error) => Err(ArtifactsError::Artifact {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// The same for VMMs under user ids of their own, which open it once more: where
    /// its mode does not let everybody, a copy in memory that nobody can change.
    pub(super) fn for_users(self, users: Option<u32>) -> Result<Self, ArtifactsError> {
        if users.is_none() {
            return Ok(self);
        }
        let opened = match may_read_again(&self.file) {
            Ok(true) => return Ok(self),
            Ok(false) => self.copied(),
            Err(error) => Err(error),
        };
        let path = self.path;
        match opened {
            Ok((file, length)) => Ok(Self {
                path,
                file,
                in_memory: length,
            }),
            Err(error) => Err(ArtifactsError::Artifact {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// How much of it is a copy in memory, in bytes.
    pub(super) fn in_memory(&self) -> u64 {
        self.in_memory
    }

    /// A sealed copy of the file, which everybody may open who is handed it.
    fn copied(&self) -> io::Result<(File, u64)> {
        let mut copy = sealed::draft()?;
        let length = io::copy(&mut self.again()?, &mut copy)?;
        sealed::seal(&copy)?;
        Ok((copy, length))
    }

    /// Another descriptor of the open file.
    pub(super) fn shared(&self) -> io::Result<File> {
        let shared = self.file.try_clone();
        shared.map_err(|error| named(&self.path, &error))
    }

    /// The file opened once more, with a position and locks of its own.
    pub(super) fn again(&self) -> io::Result<File> {
        let opened = plain::again(&self.file);
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
