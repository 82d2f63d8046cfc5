//! The part of a download that has arrived.

use std::fs::{self, File};
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use crate::digest::{Hasher, Sha256};
use crate::plain::if_there;
use crate::{durable, plain};

/// An unfinished file, its digest so far, and what the server called its version.
pub(crate) struct Part {
    file: File,
    path: PathBuf,
    len: u64,
    hasher: Hasher,
    /// The value for `If-Range` (RFC 9110, section 13.1.5).
    validator: Option<String>,
    /// Where the validator is kept for a later process.
    note: PathBuf,
}

impl Part {
    /// Opens what an earlier attempt left of the file at `path`, or begins it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let note = path.with_extension("part.validator");
        let path = path.with_extension("part");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = plain::open_with(&mut options, &path)?;
        let mut hasher = Hasher::default();
        let len = hasher.read(&mut file)?;
        let validator = plain::read_to_string(&note).ok();
        Ok(Self {
            file,
            path,
            len,
            hasher,
            validator,
            note,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    /// The digest of what has arrived.
    pub(crate) fn sha256(&self) -> Sha256 {
        self.hasher.clone().finish()
    }

    /// Throws away what has arrived: what comes now has this validator.
    pub(crate) fn restart(&mut self, validator: Option<&str>) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.len = 0;
        self.hasher = Hasher::default();
        self.validator = validator.map(str::to_owned);
        match validator {
            Some(text) => {
                let mut options = File::options();
                options.write(true).create(true).truncate(true);
                plain::open_with(&mut options, &self.note)?.write_all(text.as_bytes())
            }
            None => if_there(fs::remove_file(&self.note)).map(drop),
        }
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Gives the finished file its name, after its content is on the disk.
    pub(crate) fn commit(self, path: &Path) -> io::Result<()> {
        durable::rename(&self.path, path)?;
        if_there(fs::remove_file(&self.note)).map(drop)
    }

    /// Removes what is left; nothing to go on from.
    pub(crate) fn forget(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.note);
    }
}
