//! Writes that survive a power cut: content reaches the disk before a name leads to
//! it, and the name before anything relies on it. A rename alone ensures neither,
//! because file systems write content, folders and renames in an order of their own
//! (ext4's delayed allocation can leave an empty file of the right name).

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::syncfs;
use rustix::io::Errno;
use tempfile::{Builder, NamedTempFile};

use crate::plain;

/// Most files that are written back one by one, which waits for nobody else's
/// data. On ext4 each takes 3 to 5 ms, and a whole file system (syncfs(2)) 12 to
/// 50 ms on a machine that is not busy writing.
const FEW: usize = 16;

/// Returns once a file, or a folder with all that is below it, is on the disk.
pub(crate) fn settle(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    trace::note("settled", path);
    let mut all = Vec::new();
    if !list(path, &mut all)? {
        let folder = File::open(path)?;
        return lenient(syncfs(&folder).map_err(io::Error::from));
    }
    // A folder stands after what is in it.
    all.iter().try_for_each(|path| sync(path))
}

/// Puts a file or folder in a place that is empty, or a file in another's: the
/// old or the new is there, and whole, whenever the host dies.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    settle(from)?;
    fs::rename(from, to)?;
    renamed(to)
}

/// Puts a file of these bytes in the place of another, whole or not at all,
/// whenever this process or the host dies; readable by its owner alone.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    persist(beside(&Builder::new(), path, bytes)?, path)
}

/// The same of a file that those may read whom the umask lets.
pub(crate) fn replace_for_all(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut builder = Builder::new();
    builder.permissions(Permissions::from_mode(0o666));
    persist(beside(&builder, path, bytes)?, path)
}

/// A temporary file of these bytes in the folder of `path`, made by `builder`, to be
/// put in its place.
pub(crate) fn beside(builder: &Builder, path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut new = builder.tempfile_in(folder_of(path))?;
    new.write_all(bytes)?;
    Ok(new)
}

/// The same as [`rename`] for a temporary file.
pub(crate) fn persist(new: NamedTempFile, path: &Path) -> io::Result<File> {
    settle(new.path())?;
    let file = new.persist(path)?;
    renamed(path)?;
    Ok(file)
}

/// Returns once it is on the disk that `path` leads to what was just put there.
pub(crate) fn renamed(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    trace::note("renamed", path);
    sync(folder_of(path))
}

/// The folder that `path` is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Lists what is at and below `path`, but for links, which folders hold, and
/// tells whether that is few; stops where it is not.
fn list(path: &Path, all: &mut Vec<PathBuf>) -> io::Result<bool> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            if !list(&entry?.path(), all)? {
                return Ok(false);
            }
        }
    }
    if kind.is_dir() || kind.is_file() {
        all.push(path.to_path_buf());
    }
    Ok(all.len() <= FEW)
}

fn sync(path: &Path) -> io::Result<()> {
    let file = if path.is_dir() {
        File::open(path)?
    } else {
        plain::open(path)?
    };
    lenient(file.sync_all())
}

/// File systems that cannot sync, such as some in user space, keep what they
/// keep.
fn lenient(result: io::Result<()>) -> io::Result<()> {
    let unknown = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP].map(Some);
    match result {
        Err(error) if unknown.contains(&Errno::from_io_error(&error)) => Ok(()),
        other => other,
    }
}

/// What was done, in order, for tests: on a disk that never loses power no other
/// trace is left.
#[cfg(test)]
pub(crate) mod trace {
    use std::cell::RefCell;
    use std::path::Path;

    thread_local! {
        static STEPS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Notes what was done to the file of this name.
    pub(crate) fn note(what: &str, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        STEPS.with_borrow_mut(|steps| steps.push(format!("{what} {name}")));
    }

    /// What this thread did since it was asked last.
    pub(crate) fn take() -> Vec<String> {
        STEPS.with_borrow_mut(std::mem::take)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;
    use crate::plain::tests::fifo;

    /// A file system of a few pages.
    pub(crate) struct Small(pub(crate) TempDir);

    impl Small {
        pub(crate) fn mount(kibibytes: u32) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={kibibytes}k"), "small"])
                .arg(folder.path())
                .status();
            assert!(mounted.unwrap().success());
            Self(folder)
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let unmounted = Command::new("umount").arg(self.0.path()).status();
            assert!(unmounted.is_ok_and(|status| status.success()));
        }
    }

    #[test]
    fn content_is_settled_before_its_name_and_the_name_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("tree")).unwrap();
        let _ = trace::take();
        rename(&at("tree"), &at("place")).unwrap();
        assert_eq!(trace::take(), ["settled tree", "renamed place"]);
        let new = beside(&Builder::new(), &at("file"), b"text").unwrap();
        let name = new
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        persist(new, &at("file")).unwrap();
        assert_eq!(
            trace::take(),
            [format!("settled {name}"), "renamed file".to_owned()]
        );
        assert_eq!(fs::read(at("file")).unwrap(), b"text");
        // What cannot be settled gets no name.
        let gone = rename(&at("nothing"), &at("file")).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read(at("file")).unwrap(), b"text");
    }

    #[test]
    fn few_files_are_listed_after_their_folder_s_content_and_many_are_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("deep/er")).unwrap();
        fs::write(tree.join("deep/er/file"), "").unwrap();
        symlink("/nowhere", tree.join("link")).unwrap();
        fifo(&tree.join("fifo"));
        let mut all = Vec::new();
        assert!(list(&tree, &mut all).unwrap());
        let names: Vec<_> = all.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["file", "er", "deep", "tree"]);
        settle(&tree).unwrap();
        for number in 0..FEW {
            fs::write(tree.join(number.to_string()), "").unwrap();
        }
        assert!(!list(&tree, &mut Vec::new()).unwrap());
        settle(&tree).unwrap();
    }
}
