//! The file here that a guest's file becomes.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use super::CopyError;
use crate::durable;

/// What a new file is made with, of which the umask takes its part.
const MODE: u32 = 0o666;

/// Where a guest's file comes to stand: there whole, or not at all, unless it is a
/// device or a pipe.
#[derive(Debug)]
pub(crate) struct Landing {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    New(NamedTempFile),
    Open(File),
}

impl Landing {
    pub(crate) fn new(path: &Path) -> Result<Self, CopyError> {
        let failed = |source| CopyError::Write {
            path: path.to_path_buf(),
            source,
        };
        // Behind a link is where the user wants it, if a file is there: cp(1) makes none.
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(_) if path.is_symlink() => return Err(failed(leads_nowhere())),
            Err(_) => path.to_path_buf(),
        };
        let kind = match fs::metadata(&real).ok() {
            Some(there) if !there.is_file() => {
                Kind::Open(File::options().write(true).open(&real).map_err(failed)?)
            }
            replaced => {
                let folder = durable::folder_of(&real);
                // Whose error names no temporary file.
                fs::metadata(folder).map_err(failed)?;
                Kind::New(beside(folder, replaced.as_ref()).map_err(failed)?)
            }
        };
        Ok(Self { path: real, kind })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), CopyError> {
        let written = match &mut self.kind {
            Kind::New(new) => new.write_all(bytes),
            Kind::Open(file) => file.write_all(bytes),
        };
        written.map_err(|source| CopyError::Write {
            path: self.path.clone(),
            source,
        })
    }

    /// Puts it in its place.
    pub(crate) fn settle(self) -> Result<(), CopyError> {
        let path = self.path;
        match self.kind {
            Kind::Open(_) => Ok(()),
            Kind::New(new) => match durable::persist(new, &path) {
                Ok(_) => Ok(()),
                Err(source) => Err(CopyError::Write { path, source }),
            },
        }
    }
}

/// A new file in `folder`, of the mode and owner of the one that it replaces.
fn beside(folder: &Path, replaced: Option<&Metadata>) -> io::Result<NamedTempFile> {
    let mode = |file: &Metadata| file.mode() & 0o777;
    let mut builder = Builder::new();
    builder.permissions(Permissions::from_mode(replaced.map_or(MODE, mode)));
    let new = builder.tempfile_in(folder)?;
    if let Some(replaced) = replaced {
        // Others than root make files of their own alone.
        let _ = fchown(new.as_file(), Some(replaced.uid()), Some(replaced.gid()));
        // The umask took its part.
        let mode = Permissions::from_mode(mode(replaced));
        new.as_file().set_permissions(mode)?;
    }
    Ok(new)
}

fn leads_nowhere() -> io::Error {
    io::Error::other("it is a link that leads to no file; remove it, or name the file itself")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use rustix::process::geteuid;

    use super::*;

    #[test]
    fn a_file_is_there_whole_or_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "before").unwrap();
        symlink("file", &link).unwrap();
        let mut landing = Landing::new(&link).unwrap();
        landing.write(b"part").unwrap();
        drop(landing);
        assert_eq!(fs::read_to_string(&file).unwrap(), "before");
        let mut landing = Landing::new(&link).unwrap();
        landing.write(b"whole").unwrap();
        landing.settle().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "whole");
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        fs::remove_file(&file).unwrap();
        let dangling = Landing::new(&link).unwrap_err().to_string();
        assert!(dangling.contains("link: it is a link that leads to no file"));
        assert!(link.is_symlink() && !file.exists());

        let mut device = Landing::new(Path::new("/dev/null")).unwrap();
        device.write(b"gone").unwrap();
        device.settle().unwrap();
        let full = Landing::new(Path::new("/dev/full")).unwrap().write(b"x");
        let said = full.unwrap_err().to_string();
        assert!(said.contains("/dev/full: No space left"), "{said}");
        let nowhere = Landing::new(Path::new("/nowhere/f")).unwrap_err();
        assert!(nowhere.to_string().contains("cannot write /nowhere/f"));
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode_and_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "before").unwrap();
        if geteuid().is_root() {
            chown(&path, Some(1), Some(2)).unwrap();
        }
        // The second is more than a umask leaves.
        for mode in [0o600, 0o666] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let before = fs::metadata(&path).unwrap();
            let mut landing = Landing::new(&path).unwrap();
            landing.write(b"whole").unwrap();
            landing.settle().unwrap();
            let after = fs::metadata(&path).unwrap();
            assert_ne!(after.ino(), before.ino());
            let kept = |file: &Metadata| (file.mode(), file.uid(), file.gid());
            assert_eq!(kept(&after), kept(&before));
        }
    }
}
