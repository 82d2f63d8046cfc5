//! A folder that appears whole or not at all.
//!
//! Everything is written into a hidden sibling of the folder, which is brought to
//! the disk and exchanged with it by one `renameat2(RENAME_EXCHANGE)`, which is
//! brought to the disk as well. So who is interrupted or fails leaves the previous
//! folder unchanged, and a power cut leaves either the previous one or the new one.
//! Who is killed leaves a sibling behind. The lock on that died with its owner, so
//! the next one recognizes the sibling and removes it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::id;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::durable;
use crate::plain::if_there;
use crate::private::{Others, PLAIN, Private};

/// What a folder is to be: only another of its kind is replaced.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name in messages.
    pub name: &'static str,
    /// The file in it by which it is recognized.
    pub index: &'static str,
    /// The option that chooses another folder.
    pub option: &'static str,
    /// The files that a folder lists as its own, by path in it; `None` where it is
    /// not of this kind.
    pub listed: fn(&Path) -> Option<BTreeSet<String>>,
}

/// A folder under construction, removed again unless [`Staging::commit`]ted.
#[derive(Debug)]
pub struct Staging {
    kind: Kind,
    target: PathBuf,
    folder: PathBuf,
    /// The folder itself, locked for as long as it is being written.
    _lock: File,
}

/// The folder could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The parent folder does not take a new folder, or the disk is full.
    #[error(
        "cannot write the {} {}: {source}; choose another folder with {}",
        kind.name, path.display(), kind.option
    )]
    Unwritable {
        /// What the folder was to be.
        kind: Kind,
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The target has no name of its own, as `/`.
    #[error(
        "cannot write the {} {}: it has no name inside another folder; choose a folder that \
         has one with {option}, such as {option} out/NAME",
        kind.name, path.display(), option = kind.option
    )]
    Nameless {
        /// What the folder was to be.
        kind: Kind,
        /// The target.
        path: PathBuf,
    },
    /// The target is there and not ours to replace.
    #[error(
        "cannot write the {} {}: it {reason}, and imgbuild replaces only its own output; \
         choose another folder with {}, or move this one away",
        kind.name, path.display(), kind.option
    )]
    NotOurs {
        /// What the folder was to be.
        kind: Kind,
        /// The target.
        path: PathBuf,
        /// What is there instead.
        reason: String,
    },
}

/// Stands between a target's name and its builder's process id while an output is
/// replaced where folders cannot be exchanged.
const PREVIOUS: &str = ".previous-";

impl Staging {
    /// Starts a folder that will become `target`.
    pub fn new(target: &Path, kind: Kind) -> Result<Self, StagingError> {
        let unwritable = |source| StagingError::Unwritable {
            kind,
            path: target.to_path_buf(),
            source,
        };
        // Behind a link is where the user wants it.
        let target = fs::canonicalize(target)
            .or_else(|_| std::path::absolute(target))
            .map_err(unwritable)?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(StagingError::Nameless { kind, path: target });
        };
        if let Err(reason) = kind.replaceable(&target) {
            let path = target;
            return Err(StagingError::NotOurs { kind, path, reason });
        }
        fs::create_dir_all(parent).map_err(unwritable)?;
        put_back(&target, kind);
        let prefix = format!(".{}.staging-", name.to_string_lossy());
        remove_stale(parent, &prefix);
        let (folder, lock) = create_locked(parent, &prefix).map_err(unwritable)?;
        Ok(Self {
            kind,
            target,
            folder,
            _lock: lock,
        })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Puts the folder in the place of its target, and removes what was there.
    pub fn commit(self) -> Result<PathBuf, StagingError> {
        let kind = self.kind;
        let unwritable = |source| StagingError::Unwritable {
            kind,
            path: self.target.clone(),
            source,
        };
        durable::settle(&self.folder).map_err(unwritable)?;
        match renameat_with(CWD, &self.folder, CWD, &self.target, RenameFlags::NOREPLACE) {
            // Some file systems know no flags; an empty place needs none.
            Err(Errno::INVAL) if !self.target.exists() => {
                fs::rename(&self.folder, &self.target).map_err(unwritable)?;
            }
            Err(Errno::EXIST | Errno::INVAL) => {
                // Much may have happened to it since.
                if let Err(reason) = kind.replaceable(&self.target) {
                    let path = self.target.clone();
                    return Err(StagingError::NotOurs { kind, path, reason });
                }
                self.replace().map_err(unwritable)?;
            }
            other => other.map_err(|errno| unwritable(errno.into()))?,
        }
        // Before the previous output goes.
        durable::renamed(&self.target).map_err(unwritable)?;
        Ok(self.target.clone())
    }

