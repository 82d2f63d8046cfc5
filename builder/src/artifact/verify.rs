//! Hashes an output folder again and reports what differs from its manifest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Serialize;

use super::manifest::{FileRecord, Manifest, ManifestError};
use super::{MANIFEST, SHA256SUMS};
use crate::digest::Sha256;
use crate::plain::if_there;
use crate::staging::files_below;

/// One way in which a folder is not what its manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "difference", rename_all = "kebab-case")]
pub enum Difference {
    /// Listed, but not there.
    #[error("{file}: missing")]
    Missing {
        /// Path in the folder.
        file: String,
    },
    /// There, but not listed.
    #[error("{file}: not in the manifest")]
    Extra {
        /// Path in the folder.
        file: String,
    },
    /// Another length.
    #[error("{file}: {found} bytes, and the manifest says {expected}")]
    Size {
        /// Path in the folder.
        file: String,
        /// Bytes listed.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Another content of the same length.
    #[error("{file}: sha256 {found}, and the manifest says {expected}")]
    Digest {
        /// Path in the folder.
        file: String,
        /// Digest listed.
        expected: Sha256,
        /// Digest found.
        found: Sha256,
    },
}

/// A folder that cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Its manifest is not usable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Re-hashes every file of `folder`; an empty list means that nothing differs.
pub fn verify(folder: &Path) -> Result<Vec<Difference>, VerifyError> {
    let (manifest, text) = Manifest::load_with_text(folder)?;
    let mut differences = Vec::new();
    for (file, record) in &manifest.files {
        differences.extend(compare(folder, file, record)?);
    }
    let sums = manifest.sums(&text);
    differences.extend(compare(
        folder,
        SHA256SUMS,
        &FileRecord {
            sha256: Sha256::of_bytes(sums.as_bytes()),
            size: sums.len() as u64,
        },
    )?);
    let listed: BTreeSet<&str> = manifest
        .files
        .keys()
        .map(String::as_str)
        .chain([MANIFEST, SHA256SUMS])
        .collect();
    let found =
        files_below(folder).map_err(|(path, source)| VerifyError::Unreadable { path, source })?;
    differences.extend(
        found
            .into_iter()
            .filter(|file| !listed.contains(file.as_str()))
            .map(|file| Difference::Extra { file }),
    );
    Ok(differences)
}

/// Compares one file with what is recorded of it.
fn compare(
    folder: &Path,
    file: &str,
    record: &FileRecord,
) -> Result<Option<Difference>, VerifyError> {
    let path = folder.join(file);
    let file = file.to_owned();
    let unreadable = |source| VerifyError::Unreadable {
        path: path.clone(),
        source,
    };
    let Some(metadata) = if_there(fs::symlink_metadata(&path)).map_err(unreadable)? else {
        return Ok(Some(Difference::Missing { file }));
    };
    let found = metadata.len();
    if found != record.size {
        return Ok(Some(Difference::Size {
            file,
            expected: record.size,
            found,
        }));
    }
    let found = Sha256::of_file(&path).map_err(unreadable)?;
    Ok((found != record.sha256).then_some(Difference::Digest {
        file,
        expected: record.sha256,
        found,
    }))
}
