//! Finds the kernel source to build, with its digest and origin.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};
use tracing::info;

use super::whole::walk;
use super::{Env, Location, Request, SourceChoice};
use crate::digest::memo::Memo;
use crate::digest::{Hasher, Sha256};
use crate::download::{self, Address, DownloadError, Options};

/// Where a kernel came from; holds no path, since two machines may keep the same
/// file in different places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Origin {
    Pinned {
        url: Address,
    },
    /// A tarball downloaded by digest.
    Url {
        url: Address,
    },
    /// A tarball that a distribution's package installed.
    Distribution {
        package: String,
    },
    /// A tarball given by path.
    Tarball,
    /// An unpacked tree given by path.
    Tree,
    /// A ready kernel given by path.
    PrebuiltFile,
    /// A ready kernel downloaded by digest.
    PrebuiltUrl {
        url: Address,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned { url } => write!(f, "from the pinned {url}"),
            Self::Url { url } => write!(f, "from {url}"),
            Self::Distribution { package } => write!(f, "from the package {package}"),
            Self::Tarball => f.write_str("from a given tarball"),
            Self::Tree => f.write_str("from a given tree"),
            Self::PrebuiltFile => f.write_str("given ready-made"),
            Self::PrebuiltUrl { url } => write!(f, "ready-made from {url}"),
        }
    }
}

/// What the manifest says of a kernel's source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Where it came from.
    #[serde(flatten)]
    pub origin: Origin,
    /// The kernel's version, where it is known.
    pub version: Option<String>,
    /// The digest of the tarball or the ready kernel; a tree has none.
    pub sha256: Option<Sha256>,
}

/// A kernel source on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where it came from.
    pub origin: Origin,
    /// The tarball, or the top of the tree.
    pub path: PathBuf,
    /// The tarball's digest; of a tree, a fingerprint of its files' names, sizes
    /// and times, which holds on this machine only.
    pub digest: Sha256,
}

impl Source {
    /// What the manifest says of it, `version` being known.
    pub(crate) fn info(&self, version: String) -> SourceInfo {
        SourceInfo {
            origin: self.origin.clone(),
            version: Some(version),
            sha256: (self.origin != Origin::Tree).then_some(self.digest),
        }
    }
}

/// Why there is no source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Its file cannot be read.
    #[error("cannot read the kernel source {}: {source}; check --kernel-source", .path.display())]
    Read { path: PathBuf, source: io::Error },
    /// An address says nothing of what will come.
    #[error("{0} needs its digest: add --kernel-sha256 HEX, so that the download can be verified")]
    NoDigest(Address),
    /// The file is not the one that was asked for.
    #[error("{}: sha256 is {actual}, not {expected} as given", .path.display())]
    Digest {
        path: PathBuf,
        expected: Sha256,
        actual: Sha256,
    },
    /// A tree has no digest.
    #[error("--kernel-sha256 is for a file, and {} is a folder: drop the option", .0.display())]
    TreeDigest(PathBuf),
    /// The tree's Makefile does not say which kernel it is.
    #[error("{} is not a kernel source: its Makefile has no VERSION", .0.display())]
    NoVersion(PathBuf),
    /// It could not be downloaded.
    #[error(transparent)]
    Download(#[from] DownloadError),
}

