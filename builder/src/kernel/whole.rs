//! Whether an unpacked tree is still complete.
//!
//! A note about the tree is written last, once the tree is on the disk. Before each
//! use the tree is compared with the note: the names, kinds, modes and lengths of
//! its files, which are what a power cut, a full disk or somebody who tidies up
//! changes. This takes less than a second for the 50,000 files of a Linux, while
//! reading all of them takes as long as a good part of a kernel build.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::digest::{Hasher, Sha256};
use crate::{durable, plain};

/// An unpacked tree and the note of it.
pub(crate) struct Kept {
    tree: PathBuf,
    note: PathBuf,
}

impl Kept {
    /// The tree at `tree`, whose note stands beside it.
    pub(crate) fn new(tree: PathBuf) -> Self {
        let note = tree.with_extension("whole");
        Self { tree, note }
    }

    pub(crate) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Whether the tree is there, and as its note says.
    pub(crate) fn is_whole(&self) -> bool {
        let noted = plain::read_to_string(&self.note).ok();
        let noted = noted.and_then(|text| text.trim_end().parse::<Sha256>().ok());
        noted.is_some() && inventory(&self.tree).ok() == noted
    }

    /// Puts a tree that is whole here, and notes that; the caller holds the lock.
    pub(crate) fn put(&self, tree: &Path) -> io::Result<()> {
        let inventory = inventory(tree)?;
        self.remove()?;
        durable::rename(tree, &self.tree)?;
        durable::replace(&self.note, format!("{inventory}\n").as_bytes()).map(drop)
    }

    /// Removes what is here; the note first, as it would be wrong otherwise.
    fn remove(&self) -> io::Result<()> {
        for path in [&self.note, &self.tree] {
            plain::if_there(match fs::symlink_metadata(path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(path),
                Ok(_) => fs::remove_file(path),
                Err(error) => Err(error),
            })?;
        }
        Ok(())
    }
}

/// What changes when anything of a tree is added, lost, cut or turned into
/// something else. Folders count by what they hold: their lengths are the file
/// system's.
fn inventory(tree: &Path) -> io::Result<Sha256> {
    let mut hasher = Hasher::default();
    walk(tree, |name, found| {
        let length = if found.is_dir() { 0 } else { found.size() };
        hasher.update(name.as_os_str().as_bytes());
        hasher.update([0]);
        hasher.update(found.mode().to_le_bytes());
        hasher.update(length.to_le_bytes());
        true
    })?;
    Ok(hasher.finish())
}

/// Shows `enters` what a tree holds, in an order that its names alone decide; a
/// folder whose content is to be shown too is one that it says `true` to.
pub(crate) fn walk(
    tree: &Path,
    mut enters: impl FnMut(&Path, &fs::Metadata) -> bool,
) -> io::Result<()> {
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries = fs::read_dir(&folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, found) = (entry.path(), entry.metadata()?);
            if enters(path.strip_prefix(tree).unwrap_or(&path), &found) && found.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}
