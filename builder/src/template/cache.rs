//! Kept templates: `<cache>/templates/<key>/`, each with a lock of its own beside it.
//!
//! Their files have mode 0600. A template holds no secret, but who could change one
//! would have all guests run what they like.

use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Fingerprint, NoTemplate, Template, pages};
use crate::digest::Sha256;
use crate::interrupt::Interrupt;
use crate::lock::{Lock, TEMPORARY};
use crate::{durable, plain};

const FOLDER: &str = "templates";
const MEMORY: &str = "memory";
const STATE: &str = "state";
const RECORD: &str = "template.json";
/// Longest record, in bytes.
const RECORD_MAX: u64 = 4096;
/// How long one is kept that no fleet begins with.
const UNUSED: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Says of the files beside it what they are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    fingerprint: Fingerprint,
}

/// The place of one template.
#[derive(Debug)]
pub(crate) struct Entry {
    key: Sha256,
    folder: PathBuf,
}

impl Entry {
    pub(crate) fn new(cache: &Path, key: Sha256) -> Self {
        Self {
            key,
            folder: cache.join(FOLDER).join(key.to_string()),
        }
    }

    /// Has nobody else take this template meanwhile; `None` when `interrupt` came
    /// first.
    pub(crate) fn lock(&self, interrupt: &Interrupt) -> io::Result<Option<Lock>> {
        let lock = self.folder.with_extension("lock");
        Lock::acquire(&lock, "this template", interrupt)
    }

    /// The template that is kept here, in memory. One that is not there, or not what
    /// it was, is none; that memory cannot be had for it is an error.
    pub(crate) fn load(&self) -> io::Result<Option<Template>> {
        let damaged = |why: &dyn std::fmt::Display| {
            tracing::warn!(
                "the template in {} is damaged ({why}): taking another one",
                self.folder.display()
            );
            None
        };
        let Some(fingerprint) = plain::if_there(self.record()).transpose() else {
            return Ok(None);
        };
        let fingerprint = match fingerprint {
            Ok(fingerprint) if fingerprint.key == self.key => fingerprint,
            Ok(_) => return Ok(damaged(&"it is another one")),
            Err(error) => return Ok(damaged(&error)),
        };
        let opened = plain::open(&self.folder.join(MEMORY))
            .and_then(|memory| Ok((memory, plain::open(&self.folder.join(STATE))?)));
        let (memory, mut state) = match opened {
            Ok(files) => files,
            Err(error) => return Ok(damaged(&error)),
        };
        match Template::copy(fingerprint, &memory, &mut state) {
            Ok(template) => {
                self.note_use();
                Ok(Some(template))
            }
            Err(NoTemplate::Io(error)) => Err(error),
            Err(error) => Ok(damaged(&error)),
        }
    }

    fn record(&self) -> io::Result<Fingerprint> {
        let text = plain::read_start(&self.folder.join(RECORD), RECORD_MAX)?;
        let record: Record = serde_json::from_slice(&text)?;
        Ok(record.fingerprint)
    }

    fn note_use(&self) {
        let now = FileTimes::new().set_modified(SystemTime::now());
        let record = File::options().append(true).open(self.folder.join(RECORD));
        // It only goes earlier.
        let _ = record.and_then(|record| record.set_times(now));
    }

    /// Puts a template here, all of it or nothing; the caller holds the lock.
    pub(crate) fn store(&self, memory: &File, state: &[u8], lock: &Lock) -> io::Result<()> {
        let parent = durable::folder_of(&self.folder);
        lock.sweep(parent);
        let temporary = tempfile::Builder::new()
            .prefix(&format!("{}{TEMPORARY}", self.key))
            .tempdir_in(parent)?;
        let path = temporary.path();
        let create = |name| {
            let file = File::create_new(path.join(name))?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            io::Result::Ok(file)
        };
        let copy = create(MEMORY)?;
        let memory_size = memory.metadata()?.len();
        copy.set_len(memory_size)?;
        let memory = pages::each(memory, |at, page| pages::write(&copy, at, page))?;
        io::Write::write_all(&mut create(STATE)?, state)?;
        let fingerprint = Fingerprint {
            key: self.key,
            memory_size,
            memory,
            state: Sha256::of_bytes(state),
        };
        serde_json::to_writer(create(RECORD)?, &Record { fingerprint })?;
        plain::if_there(fs::remove_dir_all(&self.folder))?;
        durable::rename(path, &self.folder)?;
        // It is there no more.
        let _ = temporary.keep();
        self.sweep_unused();
        Ok(())
    }

