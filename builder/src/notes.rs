//! Notes about files, which hold for as long as the files are unchanged.
//!
//! A file counts as unchanged while its device, inode, size, modification and
//! change times are; anyone who can forge those can write the cache itself.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::Builder;

use crate::digest::Sha256;
use crate::{durable, plain, private};

/// A file changed this recently may change again within one tick of the file
/// system's clock, with no trace in its times.
const SETTLED_SECONDS: i64 = 2;
/// Longest note, in bytes.
const NOTE_MAX: u64 = 64 << 10;

/// What tells a file from another one, and from itself before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// That of the file that this was read of.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// That of the file at `path`.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::metadata(path)?))
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        i64::try_from(now).is_ok_and(|now| self.changed.0 + SETTLED_SECONDS <= now)
    }
}

/// Notes about files, each a small file in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notes {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Note<T> {
    identity: Identity,
    value: T,
}

impl Notes {
    /// Those in `folder`, which need not be there yet.
    pub(crate) fn kept_in(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// What is noted of the file at `path` under the name `about`, or else what
    /// `find` finds out, which is noted then.
    pub(crate) fn recall<T, E>(
        &self,
        path: &Path,
        about: &str,
        find: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
    {
        // Who wants to know of it reports what cannot be looked at.
        let Ok(real) = fs::canonicalize(path) else {
            return find(path);
        };
        let Ok(identity) = Identity::at(&real) else {
            return find(path);
        };
        let place = self.place(&real, about);
        if let Some(note) = read::<T>(&place)
            && note.identity == identity
        {
            return Ok(note.value);
        }
        let value = find(&real)?;
        if identity.is_settled() && Identity::at(&real).is_ok_and(|now| now == identity) {
            let note = Note { identity, value };
            // A note that cannot be kept costs time, not correctness.
            if let Err(error) = self.write(&place, &note) {
                tracing::debug!("cannot note {about} of {}: {error}", real.display());
            }
            return Ok(note.value);
        }
        Ok(value)
    }

    fn place(&self, path: &Path, about: &str) -> PathBuf {
        let name = [path.as_os_str().as_bytes(), b"\0", about.as_bytes()].concat();
        self.folder.join(Sha256::of_bytes(name).to_string())
    }

    fn write<T: Serialize>(&self, place: &Path, note: &Note<T>) -> io::Result<()> {
        private::make_all(&self.folder)?;
        let new = durable::beside(&Builder::new(), place, &serde_json::to_vec(note)?)?;
        // Not forced to the disk: what a power cut leaves of it is whole, or no
        // note, and finding out once more is all that it costs.
        new.persist(place)?;
        Ok(())
    }
}

fn read<T: DeserializeOwned>(place: &Path) -> Option<Note<T>> {
    serde_json::from_slice(&plain::read_start(place, NOTE_MAX).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::fs::File;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    struct Bench {
        folder: TempDir,
        notes: Notes,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("file"), "one").unwrap();
            let notes = Notes::kept_in(folder.path().join("notes"));
            Self { folder, notes }
        }

        fn path(&self) -> PathBuf {
            fs::canonicalize(self.folder.path().join("file")).unwrap()
        }

        /// Notes `value` as if the file had settled.
        fn note(&self, value: u32) {
            let identity = Identity::at(&self.path()).unwrap();
            let place = self.notes.place(&self.path(), "size");
            self.notes.write(&place, &Note { identity, value }).unwrap();
        }

        /// What was found out of the file; 7 is found out again.
        fn answer(&self) -> u32 {
            let found = self.notes.recall(&self.path(), "size", |_| Ok(7));
            found.unwrap_or_else(|never: Infallible| match never {})
        }
    }

    #[test]
    fn a_file_just_written_is_looked_at_each_time() {
        let bench = Bench::new();
        let file = File::options().write(true).open(bench.path()).unwrap();
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        file.set_modified(hour_ago).unwrap();
        assert_eq!(bench.answer(), 7);
        assert!(!bench.folder.path().join("notes").exists());
    }

    #[test]
    fn what_is_noted_holds_until_the_file_changes() {
        let bench = Bench::new();
        bench.note(3);
        assert_eq!(bench.answer(), 3);
        let other = bench.notes.recall(&bench.path(), "colour", |_| Ok(8));
        assert_eq!(other, Ok::<_, Infallible>(8));
        fs::write(bench.path(), "two").unwrap();
        assert_eq!(bench.answer(), 7);
    }

    #[test]
    fn a_note_that_is_damaged_or_far_too_long_is_ignored() {
        let bench = Bench::new();
        bench.note(3);
        let place = bench.notes.place(&bench.path(), "size");
        let whole = fs::read(&place).unwrap();
        for damaged in [&b"{"[..], b"", b"\0\xff", &vec![b' '; 1 << 20]] {
            fs::write(&place, damaged).unwrap();
            assert_eq!(bench.answer(), 7);
        }
        fs::write(&place, [vec![b' '; 1 << 20], whole].concat()).unwrap();
        assert_eq!(bench.answer(), 7);
    }

    #[test]
    fn what_cannot_be_found_out_is_not_noted() {
        let bench = Bench::new();
        let found = bench
            .notes
            .recall(&bench.path(), "size", |_| Err::<u32, _>("no"));
        assert_eq!(found, Err("no"));
        let gone = bench.folder.path().join("gone");
        let found = bench
            .notes
            .recall(&gone, "size", |path| Err::<u32, _>(path.to_owned()));
        assert_eq!(found, Err(gone));
    }
}
