//! Downloads by digest, kept in the cache.
//!
//! A file lives at `<cache>/downloads/<sha256>` once its digest is verified. Until
//! then it is `<sha256>.part`, which the next attempt continues, in this process or
//! in a later one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use indicatif::ProgressBar;
use reqwest::StatusCode;
use tracing::{info, warn};

use crate::digest::Sha256;
use crate::digest::memo::Memo;
use crate::interrupt::Interrupt;
use crate::lock::Lock;
use crate::progress;
use part::Part;
use transfer::{Broken, Event, Head, Transfer};

mod address;
mod error;
mod part;
mod transfer;

pub(crate) use address::{Address, AddressError};
pub(crate) use error::DownloadError;

/// Attempts at one file before giving up.
const ATTEMPTS: u32 = 3;
/// How often a wait looks at the interrupt.
const TICK: Duration = Duration::from_millis(100);

/// Whether the network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    #[default]
    Online,
    /// It may not: what is not in the cache is an error.
    Offline,
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Whether the network may be used.
    pub network: Network,
    /// Stops the download; what has arrived is kept.
    pub interrupt: Interrupt,
    /// Longest wait for the next byte.
    pub stall: Duration,
    /// Wait before the second attempt; twice as long before the third.
    pub pause: Duration,
    /// Largest file accepted, in bytes.
    pub size_limit: u64,
}

impl Options {
    /// The options of every download but those of tests: 30 s without a byte is a
    /// stall, and 4 GiB is the largest file.
    pub(crate) fn new(network: Network, interrupt: Interrupt) -> Self {
        Self {
            network,
            interrupt,
            stall: Duration::from_secs(30),
            pause: Duration::from_secs(1),
            size_limit: 4 << 30,
        }
    }
}

/// Where `fetch` keeps the file with this digest.
pub(crate) fn cached_path(cache: &Path, sha256: &Sha256) -> PathBuf {
    cache.join("downloads").join(sha256.to_string())
}

/// The path of the file with the digest `expected`: from the cache, or else
/// downloaded from `url`.
pub(crate) fn fetch(
    url: &Address,
    expected: Sha256,
    cache: &Path,
    options: &Options,
) -> Result<PathBuf, DownloadError> {
    let path = cached_path(cache, &expected);
    let memo = Memo::in_cache(cache);
    let is_cached = || path.is_file() && memo.of_file(&path).is_ok_and(|actual| actual == expected);
    if is_cached() {
        return Ok(path);
    }
    let job = Job {
        url,
        expected,
        path: &path,
        options,
    };
    if options.network == Network::Offline {
        return Err(DownloadError::Offline {
            url: url.to_string(),
            sha256: expected,
            path,
        });
    }
    let lock = path.with_extension("lock");
    let Some(_lock) = Lock::acquire(&lock, &format!("the download of {url}"), &options.interrupt)
        .map_err(|source| job.cache_error(source))?
    else {
        return Err(job.interrupted());
    };
    if !is_cached() {
        job.run()?;
    }
    Ok(path)
}

/// One file to download, while its lock is held.
struct Job<'a> {
    url: &'a Address,
    expected: Sha256,
    path: &'a Path,
    options: &'a Options,
}

/// How an attempt that did not fail for good went on.
enum Outcome {
    Complete,
    /// What is there is no beginning of what the server has.
    Restart,
    Broken(String),
}

