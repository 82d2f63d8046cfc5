//! The record's file: locked, checked for its owner, and replaced as a whole.
//!
//! It stands in root's folder `/run/imgbuild`. Whoever can write there could make
//! imgbuild write settings as root, so imgbuild reads nothing there that another
//! user could have written.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::SettingsError;
use super::record::{LIMIT, Record};
use crate::host_id::BootId;
use crate::lock;
use crate::private::{Others, Private, PrivateError};

const FOLDER: &str = "run/imgbuild";
const RECORD: &str = "settings.json";
const LOCK: &str = "settings.lock";
/// How long another imgbuild may have the record.
const PATIENCE: Duration = Duration::from_secs(20);

/// The record and the right to change it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Store {
    /// What imgbuild changed; [`Store::save`] makes it last.
    pub record: Record,
    saved: Record,
    folder: Private,
    path: PathBuf,
    _lock: File,
}

impl Store {
    /// Locks and reads the record below `root`, and makes its folder where
    /// there is none.
    pub(super) fn create(root: &Path) -> Result<Self, SettingsError> {
        Self::open(root, Private::make(&root.join(FOLDER), Others::Nothing)?)
    }

    /// Locks and reads the record below `root`; `None` where there has never
    /// been one.
    pub(super) fn existing(root: &Path) -> Result<Option<Self>, SettingsError> {
        let folder = Private::open(&root.join(FOLDER), Others::Nothing)?;
        folder.map(|folder| Self::open(root, folder)).transpose()
    }

    fn open(root: &Path, folder: Private) -> Result<Self, SettingsError> {
        let path = folder.path().join(RECORD);
        let lock = locked(&folder)?;
        let boot_id = boot_id(root)?;
        let saved = match read(&folder, &path)? {
            Some(record) if record.boot_id == boot_id => record,
            Some(_) => {
                tracing::info!(
                    "{} is of an earlier boot, whose settings went with it: discarded",
                    path.display()
                );
                Record::new(boot_id)
            }
            None => Record::new(boot_id),
        };
        Ok(Self {
            record: saved.clone(),
            saved,
            folder,
            path,
            _lock: lock,
        })
    }

    /// Replaces the file by what the record says now, and returns once that
    /// will outlive a crash. Without changes there is no file.
    pub(super) fn save(&mut self) -> Result<(), SettingsError> {
        if self.record.changes.is_empty() {
            self.remove().map_err(|error| failed(&self.path, error))?;
        } else if self.record != self.saved {
            let bytes = self.record.to_bytes();
            if bytes.len() as u64 > LIMIT {
                let path = self.path.clone();
                return Err(SettingsError::Full { path });
            }
            self.folder
                .replace(RECORD, &bytes, || {
                    #[cfg(test)]
                    super::tests::fuse::burn();
                })
                .map_err(|error| failed(&self.path, error))?;
        }
        self.saved = self.record.clone();
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        #[cfg(test)]
        super::tests::fuse::burn();
        self.folder.remove(RECORD)?;
        self.folder.sync()
    }
}

/// Waits for whoever changes settings now: seconds at most, unless it was stopped.
fn locked(folder: &Private) -> Result<File, SettingsError> {
    let path = folder.path().join(LOCK);
    let lock = folder
        .file(LOCK, OFlags::RDWR | OFlags::CREATE)?
        .ok_or_else(|| failed(&path, io::ErrorKind::NotFound.into()))?;
    let until = Instant::now() + PATIENCE;
    match lock::wait(&lock, || Instant::now() < until) {
        Ok(true) => Ok(lock),
        Ok(false) => {
            let why = "another imgbuild has it locked; is that one stopped?";
            Err(failed(&path, io::Error::new(io::ErrorKind::TimedOut, why)))
        }
        Err(error) => Err(failed(&path, error)),
    }
}

fn read(folder: &Private, path: &Path) -> Result<Option<Record>, SettingsError> {
    let Some(bytes) = folder.read(RECORD, LIMIT)? else {
        return Ok(None);
    };
    Record::parse(&bytes)
        .map(Some)
        .map_err(|why| SettingsError::Untrusted {
            path: path.to_path_buf(),
            why,
        })
}

fn boot_id(root: &Path) -> Result<BootId, SettingsError> {
    BootId::of(root).map_err(|source| SettingsError::Boot {
        path: root.join(BootId::FILE),
        source,
    })
}

impl From<PrivateError> for SettingsError {
    fn from(error: PrivateError) -> Self {
        match error {
            PrivateError::Refused { path, why, .. } => Self::Untrusted { path, why },
            PrivateError::Failed { path, source } => failed(&path, source),
        }
    }
}

fn failed(path: &Path, source: io::Error) -> SettingsError {
    if source.kind() == io::ErrorKind::PermissionDenied {
        let what = path.display().to_string();
        return SettingsError::Denied { what, source };
    }
    SettingsError::Record {
        path: path.to_path_buf(),
        source,
    }
}
