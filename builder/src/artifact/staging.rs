//! A folder that appears whole or not at all.
//!
//! A build writes everything into a hidden sibling of the output folder, brings
//! that to the disk, and exchanges the two by one `renameat2(RENAME_EXCHANGE)`,
//! which it brings to the disk as well. So an interrupted or failed build leaves
//! the previous output unchanged, and a power cut leaves either the previous output
//! or the new one. A killed build leaves its sibling behind. The lock on that died
//! with its owner, so the next build recognizes the sibling and removes it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::id;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::verify::list;
use super::{MANIFEST, manifest};
use crate::durable;
use crate::plain::if_there;
use crate::private::{Others, PLAIN, Private};

/// A folder under construction, removed again unless [`Staging::commit`]ted.
#[derive(Debug)]
pub struct Staging {
    target: PathBuf,
    folder: PathBuf,
    /// The folder itself, locked for as long as it is being written.
    _lock: File,
}

/// The output folder could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The parent folder does not take a new folder.
    #[error("cannot write the output folder {}: {source}; choose another folder with --out", path.display())]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The target has no name of its own, as `/`.
    #[error(
        "cannot write the output to {}: it has no name inside another folder; choose a folder that \
         has one with --out, such as --out out/NAME",
        path.display()
    )]
    Nameless {
        /// The target.
        path: PathBuf,
    },
    /// The target is there and not ours to replace.
    #[error(
        "cannot write the output to {}: it {reason}, and imgbuild replaces only its own output; \
         choose another folder with --out, or move this one away",
        path.display()
    )]
    NotOurs {
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
    pub fn new(target: &Path) -> Result<Self, StagingError> {
        let unwritable = |source| StagingError::Unwritable {
            path: target.to_path_buf(),
            source,
        };
        // Behind a link is where the user wants it.
        let target = fs::canonicalize(target)
            .or_else(|_| std::path::absolute(target))
            .map_err(unwritable)?;
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(StagingError::Nameless { path: target });
        };
        if let Err(reason) = replaceable(&target) {
            let path = target;
            return Err(StagingError::NotOurs { path, reason });
        }
        fs::create_dir_all(parent).map_err(unwritable)?;
        put_back(&target);
        let prefix = format!(".{}.staging-", name.to_string_lossy());
        remove_stale(parent, &prefix);
        let (folder, lock) = create_locked(parent, &prefix).map_err(unwritable)?;
        Ok(Self {
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
        let unwritable = |source| StagingError::Unwritable {
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
                // Much may have happened to it since the build began.
                if let Err(reason) = replaceable(&self.target) {
                    let path = self.target.clone();
                    return Err(StagingError::NotOurs { path, reason });
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

/// Whether the target may be replaced: absent, empty, or an earlier output
/// with nothing added; the error is what it is instead.
fn replaceable(target: &Path) -> Result<(), String> {
    match fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("cannot be read as a folder ({error})")),
    }
    let listed = manifest::listed(target)
        .ok_or_else(|| format!("is not empty and holds no {MANIFEST} of imgbuild"))?;
    let found = list(target).map_err(|error| error.to_string())?;
    match found.difference(&listed).next() {
        None => Ok(()),
        Some(file) => Err(format!("holds {file}, which is not in its {MANIFEST}")),
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
fn put_back(target: &Path) {
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
        let is_ours = || manifest::listed(&path).is_some() && replaceable(&path).is_ok();
        if test_kill_process(owner) != Err(Errno::SRCH) || !is_ours() {
            continue;
        }
        let left = path.display();
        if !target.exists() && fs::rename(&path, target).is_ok() {
            tracing::info!(
                "restored {}, which a build that was killed was replacing",
                target.display()
            );
        } else if target.exists() && fs::remove_dir_all(&path).is_ok() {
            tracing::info!("removed {left}, left by a build that was killed");
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
                "removed {}, left by a build that was killed",
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
    use crate::plain::tests::fifo;

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
            let staging = Staging::new(&target).unwrap();
            fs::write(
                staging.path().join(MANIFEST),
                r#"{"manifest_version":1,"files":{}}"#,
            )
            .unwrap();
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
        let previous = |owner: u32, text: &str| {
            let folder = parent.path().join(format!("out{PREVIOUS}{owner}"));
            fs::create_dir(&folder).unwrap();
            let manifest = format!(r#"{{"manifest_version": {text}, "files": {{}}}}"#);
            fs::write(folder.join(MANIFEST), manifest).unwrap();
            folder
        };
        let target = parent.path().join("out");
        let ours = previous(id(), "1");
        let left = previous(dead.id(), "1");
        put_back(&target);
        assert!(target.join(MANIFEST).exists() && ours.exists() && !left.exists());
        // Replaced, and not removed yet.
        let left = previous(dead.id(), "1");
        put_back(&target);
        assert!(target.exists() && ours.exists() && !left.exists());
        // Somebody else's.
        fs::write(left.with_file_name(format!("out{PREVIOUS}x")), "").unwrap();
        fs::create_dir(&left).unwrap();
        fs::write(left.join("file"), "mine").unwrap();
        put_back(&target);
        assert!(left.join("file").exists());
    }

    #[test]
    fn a_refusal_never_says_to_remove_what_is_not_imgbuilds() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes"), "mine").unwrap();
        for (target, why) in [
            (Path::new("/"), "it has no name inside another folder"),
            (folder.path(), "it is not empty and holds no manifest.json"),
        ] {
            let error = Staging::new(target).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("--out"), "{error}");
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

        let staging = Staging::new(&at("out")).unwrap();
        drop(staging);
        assert_eq!(names(parent.path()), others);
        assert_eq!(fs::read(precious.join("file")).unwrap(), b"mine");
    }

    #[test]
    fn a_manifest_that_is_a_pipe_makes_a_folder_not_ours_to_replace() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("out");
        fs::create_dir(&target).unwrap();
        fifo(&target.join(MANIFEST));
        let error = Staging::new(&target).unwrap_err();
        assert!(matches!(error, StagingError::NotOurs { .. }), "{error}");
    }
}
