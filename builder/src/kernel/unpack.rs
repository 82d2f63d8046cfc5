//! Kernel source archives, unpacked once into the cache.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;
use lzma_rust2::{XzReader, XzReaderMt};
use tar::{Archive, Entry, EntryType};

use super::rules;
use super::whole::Kept;
use crate::digest::Sha256;
use crate::interrupt::Interrupt;
use crate::lock::{Lock, TEMPORARY};
use crate::progress;
use crate::text::{printable_bytes, printable_error};

/// Most entries of an archive; Linux 6.12 has 92,000.
const MAX_ENTRIES: usize = 1_000_000;
/// Most bytes that an archive may grow to; Linux 6.12 has 1.6 GB.
const MAX_BYTES: u64 = 16 << 30;
/// Most blocks decoded at once; one of Debian's takes 24 MiB.
const MAX_WORKERS: u32 = 8;
const EXECUTABLE: u32 = 0o111;

/// Why there is no source tree.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("{} is not a .tar.xz or .tar.gz archive: give one, or an unpacked tree", .0.display())]
    Format(PathBuf),
    /// The archive would write where it must not.
    #[error("{}: refused: its entry `{entry}` {fault}", .archive.display())]
    Hostile {
        archive: PathBuf,
        entry: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The archive has no kernel in it.
    #[error("{} holds no kernel source: there is no Kconfig in its top folder", .0.display())]
    NoKernel(PathBuf),
    /// The archive is damaged, or the cache cannot be written.
    #[error(
        "cannot unpack {} into {}: {source}; check the archive, and the space there",
        .archive.display(), .into.display()
    )]
    Io {
        archive: PathBuf,
        into: PathBuf,
        /// What the system or the decoder said.
        source: io::Error,
    },
    /// The user asked to stop.
    #[error("interrupted while unpacking {}; nothing was kept", .0.display())]
    Interrupted(PathBuf),
}

/// The unpacked tree of `archive`, whose digest is `sha256`: at
/// `<cache>/source/<sha256>`, which is used only while it is whole.
pub(super) fn unpack(
    archive: &Path,
    sha256: &Sha256,
    cache: &Path,
    jobs: NonZero<usize>,
    interrupt: &Interrupt,
) -> Result<PathBuf, UnpackError> {
    let folder = cache.join("source");
    let kept = Kept::new(folder.join(sha256.to_string()));
    let tree = kept.tree().to_owned();
    let failed = |source| UnpackError::Io {
        archive: archive.to_owned(),
        into: folder.clone(),
        source,
    };
    let interrupted = || UnpackError::Interrupted(archive.to_owned());
    let what = format!("unpacking {}", archive.display());
    let lock = Lock::acquire(&tree.with_extension("lock"), &what, interrupt).map_err(failed)?;
    let lock = lock.ok_or_else(interrupted)?;
    if kept.is_whole() {
        return Ok(tree);
    }
    if tree.exists() {
        tracing::warn!(
            "{} may have changed since it was unpacked: unpacking it again",
            tree.display()
        );
    }
    lock.sweep(&folder);
    let temporary = tempfile::Builder::new()
        .prefix(&format!("{sha256}{TEMPORARY}"))
        .tempdir_in(&folder)
        .map_err(failed)?;
    tracing::info!("unpacking {}", archive.display());
    match Unpacking::new(temporary.path(), interrupt).run(archive, jobs) {
        Ok(()) => {}
        Err(_) if interrupt.requested() => return Err(interrupted()),
        Err(Fault::Io(source)) => return Err(failed(printable_error(source))),
        Err(Fault::Format) => return Err(UnpackError::Format(archive.to_owned())),
        Err(Fault::Hostile { entry, fault }) => {
            return Err(UnpackError::Hostile {
                archive: archive.to_owned(),
                entry,
                fault,
            });
        }
    }
    if !temporary.path().join("Kconfig").is_file() {
        return Err(UnpackError::NoKernel(archive.to_owned()));
    }
    kept.put(temporary.path()).map_err(failed)?;
    // It is there no more.
    let _ = temporary.keep();
    Ok(tree)
}

enum Fault {
    Format,
    Hostile { entry: String, fault: &'static str },
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A tree in the making.
struct Unpacking<'a> {
    root: &'a Path,
    interrupt: &'a Interrupt,
    folders: BTreeSet<PathBuf>,
    /// Made last, so that nothing is ever written through one.
    links: Vec<(PathBuf, PathBuf)>,
}

impl<'a> Unpacking<'a> {
    fn new(root: &'a Path, interrupt: &'a Interrupt) -> Self {
        Self {
            root,
            interrupt,
            folders: BTreeSet::new(),
            links: Vec::new(),
        }
    }

    fn run(mut self, archive: &Path, jobs: NonZero<usize>) -> Result<(), Fault> {
        let file = File::open(archive)?;
        let bar = progress::bytes(Some(file.metadata()?.len()), "unpacking");
        let result = self.decode(file, &bar, jobs);
        bar.finish_and_clear();
        result?;
        self.make_links()
    }

