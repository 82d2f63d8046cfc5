//! Why a download failed.

use std::io;
use std::path::PathBuf;

use reqwest::StatusCode;

use super::ATTEMPTS;
use crate::digest::Sha256;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The network may not be used, and the file is not in the cache.
    #[error(
        "offline, and {url} is not in the cache: run once without --offline, or put the file \
         (sha256 {sha256}) at {}", .path.display()
    )]
    Offline {
        url: String,
        sha256: Sha256,
        /// Where the cache looks for it.
        path: PathBuf,
    },
    /// The server does not give the file.
    #[error("{url}: the server answered {status}; check the address")]
    Status { url: String, status: StatusCode },
    /// The request cannot be made, or leads nowhere.
    #[error("{url}: {reason}; check the address")]
    Address {
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The transfer broke off each time.
    #[error(
        "{url}: gave up after {ATTEMPTS} attempts: {reason}; check the network and run again \
         ({received} bytes are kept)"
    )]
    Broken {
        url: String,
        /// How the last attempt ended.
        reason: String,
        /// What has arrived and is kept.
        received: u64,
    },
    /// The file is larger than anything expected.
    #[error("{url}: larger than the limit of {limit} bytes; check the address")]
    TooLarge {
        url: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The file is not the one that was asked for.
    #[error(
        "{url}: the digest is wrong: expected sha256 {expected}, got {actual}; the file was kept \
         as {} and not used: check the address and the expected digest", .kept.display()
    )]
    Digest {
        url: String,
        expected: Sha256,
        /// The digest of what came.
        actual: Sha256,
        /// Where it can be looked at.
        kept: PathBuf,
    },
    /// The cache's file system is full.
    #[error("no space left for {}: free some, or set XDG_CACHE_HOME to another file system", .path.display())]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
    },
    /// The cache cannot be used.
    #[error("cannot keep the download at {}: {source}; check the folder's permissions", .path.display())]
    Cache {
        /// The file in the cache.
        path: PathBuf,
        source: io::Error,
    },
    /// The user asked to stop.
    #[error("interrupted while downloading {url}; run again to go on where it stopped")]
    Interrupted { url: String },
}