impl Job<'_> {
    fn run(&self) -> Result<(), DownloadError> {
        if self.path.exists() {
            let actual = Sha256::of_file(self.path).map_err(|source| self.cache_error(source))?;
            let kept = self.set_aside(self.path, actual)?;
            warn!(
                "{} was damaged in the cache: kept as {}, downloading it again",
                self.url,
                kept.display()
            );
        }
        let mut part = Part::open(self.path).map_err(|source| self.cache_error(source))?;
        if part.sha256() != self.expected {
            info!("downloading {}", self.url);
            self.complete(&mut part)?;
        }
        let actual = part.sha256();
        if actual == self.expected {
            return part
                .commit(self.path)
                .map_err(|source| self.cache_error(source));
        }
        let kept = self.set_aside(part.path(), actual)?;
        part.forget();
        Err(DownloadError::Digest {
            url: self.url.to_string(),
            expected: self.expected,
            actual,
            kept,
        })
    }

    /// Transfers until the server says that nothing is missing.
    fn complete(&self, part: &mut Part) -> Result<(), DownloadError> {
        let mut restarted = false;
        let mut attempt = 1;
        loop {
            let reason = match self.attempt(part)? {
                Outcome::Complete => return Ok(()),
                Outcome::Restart if !restarted => {
                    restarted = true;
                    part.restart(None)
                        .map_err(|source| self.cache_error(source))?;
                    continue;
                }
                Outcome::Restart => "the server has no range that fits".to_owned(),
                Outcome::Broken(reason) => reason,
            };
            if attempt == ATTEMPTS {
                return Err(DownloadError::Broken {
                    url: self.url.to_string(),
                    reason,
                    received: part.len(),
                });
            }
            warn!("{}: {reason}; trying again", self.url);
            self.pause(self.options.pause * attempt)?;
            attempt += 1;
        }
    }

    fn attempt(&self, part: &mut Part) -> Result<Outcome, DownloadError> {
        let transfer = Transfer::start(self.url, part.len(), part.validator(), self.options.stall);
        let mut bar = None;
        let mut last_news = Instant::now();
        loop {
            if self.options.interrupt.requested() {
                return Err(self.interrupted());
            }
            let event = match transfer.next(TICK) {
                None if last_news.elapsed() < self.options.stall => continue,
                None => {
                    let waited = self.options.stall;
                    return Ok(Outcome::Broken(format!("no byte came for {waited:?}")));
                }
                Some(event) => event,
            };
            last_news = Instant::now();
            match event {
                Ok(Event::Head(head)) => match self.begin(part, &head)? {
                    Ok(begun) => bar = Some(begun),
                    Err(outcome) => return Ok(outcome),
                },
                Ok(Event::Chunk(bytes)) => {
                    self.check_size(part.len() + bytes.len() as u64, part)?;
                    part.append(&bytes)
                        .map_err(|source| self.cache_error(source))?;
                    if let Some(bar) = &bar {
                        bar.set_position(part.len());
                    }
                }
                Ok(Event::End) => return Ok(Outcome::Complete),
                Err(Broken::Transfer(reason)) => return Ok(Outcome::Broken(reason)),
                Err(Broken::Address(reason)) => {
                    return Err(DownloadError::Address {
                        url: self.url.to_string(),
                        reason,
                    });
                }
            }
        }
    }

    /// Makes `part` ready for the body that `head` announces.
    fn begin(
        &self,
        part: &mut Part,
        head: &Head,
    ) -> Result<Result<Finished, Outcome>, DownloadError> {
        match head.status {
            StatusCode::PARTIAL_CONTENT if head.start == Some(part.len()) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                return Ok(Err(Outcome::Restart));
            }
            StatusCode::OK => part
                .restart(head.validator.as_deref())
                .map_err(|source| self.cache_error(source))?,
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Ok(Err(Outcome::Broken(format!(
                    "the server answered {status}"
                ))));
            }
            status => {
                return Err(DownloadError::Status {
                    url: self.url.to_string(),
                    status,
                });
            }
        }
        let total = head.length.map(|length| part.len().saturating_add(length));
        self.check_size(total.unwrap_or(0), part)?;
        let bar = progress::bytes(total, self.url.file_name().unwrap_or("download"));
        bar.set_position(part.len());
        Ok(Ok(Finished(bar)))
    }

    fn check_size(&self, size: u64, part: &mut Part) -> Result<(), DownloadError> {
        if size <= self.options.size_limit {
            return Ok(());
        }
        part.forget();
        Err(DownloadError::TooLarge {
            url: self.url.to_string(),
            limit: self.options.size_limit,
        })
    }

    fn pause(&self, length: Duration) -> Result<(), DownloadError> {
        if self.options.interrupt.wait(length) {
            return Err(self.interrupted());
        }
        Ok(())
    }

    /// Moves a file that is not what it should be to where nobody takes it for that.
    fn set_aside(&self, path: &Path, actual: Sha256) -> Result<PathBuf, DownloadError> {
        let kept = self.path.with_file_name(format!("{actual}.bad"));
        fs::rename(path, &kept).map_err(|source| self.cache_error(source))?;
        Ok(kept)
    }

    fn cache_error(&self, source: io::Error) -> DownloadError {
        let path = self.path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                DownloadError::DiskFull { path }
            }
            _ => DownloadError::Cache { path, source },
        }
    }

    fn interrupted(&self) -> DownloadError {
        DownloadError::Interrupted {
            url: self.url.to_string(),
        }
    }
}

/// A progress bar that leaves the terminal when its attempt is over.
struct Finished(ProgressBar);

impl std::ops::Deref for Finished {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.0
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests;
