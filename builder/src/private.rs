//! Folders that nobody else may change: state, sockets, cache, and the record of
//! host settings.
//!
//! Such a folder is opened once, without following a link, and checked: it must
//! belong to this user, nobody else may write to it, and nobody else may put
//! another folder in its place. Files in it are made and removed through the open
//! folder, so that renaming the folder meanwhile does not redirect them.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use tempfile::Builder;

use crate::durable::{self, folder_of};
use crate::plain::if_there;

/// Readable, writable and searchable by the owner alone.
const FOLDER: Mode = Mode::RWXU;
/// Readable and writable by the owner alone.
const FILE: Mode = Mode::RUSR.union(Mode::WUSR);
/// No link is followed, no pipe or device waited for, nothing handed to a child.
pub(crate) const PLAIN: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
/// The bit that keeps users from each other's entries in a folder of all
/// (inode(7)).
const STICKY: u32 = 0o1000;
/// What helps where something else has the name of what is to be there.
const MOVE: &str = "move it away, and imgbuild makes a new one";

/// What others may do in a folder besides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// See what is in it.
    Look,
    Nothing,
}

/// A folder of this user alone, held open.
#[derive(Debug)]
pub struct Private {
    folder: File,
    path: PathBuf,
}

/// Why a folder or a file in it is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// Somebody else may have made or changed it.
    #[error("{} {why}: {remedy}", path.display())]
    Refused {
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What the user may do about it.
        remedy: String,
    },
    /// It could not be opened, made or read.
    #[error("cannot open or write {}: {source}", path.display())]
    Failed { path: PathBuf, source: io::Error },
}

/// Makes a folder, and those that it is in, for this user alone whatever the umask:
/// one that others may write to would be refused by the next who opens it.
pub(crate) fn make_all(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER.bits())
        .create(folder)
}

impl Private {
    /// Opens a folder; `None` if there is none.
    pub fn open(path: &Path, others: Others) -> Result<Option<Self>, PrivateError> {
        let Some((parent, name)) = parent(path)? else {
            return Ok(None);
        };
        open_in(parent.as_fd(), name, path, others)
    }

    /// Opens a folder, and makes it and those that it is in where they are not
    /// there.
    pub fn make(path: &Path, others: Others) -> Result<Self, PrivateError> {
        if let Some(folder) = path.parent()
            && !folder.exists()
        {
            make_all(folder).map_err(|error| failed(folder, error))?;
        }
        let Some((parent, name)) = parent(path)? else {
            return Err(failed(path, io::ErrorKind::NotFound.into()));
        };
        make_in(parent.as_fd(), name, path, others)
    }

    /// Opens a folder in this one; `None` if there is none.
    pub fn folder(&self, name: impl AsRef<OsStr>) -> Result<Option<Self>, PrivateError> {
        let path = self.path.join(name.as_ref());
        open_in(self.folder.as_fd(), name.as_ref(), &path, Others::Look)
    }

    /// The same, made if it is not there.
    pub fn make_folder(&self, name: impl AsRef<OsStr>) -> Result<Self, PrivateError> {
        let path = self.path.join(name.as_ref());
        make_in(self.folder.as_fd(), name.as_ref(), &path, Others::Look)
    }

    /// By what name it was opened, which may be another's by now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to what is in this very folder, whatever becomes of its name;
    /// for this process, and for as long as this value is there.
    pub fn within(&self, name: impl AsRef<Path>) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.folder.as_raw_fd().to_string())
            .join(name)
    }

    /// Opens a file in this folder: of this user's, a plain one without another
    /// name, and closed to others. `None` if there is none.
    pub fn file(&self, name: &str, access: OFlags) -> Result<Option<File>, PrivateError> {
        let path = self.path.join(name);
        let file = match openat(&self.folder, name, access | PLAIN, FILE) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                return Err(refused(
                    &path,
                    "is a symbolic link",
                    "find out who made it, and remove it",
                ));
            }
            Err(Errno::ISDIR) => return Err(refused(&path, "is not a file", MOVE)),
            file => File::from(file.map_err(|errno| failed(&path, errno.into()))?),
        };
        let metadata = file.metadata().map_err(|error| failed(&path, error))?;
        if !metadata.is_file() {
            return Err(refused(&path, "is not a file", MOVE));
        }
        belongs_to_us(&metadata, &path)?;
        has_mode(&metadata, FILE.bits(), &path)?;
        if metadata.nlink() != 1 {
            let remedy = "find out who made that name, and remove it";
            return Err(refused(&path, "has another name (hard link)", remedy));
        }
        Ok(Some(file))
    }

    /// Reads such a file; one of more than `most` bytes is refused.
    pub fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, PrivateError> {
        let path = self.path.join(name);
        let Some(file) = self.file(name, OFlags::RDONLY)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(most + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(&path, error))?;
        if bytes.len() as u64 > most {
            return Err(refused(
                &path,
                &format!("is longer than {most} bytes"),
                MOVE,
            ));
        }
        Ok(Some(bytes))
    }

    /// Puts a file of these bytes in the place of another, whole or not at all,
    /// and returns once that outlives a crash of the host. `about_to` is called
    /// before the last step.
    pub fn replace(&self, name: &str, bytes: &[u8], about_to: impl FnOnce()) -> io::Result<()> {
        let next = format!("{name}.new");
        // What a killed one left.
        self.remove(&next)?;
        let path = self.within(name);
        let new = durable::beside(Builder::new().prefix(&next).rand_bytes(0), &path, bytes)?;
        // The umask may have taken from it.
        rustix::fs::fchmod(new.as_file(), FILE)?;
        about_to();
        durable::persist(new, &path).map(drop)
    }

    /// Sees to it that this folder holds nothing of that name; of a folder,
    /// what is in it goes too, and a link goes itself.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = name.as_ref();
        match unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if_there(fs::remove_dir_all(self.within(name))).map(drop)
    }

    /// Removes a folder of sockets in this one, and nothing but sockets with it;
    /// it is an error if it holds anything else.
    pub fn remove_sockets(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let folder = match self.folder(name.as_ref()) {
            Ok(Some(folder)) => folder,
            Ok(None) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        };
        for entry in fs::read_dir(folder.within(""))? {
            let entry = entry?;
            if entry.file_type()?.is_socket() {
                folder.remove(entry.file_name())?;
            }
        }
        match unlinkat(&self.folder, name.as_ref(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Returns once what was made and removed in it outlives a crash of the host.
    pub fn sync(&self) -> io::Result<()> {
        self.folder.sync_all()
    }
}

/// Whether a socket that was connected to is one that this user, or root,
/// listens on (`SO_PEERCRED`, unix(7)), or the user id of a guest's own: whatever
/// stood where it was looked for.
pub(crate) fn is_served_by_us(socket: impl AsFd, guest: Option<u32>) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?.uid;
    if peer == geteuid() || peer.is_root() || Some(peer.as_raw()) == guest {
        return Ok(());
    }
    let peer = peer.as_raw();
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("user {peer} listens there, and not the user who launched the fleet"),
    ))
}