    fn decode(&mut self, file: File, bar: &ProgressBar, jobs: NonZero<usize>) -> Result<(), Fault> {
        let mut file = BufReader::with_capacity(1 << 20, bar.wrap_read(file));
        let mut magic = [0; 6];
        let read = file.read(&mut magic)?;
        file.rewind()?;
        match &magic[..read] {
            [0xfd, b'7', b'z', b'X', b'Z', 0] => self.decode_xz(file, jobs),
            [0x1f, 0x8b, ..] => self.extract(MultiGzDecoder::new(file)),
            _ => Err(Fault::Format),
        }
    }

    /// Blocks can be decoded side by side, but each is held in memory: a file of
    /// one block, as kernel.org's are, is decoded as a stream.
    fn decode_xz(&mut self, mut file: impl Read + Seek, jobs: NonZero<usize>) -> Result<(), Fault> {
        let workers = u32::try_from(jobs.get()).map_or(MAX_WORKERS, |jobs| jobs.min(MAX_WORKERS));
        let blocks = XzReaderMt::new(&mut file, true, workers)?.block_count();
        file.rewind()?;
        if blocks > 1 {
            self.extract(XzReaderMt::new(file, true, workers)?)
        } else {
            self.extract(XzReader::new(file, true))
        }
    }

    fn extract(&mut self, stream: impl Read) -> Result<(), Fault> {
        let watched = Watched {
            stream: stream.take(MAX_BYTES),
            interrupt: self.interrupt,
        };
        let mut archive = Archive::new(watched);
        for (count, entry) in archive.entries()?.enumerate() {
            let mut entry = entry?;
            if count == MAX_ENTRIES {
                return Err(hostile(&entry, "is one too many"));
            }
            self.entry(&mut entry)?;
        }
        if archive.into_inner().stream.limit() == 0 {
            return Err(io::Error::other("the archive is too large for a kernel source").into());
        }
        Ok(())
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Fault> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let named = entry.path()?.into_owned();
        let path = inside(&named).map_err(|fault| hostile(entry, fault))?;
        let is_top = path.as_os_str().is_empty();
        match kind {
            EntryType::Directory => Ok(()),
            _ if is_top => Err(hostile(entry, "is not in the archive's top folder")),
            EntryType::Regular | EntryType::Continuous if rules::is_needed(&path) => {
                self.file(entry, &path)
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.unwrap_or_default().into_owned();
                if !stays_inside(&path, &target) {
                    return Err(hostile(entry, "links out of the tree"));
                }
                if rules::is_needed(&path) {
                    self.links.push((path, target));
                }
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous => Ok(()),
            _ => Err(hostile(entry, "is not a file, folder or symbolic link")),
        }
    }

    fn file(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<(), Fault> {
        self.folder_of(path)?;
        let mode = match entry.header().mode()? & EXECUTABLE {
            0 => 0o644,
            _ => 0o755,
        };
        let mut options = File::options();
        options.write(true).create_new(true).mode(mode);
        match options.open(self.root.join(path)) {
            Ok(mut file) => {
                io::copy(entry, &mut file)?;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(hostile(entry, "is there twice"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn folder_of(&mut self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new(""));
        if !self.folders.contains(folder) {
            fs::create_dir_all(self.root.join(folder))?;
            self.folders.insert(folder.to_owned());
        }
        Ok(())
    }

    fn make_links(&mut self) -> Result<(), Fault> {
        let links = std::mem::take(&mut self.links);
        let paths: BTreeSet<_> = links.iter().map(|(path, _)| path.clone()).collect();
        for (path, target) in links {
            if path
                .ancestors()
                .skip(1)
                .any(|folder| paths.contains(folder))
            {
                return Err(Fault::Hostile {
                    entry: printable_bytes(path.as_os_str().as_bytes()),
                    fault: "lies behind a symbolic link",
                });
            }
            self.folder_of(&path)?;
            symlink(target, self.root.join(path))?;
        }
        Ok(())
    }
}

fn hostile(entry: &Entry<'_, impl Read>, fault: &'static str) -> Fault {
    Fault::Hostile {
        entry: printable_bytes(&entry.path_bytes()),
        fault,
    }
}

/// The path below the archive's top folder, which is dropped.
fn inside(path: &Path) -> Result<PathBuf, &'static str> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("has `..` in its name"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute name"),
        }
    }
    Ok(names.into_iter().skip(1).collect())
}

/// Whether a link at `path` to `target` leads to a place in the tree; `..` counts
/// only at the beginning, where no other link can bend it.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let depth = path.components().count() - 1;
    let ups = target
        .components()
        .take_while(|component| matches!(component, Component::ParentDir | Component::CurDir))
        .filter(|component| *component == Component::ParentDir)
        .count();
    ups <= depth
        && target
            .components()
            .skip_while(|component| matches!(component, Component::ParentDir | Component::CurDir))
            .all(|component| matches!(component, Component::Normal(_)))
}

/// A stream that ends with an error when the user asks to stop.
struct Watched<'a, R> {
    stream: R,
    interrupt: &'a Interrupt,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interrupt.requested() {
            return Err(io::Error::other("interrupted"));
        }
        self.stream.read(buffer)
    }
}

#[cfg(test)]
mod tests;
