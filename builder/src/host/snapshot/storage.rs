//! File systems that a fleet writes to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use super::mounts::{self, Mount};
use super::{FileSystem, Places, Store};
use crate::sample::source::Source;

const SHM: &str = "dev/shm";

/// The file systems of `places`, with their types from `mounts`.
pub(crate) fn read(
    source: &mut Source,
    places: &Places,
    mounts: &[Mount],
) -> BTreeMap<Store, FileSystem> {
    let mut folders = vec![
        (Store::State, nearest(&places.state)),
        (Store::Runtime, nearest(&places.runtime)),
    ];
    let shm = source.place(SHM);
    // What is above it is not a place for memory.
    if shm.is_dir() {
        folders.push((Store::Shm, shm));
    }
    folders
        .into_iter()
        .filter_map(|(store, folder)| Some((store, file_system(source, &folder, mounts)?)))
        .collect()
}

/// `path`, or the nearest of its ancestors that is there.
fn nearest(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from("/"));
    let there = path
        .ancestors()
        .find_map(|folder| fs::canonicalize(folder).ok());
    there.unwrap_or_else(|| PathBuf::from("/"))
}

fn file_system(source: &mut Source, folder: &Path, mounts: &[Mount]) -> Option<FileSystem> {
    let stat = source.kept(folder, statvfs(folder).map_err(Into::into))?;
    Some(FileSystem {
        path: folder.to_string_lossy().into_owned().into(),
        kind: mounts::kind_of(mounts, folder).map(str::to_owned),
        size: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        // btrfs and others make room for files as they come, and tell 0.
        files_free: (stat.f_files > 0).then_some(stat.f_favail),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_judged_by_its_nearest_ancestor() {
        let folder = tempfile::tempdir().unwrap();
        let there = fs::canonicalize(folder.path()).unwrap();
        assert_eq!(nearest(&there.join("a/b/c")), there);
        fs::create_dir(there.join("a")).unwrap();
        assert_eq!(nearest(&there.join("a/b/c")), there.join("a"));
        assert_eq!(nearest(Path::new("/no/such/folder")), Path::new("/"));
    }
}