/// Finds the source that `request` asks for, downloading it if it must: the one
/// named; else the pinned one if it was downloaded before; else a distribution's;
/// else the pinned one.
pub(super) fn resolve(request: &Request, env: &Env) -> Result<Source, SourceError> {
    let memo = Memo::in_cache(&env.cache);
    let source = match &request.source {
        Some(SourceChoice::Pinned) => pinned(env)?,
        Some(SourceChoice::At(Location::Path(path))) if path.is_dir() => {
            if request.sha256.is_some() {
                return Err(SourceError::TreeDigest(path.clone()));
            }
            Source {
                origin: Origin::Tree,
                path: fs::canonicalize(path).map_err(unreadable(path))?,
                digest: fingerprint(path).map_err(unreadable(path))?,
            }
        }
        Some(SourceChoice::At(Location::Path(path))) => Source {
            origin: Origin::Tarball,
            path: path.clone(),
            digest: file_digest(&memo, path, request.sha256)?,
        },
        Some(SourceChoice::At(Location::Url(url))) => {
            let digest = request
                .sha256
                .ok_or_else(|| SourceError::NoDigest(url.clone()))?;
            Source {
                origin: Origin::Url { url: url.clone() },
                path: download(url, digest, env)?,
                digest,
            }
        }
        None => {
            let cached = download::cached_path(&env.cache, &env.sources.pinned.sha256);
            match env.sources.installed() {
                Some((distribution, path)) if !cached.is_file() => Source {
                    origin: Origin::Distribution {
                        package: distribution.package.clone(),
                    },
                    digest: file_digest(&memo, &path, None)?,
                    path,
                },
                _ => pinned(env)?,
            }
        }
    };
    info!(
        "kernel source: {} (sha256 {})",
        source.path.display(),
        source.digest
    );
    Ok(source)
}

fn pinned(env: &Env) -> Result<Source, SourceError> {
    let pinned = &env.sources.pinned;
    Ok(Source {
        origin: Origin::Pinned {
            url: pinned.url.clone(),
        },
        path: download(&pinned.url, pinned.sha256, env)?,
        digest: pinned.sha256,
    })
}

/// Downloads a file as the options of `env` allow.
pub(crate) fn download(url: &Address, sha256: Sha256, env: &Env) -> Result<PathBuf, DownloadError> {
    let options = Options::new(env.network, env.interrupt.clone());
    download::fetch(url, sha256, &env.cache, &options)
}

/// The digest of a file, which must be `expected` if one is given.
pub(crate) fn file_digest(
    memo: &Memo,
    path: &Path,
    expected: Option<Sha256>,
) -> Result<Sha256, SourceError> {
    // Looked at before it is read: a FIFO would wait for its writer, and a device
    // has no end.
    let metadata = fs::metadata(path).map_err(unreadable(path))?;
    if !metadata.is_file() {
        let fault = io::Error::other("it is not a regular file");
        return Err(unreadable(path)(fault));
    }
    let actual = memo.of_file(path).map_err(unreadable(path))?;
    match expected {
        Some(expected) if expected != actual => Err(SourceError::Digest {
            path: path.to_owned(),
            expected,
            actual,
        }),
        _ => Ok(actual),
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.to_owned();
    move |source| SourceError::Read { path, source }
}

/// What changes when any file of a tree does; reading all contents would take as
/// long as a part of the build.
fn fingerprint(tree: &Path) -> io::Result<Sha256> {
    let mut hasher = Hasher::default();
    walk(tree, |name, found| {
        if found.is_dir() {
            return !name.ends_with(".git");
        }
        hasher.update(name.as_os_str().as_bytes());
        hasher.update([0]);
        for number in [
            found.size(),
            found.mode().into(),
            found.mtime().cast_unsigned(),
            found.mtime_nsec().cast_unsigned(),
        ] {
            hasher.update(number.to_le_bytes());
        }
        false
    })?;
    Ok(hasher.finish())
}

/// The version that a tree's Makefile states, as `make kernelversion` prints it.
pub(crate) fn version(tree: &Path) -> Result<String, SourceError> {
    let path = tree.join("Makefile");
    let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
    parse_version(&text).ok_or_else(|| SourceError::NoVersion(tree.to_owned()))
}

fn parse_version(makefile: &str) -> Option<String> {
    let value = |name: &str| {
        makefile.lines().take(20).find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim())
        })
    };
    let numbers: Vec<_> = ["VERSION", "PATCHLEVEL", "SUBLEVEL"]
        .into_iter()
        .map_while(value)
        .filter(|number| !number.is_empty())
        .collect();
    (!numbers.is_empty()).then(|| {
        format!(
            "{}{}",
            numbers.join("."),
            value("EXTRAVERSION").unwrap_or("")
        )
    })
}

#[cfg(test)]
mod tests;