    /// Removes templates that no fleet has begun with for long.
    fn sweep_unused(&self) {
        let folder = durable::folder_of(&self.folder);
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let used = fs::metadata(path.join(RECORD)).and_then(|record| record.modified());
            let unused = used.ok().and_then(|used| used.elapsed().ok());
            if path == self.folder || unused.is_none_or(|time| time < UNUSED) {
                continue;
            }
            // Whoever loads it right now goes on with it.
            let lock = plain::open(&path.with_extension("lock"));
            if !lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                continue;
            }
            if let Err(error) = plain::if_there(fs::remove_dir_all(&path)) {
                tracing::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(cache: &Path, name: &str) -> Entry {
        Entry::new(cache, Sha256::of_bytes(name))
    }

    fn store(entry: &Entry) {
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(1 << 20).unwrap();
        pages::write(&memory, 8192, &[7; 4096]).unwrap();
        let lock = entry.lock(&Interrupt::never().unwrap()).unwrap().unwrap();
        entry.store(&memory, b"state", &lock).unwrap();
    }

    #[test]
    fn a_template_is_kept_for_its_user_alone() {
        let cache = tempfile::tempdir().unwrap();
        let entry = entry(cache.path(), "key");
        assert!(entry.load().unwrap().is_none());
        store(&entry);
        let template = entry.load().unwrap().unwrap();
        assert_eq!(template.fingerprint().key, entry.key);
        for name in [MEMORY, STATE, RECORD] {
            let mode = fs::metadata(entry.folder.join(name)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
        }
        // Holes stay holes.
        let memory = File::open(entry.folder.join(MEMORY)).unwrap();
        assert_eq!(memory.metadata().unwrap().len(), 1 << 20);
        assert!(std::os::unix::fs::MetadataExt::blocks(&memory.metadata().unwrap()) < 64);
    }

    #[test]
    fn one_that_was_truncated_or_edited_is_not_used() {
        let cache = tempfile::tempdir().unwrap();
        let entry = entry(cache.path(), "key");
        for name in [MEMORY, STATE, RECORD] {
            let path = entry.folder.join(name);
            let truncate = || File::options().write(true).open(&path)?.set_len(3);
            let edit = || fs::write(&path, "something else");
            let remove = || fs::remove_file(&path);
            let changes: [&dyn Fn() -> io::Result<()>; 3] = [&truncate, &edit, &remove];
            for change in changes {
                store(&entry);
                assert!(entry.load().unwrap().is_some());
                change().unwrap();
                assert!(entry.load().unwrap().is_none(), "{name}");
            }
        }
        // Another one's files.
        store(&entry);
        let other = self::entry(cache.path(), "other");
        fs::rename(&entry.folder, &other.folder).unwrap();
        assert!(other.load().unwrap().is_none());
    }

    #[test]
    fn those_that_no_fleet_begins_with_are_removed() {
        let cache = tempfile::tempdir().unwrap();
        let [old, used, new] = ["old", "used", "new"].map(|name| entry(cache.path(), name));
        let long_ago = FileTimes::new().set_modified(SystemTime::now() - UNUSED * 2);
        for entry in [&old, &used] {
            store(entry);
            let record = File::options().append(true).open(entry.folder.join(RECORD));
            record.unwrap().set_times(long_ago).unwrap();
        }
        assert!(used.load().unwrap().is_some());
        store(&new);
        assert!(old.load().unwrap().is_none());
        assert!(used.load().unwrap().is_some() && new.load().unwrap().is_some());
        let left = fs::read_dir(cache.path().join(FOLDER)).unwrap().count();
        assert_eq!(left, 5, "two folders, and the locks");
    }
}
