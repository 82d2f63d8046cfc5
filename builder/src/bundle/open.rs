//! Reads a bundle, which may come from anywhere: only regular files of bounded size
//! are read, and nothing is used whose digest is not the listed one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::files::{RUN, SHA256SUMS, brief, parse_sums, read_sums};
use super::types::{RUN_VERSION, Run};
use crate::digest::Sha256;
use crate::plain::{self, if_there};

/// Largest file of a bundle that is read, in bytes: a run of 10,000 guests in eight
/// stages has about 20 MiB of samples.
const FILE_MAX: u64 = 256 << 20;

/// A bundle that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error(
        "{} is not a bundle: it has no {RUN}; give a folder that `imgbuild density` wrote",
        path.display()
    )]
    NotABundle {
        /// The folder.
        path: PathBuf,
    },
    /// A file is a link, a pipe or a folder.
    #[error("{}: it is not a regular file, and a bundle has no others", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than those that are written.
    #[error("{}: {size} bytes; a file of a bundle has at most {FILE_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// The document is not JSON, or not of its shape.
    #[error("{}: {reason}; the file is torn or was edited", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the JSON reader says.
        reason: String,
    },
    /// The document is of another version.
    #[error(
        "{}: run version {found}, and this imgbuild knows version {RUN_VERSION}; use the imgbuild \
         that wrote it, or a newer one",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it says.
        found: u64,
    },
    /// The list of digests is not usable.
    #[error("{}: {reason}; the file is torn or was edited", path.display())]
    Sums {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A file is not the listed one.
    #[error("{}: {difference}; `imgbuild verify {}` lists all differences", path.display(), path.display())]
    Differs {
        /// The folder.
        path: PathBuf,
        /// The first difference.
        difference: FileDifference,
    },
}

/// A file of a bundle that is not as the list of digests says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[serde(tag = "difference", rename_all = "kebab-case")]
pub enum FileDifference {
    /// Listed, but not there.
    #[error("{file}: missing")]
    Missing {
        /// Its name.
        file: String,
    },
    /// Of another content.
    #[error("{file}: sha256 {found}, and {SHA256SUMS} says {expected}")]
    Digest {
        /// Its name.
        file: String,
        /// Digest listed.
        expected: Sha256,
        /// Digest found.
        found: Sha256,
    },
}

/// The run of a bundle.
pub fn open(folder: &Path) -> Result<Run, OpenError> {
    Ok(open_with_sums(folder)?.0)
}

/// The same, and the text of its list of digests.
pub(super) fn open_with_sums(folder: &Path) -> Result<(Run, String), OpenError> {
    let files = Files::read(folder)?;
    match files.differences()?.into_iter().next() {
        Some(difference) => Err(OpenError::Differs {
            path: folder.to_owned(),
            difference,
        }),
        None => Ok((files.run()?, files.sums)),
    }
}

/// Whether a folder is meant for a bundle, whatever its state.
pub(crate) fn looks_like_one(folder: &Path) -> bool {
    folder.join(RUN).symlink_metadata().is_ok()
}

/// A bundle of a version that is known, before its content is trusted.
pub(super) struct Files<'a> {
    folder: &'a Path,
    document: Vec<u8>,
    /// The list of digests, as text and by name.
    sums: String,
    pub(super) listed: BTreeMap<String, Sha256>,
}

impl<'a> Files<'a> {
    /// Reads the document and the list of digests.
    pub(super) fn read(folder: &'a Path) -> Result<Self, OpenError> {
        #[derive(Deserialize)]
        struct Version {
            run_version: u64,
        }
        let path = folder.join(RUN);
        let document = read_bounded(&path)?.ok_or_else(|| OpenError::NotABundle {
            path: folder.to_owned(),
        })?;
        let version = serde_json::from_slice::<Version>(&document);
        // A newer one may list other files.
        match version {
            Ok(Version { run_version }) if run_version == u64::from(RUN_VERSION) => {}
            Ok(Version { run_version: found }) => return Err(OpenError::Version { path, found }),
            Err(error) => return Err(malformed(path, &error)),
        }
        let path = folder.join(SHA256SUMS);
        check_kind(&path)?;
        let sums = read_sums(folder).map_err(|source| OpenError::Unreadable {
            path: path.clone(),
            source,
        })?;
        let listed = parse_sums(&sums).map_err(|reason| OpenError::Sums { path, reason })?;
        Ok(Self {
            folder,
            document,
            sums,
            listed,
        })
    }

    /// The listed files that are not what the list says.
    pub(super) fn differences(&self) -> Result<Vec<FileDifference>, OpenError> {
        let mut differences = Vec::new();
        for (file, expected) in &self.listed {
            let (file, expected) = (file.clone(), *expected);
            let found = if file == RUN {
                Sha256::of_bytes(&self.document)
            } else if let Some(bytes) = read_bounded(&self.folder.join(&file))? {
                Sha256::of_bytes(bytes)
            } else {
                differences.push(FileDifference::Missing { file });
                continue;
            };
            if found != expected {
                differences.push(FileDifference::Digest {
                    file,
                    expected,
                    found,
                });
            }
        }
        Ok(differences)
    }

    /// The document.
    pub(super) fn run(&self) -> Result<Run, OpenError> {
        serde_json::from_slice(&self.document)
            .map_err(|error| malformed(self.folder.join(RUN), &error))
    }

    /// A listed table, as text.
    pub(super) fn table(&self, file: &str) -> Result<Vec<u8>, OpenError> {
        Ok(read_bounded(&self.folder.join(file))?.unwrap_or_default())
    }
}

/// The JSON reader quotes a name or a text whole, however long it is.
fn malformed(path: PathBuf, error: &serde_json::Error) -> OpenError {
    let reason = brief(&error.to_string());
    OpenError::Malformed { path, reason }
}

/// What is in a file of a bundle; `None` where it is not there.
fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    let Some(size) = check_kind(path)? else {
        return Ok(None);
    };
    let path = path.to_owned();
    if size > FILE_MAX {
        return Err(OpenError::TooLarge { path, size });
    }
    match plain::read_start(&path, FILE_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) => Err(OpenError::Unreadable { path, source }),
    }
}

/// The size of a file, which is not a link to one elsewhere; `None` where it is not
/// there.
fn check_kind(path: &Path) -> Result<Option<u64>, OpenError> {
    let found = if_there(fs::symlink_metadata(path));
    let path = path.to_owned();
    match found {
        Ok(Some(found)) if found.is_file() => Ok(Some(found.len())),
        Ok(Some(_)) => Err(OpenError::NotAFile { path }),
        Ok(None) => Ok(None),
        Err(source) => Err(OpenError::Unreadable { path, source }),
    }
}

#[cfg(test)]
mod tests;