    /// Exchanges the folder with the one that stands in its place; what was
    /// there goes with `self`.
    fn replace(&self) -> io::Result<()> {
        match renameat_with(CWD, &self.folder, CWD, &self.target, RenameFlags::EXCHANGE) {
            // A file system that cannot exchange: for a moment there is no
            // output, and a kill or a power cut in it leaves the previous one
            // under this name, see `put_back`.
            Err(Errno::INVAL) => {
                let previous = with_suffix(&self.target, &format!("{PREVIOUS}{}", id()));
                fs::rename(&self.target, &previous)?;
                fs::rename(&self.folder, &self.target)
                    .inspect_err(|_| drop(fs::rename(&previous, &self.target)))?;
                durable::renamed(&self.target)?;
                if let Err(error) = fs::remove_dir_all(&previous) {
                    tracing::warn!("cannot remove {}: {error}", previous.display());
                }
                Ok(())
            }
            other => other.map_err(io::Error::from),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a commit this is the previous output, or nothing.
        if let Err(error) = if_there(fs::remove_dir_all(&self.folder)) {
            tracing::warn!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// Lists the files below a folder, by path in it; the error is of which folder.
pub(crate) fn files_below(folder: &Path) -> Result<BTreeSet<String>, (PathBuf, io::Error)> {
    let mut found = BTreeSet::new();
    list_below(folder, Path::new(""), &mut found)?;
    Ok(found)
}

fn list_below(
    folder: &Path,
    below: &Path,
    found: &mut BTreeSet<String>,
) -> Result<(), (PathBuf, io::Error)> {
    let path = folder.join(below);
    let unreadable = |error| (path.clone(), error);
    for entry in fs::read_dir(&path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = below.join(entry.file_name());
        if entry.file_type().map_err(unreadable)?.is_dir() {
            list_below(folder, &name, found)?;
        } else {
            found.insert(name.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Creates a folder whose name begins so, which others may write to under no umask,
/// and locks it.
///
/// The lock is on the folder itself: there is no moment without it but the one
/// between creation and lock, and a folder that another build took for stale
/// in that moment is made again. The rest of its name is by chance, since whoever
/// may write to `parent` could have something else under one that can be known.
fn create_locked(parent: &Path, prefix: &str) -> io::Result<(PathBuf, File)> {
    loop {
        let path = tempfile::Builder::new()
            .prefix(prefix)
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(parent)?
            .keep();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::DIRECTORY | PLAIN).bits().cast_signed())
            .open(&path);
        let folder = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        // Where folders take no lock (nfs(5)), none is taken for stale either.
        if let Err(error) = folder.lock() {
            tracing::debug!("{}: not locked: {error}", path.display());
        }
        let ours = folder.metadata()?.ino();
        if fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == ours) {
            return Ok((path, folder));
        }
    }
}

impl Kind {
    /// Whether the target may be replaced: absent, empty, or an earlier one of this
    /// kind with nothing added; the error is what it is instead.
    fn replaceable(self, target: &Path) -> Result<(), String> {
        match fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(format!("cannot be read as a folder ({error})")),
        }
        let Self { index, listed, .. } = self;
        let listed = listed(target)
            .ok_or_else(|| format!("is not empty and holds no {index} of imgbuild"))?;
        let found = files_below(target)
            .map_err(|(path, error)| format!("holds {}: {error}", path.display()))?;
        match found.difference(&listed).next() {
            None => Ok(()),
            Some(file) => Err(format!("holds {file}, which is not in its {index}")),
        }
    }
}

/// The target's name with more behind it.
fn with_suffix(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Gives back its name to an output whose replacement was cut short, and removes
/// one that was replaced.
fn put_back(target: &Path, kind: Kind) {
    let Some(parent) = target.parent() else {
        return;
    };
    let prefix = with_suffix(target, PREVIOUS);
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let owner = path
            .as_os_str()
            .as_encoded_bytes()
            .strip_prefix(prefix.as_os_str().as_encoded_bytes())
            .and_then(|pid| std::str::from_utf8(pid).ok()?.parse().ok())
            .and_then(Pid::from_raw);
        let Some(owner) = owner else {
            continue;
        };
        let is_ours = || (kind.listed)(&path).is_some() && kind.replaceable(&path).is_ok();
        if test_kill_process(owner) != Err(Errno::SRCH) || !is_ours() {
            continue;
        }
        let left = path.display();
        if !target.exists() && fs::rename(&path, target).is_ok() {
            tracing::info!(
                "restored {}, which a process that was killed was replacing",
                target.display()
            );
        } else if target.exists() && fs::remove_dir_all(&path).is_ok() {
            tracing::info!("removed {left}, left by a process that was killed");
        }
    }
}

/// Removes staging folders whose owner is gone: folders of this user, where nobody
/// else can put another in their place. Whatever else has such a name is left
/// alone.
fn remove_stale(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let path = entry.path();
        let judged = match Private::open(&path, Others::Look) {
            Ok(Some(judged)) => judged,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!("left alone: {error}");
                continue;
            }
        };
        // Its owner, if it lives, has the lock or finds the folder gone.
        let Ok(folder) = File::open(judged.within(".")) else {
            continue;
        };
        if folder.try_lock().is_ok() && fs::remove_dir_all(&path).is_ok() {
            tracing::info!(
                "removed {}, left by a process that was killed",
                path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::durable::trace;
    use crate::plain::{self, tests::fifo};

    const INDEX: &str = "index";

    /// A folder whose index lists the others.
    const KIND: Kind = Kind {
        name: "shelf",
        index: INDEX,
        option: "--shelf",
        listed: |folder| {
            let text = plain::read_to_string(&folder.join(INDEX)).ok()?;
            Some(text.lines().chain([INDEX]).map(str::to_owned).collect())
        },
    };

    /// The names in a folder, in order.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_output_is_on_the_disk_before_it_has_its_name_and_with_it_when_done() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("out");
        for _ in ["in an empty place", "in another's"] {
            let staging = Staging::new(&target, KIND).unwrap();
            fs::write(staging.path().join(INDEX), "").unwrap();
            let settled = staging
                .path()
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned();
            let _ = trace::take();
            assert_eq!(
                staging.commit().unwrap(),
                fs::canonicalize(&target).unwrap()
            );
            let expected = [format!("settled {settled}"), "renamed out".to_owned()];
            assert_eq!(trace::take(), expected);
            assert_eq!(names(parent.path()), ["out"]);
        }
    }

    #[test]
    fn an_output_whose_replacement_was_cut_short_has_its_name_again() {
        let parent = tempfile::tempdir().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let previous = |owner: u32| {
            let folder = parent.path().join(format!("out{PREVIOUS}{owner}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(INDEX), "").unwrap();
            folder
        };
        let target = parent.path().join("out");
        let ours = previous(id());
        let left = previous(dead.id());
        put_back(&target, KIND);
        assert!(target.join(INDEX).exists() && ours.exists() && !left.exists());
        // Replaced, and not removed yet.
        let left = previous(dead.id());
        put_back(&target, KIND);
        assert!(target.exists() && ours.exists() && !left.exists());
        // Somebody else's.
        fs::write(left.with_file_name(format!("out{PREVIOUS}x")), "").unwrap();
        fs::create_dir(&left).unwrap();
        fs::write(left.join("file"), "mine").unwrap();
        put_back(&target, KIND);
        assert!(left.join("file").exists());
    }

    #[test]
    fn a_refusal_never_says_to_remove_what_is_not_imgbuilds() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes"), "mine").unwrap();
        for (target, why) in [
            (Path::new("/"), "it has no name inside another folder"),
            (folder.path(), "it is not empty and holds no index"),
        ] {
            let error = Staging::new(target, KIND).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("--shelf"), "{error}");
            assert!(!error.contains("remove"), "{error}");
        }
    }

    #[test]
    fn what_only_has_the_name_of_a_staging_folder_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let precious = at("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "mine").unwrap();
        fifo(&at(".out.staging-1"));
        let _socket = UnixListener::bind(at(".out.staging-2")).unwrap();
        symlink("precious", at(".out.staging-3")).unwrap();
        fs::write(at(".out.staging-4"), "").unwrap();
        // What others may have put something into.
        fs::create_dir(at(".out.staging-5")).unwrap();
        fs::set_permissions(at(".out.staging-5"), Permissions::from_mode(0o777)).unwrap();
        let others = names(parent.path());
        fs::create_dir(at(".out.staging-6")).unwrap();
        fs::write(at(".out.staging-6").join("file"), "half").unwrap();

        let staging = Staging::new(&at("out"), KIND).unwrap();
        drop(staging);
        assert_eq!(names(parent.path()), others);
        assert_eq!(fs::read(precious.join("file")).unwrap(), b"mine");
    }

    #[test]
    fn an_index_that_is_a_pipe_makes_a_folder_not_ours_to_replace() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("out");
        fs::create_dir(&target).unwrap();
        fifo(&target.join(INDEX));
        let error = Staging::new(&target, KIND).unwrap_err();
        assert!(matches!(error, StagingError::NotOurs { .. }), "{error}");
    }
}
