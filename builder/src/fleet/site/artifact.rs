//! An artifact, open for as long as guests are started from it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::artifact::opened::ArtifactsError;
use crate::plain;
use crate::vmm::may_read_again;
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

    /// The same for VMMs that run under user ids from `first` on, and that open it
    /// once more: where its mode does not let them, a copy in memory that nobody can
    /// change.
    pub(super) fn for_users(self, first: Option<u32>) -> Result<Self, ArtifactsError> {
        let Some(uid) = first else {
            return Ok(self);
        };
        let opened = match may_read_again(&self.file, uid) {
            Ok(true) => return Ok(self),
            Ok(false) => self.in_memory(),
            Err(error) => Err(error),
        };
        let path = self.path;
        match opened {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(ArtifactsError::Artifact {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// A sealed copy of the file, which everybody may open who is handed it
    /// (memfd_create(2)).
    fn in_memory(&self) -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut copy = File::from(memfd_create("imgbuild", flags)?);
        io::copy(&mut self.again()?, &mut copy)?;
        fcntl_add_seals(
            &copy,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )?;
        Ok(copy)
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
