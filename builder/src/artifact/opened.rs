//! What guests run from: an output folder, checked against its manifest.

use std::io;
use std::path::{Path, PathBuf};

use crate::artifact::{self, Manifest, ManifestError};
use crate::digest::Sha256;
use crate::host::tsc;
use crate::units::ByteSize;
use crate::vmm::qemu;

/// Artifacts that no guest can run from.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactsError {
    /// The output folder's manifest is not usable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An artifact is not what the manifest says.
    #[error("{}: {reason}; see `imgbuild verify`, or build the folder again", path.display())]
    Artifact {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Guests would have less memory than their kernel starts in.
    #[error(
        "the kernel in {} does not start in less than {needed} of memory, and guests would have \
         {memory}: give --memory {needed} or more",
        folder.display()
    )]
    Memory {
        /// The output folder.
        folder: PathBuf,
        /// The least that it starts in.
        needed: ByteSize,
        /// A guest's RAM.
        memory: ByteSize,
    },
    /// This process has no current folder.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The artifacts that a guest runs from, checked against their manifest.
#[derive(Debug)]
pub struct Artifacts {
    /// The output folder, absolute.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// The digest of the manifest's text, which names every file's digest.
    pub digest: Sha256,
}

impl Artifacts {
    /// Opens an output folder and re-hashes what guests run from.
    pub fn open(folder: &Path) -> Result<Self, ArtifactsError> {
        let (manifest, text) = Manifest::load_with_text(folder)?;
        let folder = std::path::absolute(folder)?;
        for file in [
            manifest.kernel.file.as_str(),
            artifact::INITRAMFS,
            artifact::BASE,
        ] {
            let path = folder.join(file);
            let wrong = |reason: String| ArtifactsError::Artifact {
                path: path.clone(),
                reason,
            };
            let record = manifest
                .files
                .get(file)
                .ok_or_else(|| wrong("not in the manifest".to_owned()))?;
            let found = Sha256::of_file(&path).map_err(|error| wrong(error.to_string()))?;
            if found != record.sha256 {
                return Err(wrong(format!(
                    "sha256 {found}, and the manifest says {}",
                    record.sha256
                )));
            }
        }
        Ok(Self {
            folder,
            manifest,
            digest: Sha256::of_bytes(text),
        })
    }

    /// Sees that guests with so much memory can start.
    pub fn check_memory(&self, memory: ByteSize) -> Result<(), ArtifactsError> {
        match self.manifest.kernel.memory {
            Some(needed) if needed > memory => Err(ArtifactsError::Memory {
                folder: self.folder.clone(),
                needed,
                memory,
            }),
            _ => Ok(()),
        }
    }

    /// The kernel command line of guests that run on this host.
    pub fn command_line(&self) -> String {
        format!(
            "{} tsc_early_khz={} lapic_khz={}",
            self.manifest.command_line,
            tsc::measure_khz(),
            qemu::LAPIC_KHZ,
        )
    }
}
