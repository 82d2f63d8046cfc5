//! The record's file: locked, trusted, and replaced whole.
//!
//! It stands in a folder of root's, `/run/imgbuild`. Whoever can write there
//! could have imgbuild write settings as root, so nothing is followed, and
//! nothing is read that anybody else could have written.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::SettingsError;
use super::record::{LIMIT, Record, is_boot_id};

const FOLDER: &str = "run/imgbuild";
const RECORD: &str = "settings.json";
/// What becomes the record.
const NEXT: &str = "settings.json.new";
const LOCK: &str = "settings.lock";
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";

/// The record and the right to change it, until it is dropped.
#[derive(Debug)]
pub(super) struct Store {
    /// What imgbuild changed; [`Store::save`] makes it last.
    pub record: Record,
    saved: Record,
    folder: File,
    path: PathBuf,
    _lock: File,
}

impl Store {
    /// Locks and reads the record below `root`, and makes its folder where
    /// there is none.
    pub fn create(root: &Path) -> Result<Self, SettingsError> {
        let path = root.join(FOLDER);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(&path, error)),
            _ => Self::open(root, open_folder(&path)?),
        }
    }

    /// Locks and reads the record below `root`; `None` where there has never
    /// been one.
    pub fn existing(root: &Path) -> Result<Option<Self>, SettingsError> {
        let path = root.join(FOLDER);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Self::open(root, open_folder(&path)?).map(Some),
        }
    }

    fn open(root: &Path, folder: File) -> Result<Self, SettingsError> {
        let path = root.join(FOLDER).join(RECORD);
        let lock = lock(&folder, &root.join(FOLDER).join(LOCK))?;
        let boot_id = boot_id(root)?;
        let saved = match read(&folder, &path)? {
            Some(record) if record.boot_id == boot_id => record,
            Some(_) => {
                tracing::info!(
                    "{} is of an earlier boot, whose settings went with it: discarded",
                    path.display()
                );
                Record::new(&boot_id)
            }
            None => Record::new(&boot_id),
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
    pub fn save(&mut self) -> Result<(), SettingsError> {
        if self.record.changes.is_empty() {
            self.remove().map_err(|error| failed(&self.path, error))?;
        } else if self.record != self.saved {
            let bytes = self.record.to_bytes();
            if bytes.len() as u64 > LIMIT {
                let path = self.path.clone();
                return Err(SettingsError::Full { path });
            }
            self.replace(&bytes)
                .map_err(|error| failed(&self.path, error))?;
        }
        self.saved = self.record.clone();
        Ok(())
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        // What a killed one left.
        remove(&self.folder, NEXT)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | PLAIN;
        let mut next = File::from(openat(&self.folder, NEXT, flags, OWNER)?);
        // The umask may have taken from it.
        rustix::fs::fchmod(&next, OWNER)?;
        next.write_all(bytes)?;
        next.sync_all()?;
        #[cfg(test)]
        super::tests::fuse::burn();
        renameat(&self.folder, NEXT, &self.folder, RECORD)?;
        self.folder.sync_all()
    }

    fn remove(&self) -> io::Result<()> {
        #[cfg(test)]
        super::tests::fuse::burn();
        remove(&self.folder, RECORD)?;
        self.folder.sync_all()
    }
}

/// Readable and writable by the owner alone.
const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);
/// No link is followed, no device waited for, nothing handed to a child.
const PLAIN: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

fn open_folder(path: &Path) -> Result<File, SettingsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | PLAIN;
    let folder = match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::LOOP | Errno::NOTDIR) => return Err(untrusted(path, "is not a folder")),
        folder => File::from(folder.map_err(|errno| failed(path, errno.into()))?),
    };
    trusted(&folder, path, 0o700)?;
    Ok(folder)
}

/// Waits for whoever changes settings now: seconds at most.
fn lock(folder: &File, path: &Path) -> Result<File, SettingsError> {
    let flags = OFlags::RDWR | OFlags::CREATE | PLAIN;
    let lock = match openat(folder, LOCK, flags, OWNER) {
        Err(Errno::LOOP | Errno::ISDIR) => return Err(untrusted(path, "is not a file")),
        lock => File::from(lock.map_err(|errno| failed(path, errno.into()))?),
    };
    rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
        .map_err(|errno| failed(path, errno.into()))?;
    Ok(lock)
}

fn read(folder: &File, path: &Path) -> Result<Option<Record>, SettingsError> {
    let file = match openat(folder, RECORD, OFlags::RDONLY | PLAIN, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(untrusted(path, "is a symbolic link")),
        file => File::from(file.map_err(|errno| failed(path, errno.into()))?),
    };
    let metadata = file.metadata().map_err(|error| failed(path, error))?;
    if !metadata.is_file() {
        return Err(untrusted(path, "is not a file"));
    }
    trusted(&file, path, 0o600)?;
    if metadata.nlink() != 1 {
        return Err(untrusted(path, "has another name (hard link)"));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(path, error))?;
    if bytes.len() as u64 > LIMIT {
        return Err(untrusted(path, "is longer than any record"));
    }
    Record::parse(&bytes)
        .map(Some)
        .map_err(|why| untrusted(path, &why))
}

/// Whether nobody but this user, who is root where it matters, can have
/// written `file`.
fn trusted(file: &File, path: &Path, mode: u32) -> Result<(), SettingsError> {
    let metadata = file.metadata().map_err(|error| failed(path, error))?;
    let owner = geteuid().as_raw();
    if metadata.uid() != owner {
        let uid = metadata.uid();
        return Err(untrusted(
            path,
            &format!("belongs to user {uid}, not {owner}"),
        ));
    }
    let found = metadata.mode() & 0o7777;
    if found != mode {
        return Err(untrusted(
            path,
            &format!("has mode {found:04o}, not {mode:04o}"),
        ));
    }
    Ok(())
}

fn boot_id(root: &Path) -> Result<String, SettingsError> {
    let path = root.join(BOOT_ID);
    let text = fs::read_to_string(&path).and_then(|text| {
        let text = text.trim_ascii();
        if is_boot_id(text) {
            return Ok(text.to_owned());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{text:?} names no boot"),
        ))
    });
    text.map_err(|source| SettingsError::Boot { path, source })
}

fn remove(folder: &File, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

fn untrusted(path: &Path, why: &str) -> SettingsError {
    SettingsError::Untrusted {
        path: path.to_path_buf(),
        why: why.to_owned(),
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