/// The folder that `path` is in, judged, and the name of `path` in it; `None`
/// if there is none.
fn parent(path: &Path) -> Result<Option<(File, &OsStr)>, PrivateError> {
    let Some(name) = path.file_name() else {
        let why = "has no name inside another folder";
        return Err(refused(path, why, "give a folder that has one"));
    };
    let folder = folder_of(path);
    // Where links on the way to it lead is for who made them to say, who is
    // judged by where they lead.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat(CWD, folder, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        parent => File::from(parent.map_err(|errno| failed(folder, errno.into()))?),
    };
    let metadata = parent.metadata().map_err(|error| failed(folder, error))?;
    if metadata.uid() != 0 {
        belongs_to_us(&metadata, folder)?;
    }
    let mode = metadata.mode();
    if mode & 0o002 != 0 && mode & STICKY == 0 {
        return Err(refused(
            folder,
            &format!(
                "can be written to by everybody (mode {:04o})",
                mode & 0o7777
            ),
            &format!(
                "check who put what into it, then `chmod o-w {}`",
                folder.display()
            ),
        ));
    }
    Ok(Some((parent, name)))
}

fn open_in(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    others: Others,
) -> Result<Option<Private>, PrivateError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | PLAIN;
    let folder = match openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            let why = "is a link or a file, and not a folder";
            return Err(refused(path, why, MOVE));
        }
        folder => File::from(folder.map_err(|errno| failed(path, errno.into()))?),
    };
    let metadata = folder.metadata().map_err(|error| failed(path, error))?;
    belongs_to_us(&metadata, path)?;
    let mode = metadata.mode() & 0o7777;
    match others {
        Others::Nothing => has_mode(&metadata, FOLDER.bits(), path)?,
        Others::Look if mode & 0o022 != 0 => {
            return Err(refused(
                path,
                &format!("can be written to by others (mode {mode:04o})"),
                &format!(
                    "check who put what into it, then `chmod go-w {}`",
                    path.display()
                ),
            ));
        }
        Others::Look => {}
    }
    let path = path.to_path_buf();
    Ok(Some(Private { folder, path }))
}

fn make_in(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    others: Others,
) -> Result<Private, PrivateError> {
    // Somebody may remove it in between, who is one of ours.
    loop {
        match mkdirat(parent, name, FOLDER) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(path, errno.into())),
        }
        if let Some(folder) = open_in(parent, name, path, others)? {
            return Ok(folder);
        }
    }
}

fn belongs_to_us(metadata: &Metadata, path: &Path) -> Result<(), PrivateError> {
    let (owner, us) = (metadata.uid(), geteuid().as_raw());
    if owner == us {
        return Ok(());
    }
    Err(refused(
        path,
        &format!("belongs to user {owner}, and imgbuild runs as user {us}"),
        &format!(
            "run imgbuild as user {owner}, or name a folder of yours by XDG_STATE_HOME, \
             XDG_CACHE_HOME or XDG_RUNTIME_DIR"
        ),
    ))
}

fn has_mode(metadata: &Metadata, mode: u32, path: &Path) -> Result<(), PrivateError> {
    let found = metadata.mode() & 0o7777;
    if found == mode {
        return Ok(());
    }
    Err(refused(
        path,
        &format!("has mode {found:04o}, not {mode:04o}"),
        &format!(
            "check what is in it, then `chmod {mode:04o} {}`",
            path.display()
        ),
    ))
}

fn refused(path: &Path, why: &str, remedy: &str) -> PrivateError {
    PrivateError::Refused {
        path: path.to_path_buf(),
        why: why.to_owned(),
        remedy: remedy.to_owned(),
    }
}

fn failed(path: &Path, source: io::Error) -> PrivateError {
    PrivateError::Failed {
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests;
