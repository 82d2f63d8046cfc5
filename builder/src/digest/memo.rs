//! Digests of large files, remembered for as long as the file is unchanged.
//!
//! Hashing a kernel tarball takes longer than everything else a warm build does.
//! A file counts as unchanged while its device, inode, size, modification and
//! change times are; anyone who can forge those can write the cache itself.

use std::{
    fs::{self, Metadata},
    io::{self, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::Sha256;
use crate::plain;

/// A file changed this recently may change again within one tick of the file
/// system's clock, with no trace in its times.
const SETTLED_SECONDS: i64 = 2;

/// Remembered digests, one small file each, in a folder of the cache.
#[derive(Debug, Clone)]
pub struct Memo {
    folder: PathBuf,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    identity: Identity,
    sha256: Sha256,
}

/// What tells a file from another one, and from itself before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// That of the file that this was read of.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        i64::try_from(now).is_ok_and(|now| self.changed.0 + SETTLED_SECONDS <= now)
    }
}

impl Memo {
    /// The memo kept in the cache folder `cache`.
    #[must_use]
    pub fn in_cache(cache: &Path) -> Self {
        Self {
            folder: cache.join("digests"),
        }
    }

    /// The digest of the file at `path`, from memory if it is unchanged.
    pub fn of_file(&self, path: &Path) -> io::Result<Sha256> {
        let path = fs::canonicalize(path)?;
        let identity = Identity::of(&fs::metadata(&path)?);
        let note = self.note(&path);
        if let Some(entry) = read(&note)
            && entry.identity == identity
        {
            return Ok(entry.sha256);
        }
        let sha256 = Sha256::of_file(&path)?;
        if identity.is_settled() && identity == Identity::of(&fs::metadata(&path)?) {
            // A memo that cannot be kept costs time, not correctness.
            if let Err(error) = self.write(&note, &Entry { identity, sha256 }) {
                tracing::debug!("cannot remember the digest of {}: {error}", path.display());
            }
        }
        Ok(sha256)
    }

    fn note(&self, path: &Path) -> PathBuf {
        let name = Sha256::of_bytes(path.as_os_str().as_bytes());
        self.folder.join(name.to_string())
    }

    fn write(&self, note: &Path, entry: &Entry) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        // Not forced to the disk: what a power cut leaves of it is whole, or no
        // note, and hashing once more is all that it costs.
        file.persist(note)?;
        Ok(())
    }
}

fn read(note: &Path) -> Option<Entry> {
    serde_json::from_slice(&plain::read(note).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use super::*;

    fn age(path: &Path) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600))
            .unwrap();
    }

    #[test]
    fn a_file_just_written_is_hashed_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::in_cache(folder.path());
        let path = folder.path().join("file");
        for text in ["one", "two"] {
            fs::write(&path, text).unwrap();
            age(&path);
            assert_eq!(memo.of_file(&path).unwrap(), Sha256::of_bytes(text));
        }
        assert!(!folder.path().join("digests").exists());
    }

    #[test]
    fn a_settled_file_is_remembered_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::in_cache(folder.path());
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let metadata = fs::metadata(&path).unwrap();
        let note = memo.note(&fs::canonicalize(&path).unwrap());
        let remembered = Sha256::of_bytes("what the memo says");
        let entry = Entry {
            identity: Identity::of(&metadata),
            sha256: remembered,
        };
        memo.write(&note, &entry).unwrap();
        assert_eq!(memo.of_file(&path).unwrap(), remembered);
        fs::write(&path, "two").unwrap();
        assert_eq!(memo.of_file(&path).unwrap(), Sha256::of_bytes("two"));
    }

    #[test]
    fn a_damaged_note_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::in_cache(folder.path());
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let note = memo.note(&fs::canonicalize(&path).unwrap());
        fs::create_dir_all(&memo.folder).unwrap();
        fs::write(&note, "{").unwrap();
        assert_eq!(memo.of_file(&path).unwrap(), Sha256::of_bytes("one"));
    }
}
