//! What stands in a folder, so that a test can tell whether it was touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use imgbuild::digest::Sha256;

/// Everything below a folder, by path in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Entry>);

/// A file or folder; an equal one is the very same, not a copy.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    inode: u64,
    modified: SystemTime,
    /// Of a file.
    sha256: Option<Sha256>,
}

impl Tree {
    /// Reads what stands below `folder`.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let mut entries = BTreeMap::new();
        list(folder, "", &mut entries);
        Self(entries)
    }

    /// Paths of all files and folders, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// Permission bits by path.
    #[must_use]
    pub fn modes(&self) -> BTreeMap<&str, u32> {
        self.0
            .iter()
            .map(|(name, entry)| (name.as_str(), entry.mode & 0o7777))
            .collect()
    }
}

fn list(folder: &Path, prefix: &str, entries: &mut BTreeMap<String, Entry>) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("the folder can be listed").path();
        let name = path.file_name().expect("it has a name").to_string_lossy();
        let name = format!("{prefix}{name}");
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        let sha256 = metadata
            .is_file()
            .then(|| Sha256::of_file(&path).expect("it is readable"));
        if metadata.is_dir() {
            list(&path, &format!("{name}/"), entries);
        }
        entries.insert(
            name,
            Entry {
                mode: metadata.mode(),
                inode: metadata.ino(),
                modified: metadata.modified().expect("the file system keeps it"),
                sha256,
            },
        );
    }
}
