//! Capped logs of guests' consoles and of a supervisor.
//!
//! A full log is renamed to `gNNNNN.log.1` and replaces the previous one of that
//! name, so a guest that prints without end takes at most twice the cap. Logs hold
//! exactly what the guest printed, control characters included.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::fstat;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::stdio::{dup2_stderr, stderr};

use crate::interrupt::{Interrupt, poll_until};
use crate::plain::if_there;

/// Most bytes of a log, unless something else is asked for.
pub(crate) const CAP: u64 = 256 << 10;
/// Most bytes of a supervisor's log before it is put aside.
const SUPERVISOR_CAP: u64 = 4 << 20;
/// Most bytes of which the last lines are looked for.
const TAIL_MAX: u64 = 4 << 20;

/// Adds whole lines to a log, and makes it, readable by its owner alone, if it
/// is not there. No file stays open.
///
/// Where the log would grow past `cap` bytes, it is put aside first; of lines
/// that take more than that, the last `cap` bytes are kept. Lines that were not
/// written whole, as on a full disk, are not written at all.
pub(crate) fn append(path: &Path, lines: &[u8], cap: u64) -> io::Result<()> {
    let cap = usize::try_from(cap).unwrap_or(usize::MAX);
    let lines = &lines[lines.len().saturating_sub(cap)..];
    let mut file = open(path)?;
    let mut length = file.metadata()?.len();
    if length > 0 && length + lines.len() as u64 > cap as u64 {
        fs::rename(path, older(path))?;
        file = open(path)?;
        length = 0;
    }
    file.write_all(lines).inspect_err(|_| {
        // Of two errors the first one tells more.
        let _ = file.set_len(length);
    })
}

/// Puts `log` aside if it is what this process writes its messages to, and is
/// full; where that fails, it is to take no more.
pub(crate) fn put_own_aside(log: &Path) -> io::Result<()> {
    let own = fstat(stderr())?;
    if u64::try_from(own.st_size).unwrap_or(0) < SUPERVISOR_CAP {
        return Ok(());
    }
    let Some(found) = if_there(fs::metadata(log))? else {
        // A supervisor in the foreground has none.
        return Ok(());
    };
    if (own.st_dev, own.st_ino) != (found.dev(), found.ino()) {
        return Ok(());
    }
    let aside = older(log);
    fs::rename(log, &aside)?;
    let new = open(log).inspect_err(|_| {
        // So that it is found, and found full, the next time.
        let _ = fs::rename(&aside, log);
    })?;
    Ok(dup2_stderr(new)?)
}

/// The last `lines` lines of a log as they stand there, oldest first, and fewer
/// where there are no more, or they are not within its last 4 MiB. A log that
/// was never written has none.
pub(crate) fn tail(path: &Path, lines: usize) -> io::Result<Vec<u8>> {
    let (bytes, _) = last(path, lines)?;
    Ok(bytes)
}

/// Hands `on_bytes` the last `lines` lines of a log, and then what is added to
/// it, until the interrupt, an error, the end of the log's folder, or until
/// nobody reads the other end of `output`.
///
/// Who takes it slower than a guest fills a log twice loses what was put aside
/// meanwhile.
pub(crate) fn follow(
    path: &Path,
    lines: usize,
    output: impl AsFd,
    interrupt: &Interrupt,
    mut on_bytes: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let changes = Changes::of(path)?;
    let (bytes, mut log) = last(path, lines)?;
    on_bytes(&bytes)?;
    changes.watch(path)?;
    loop {
        // Before the log is read: what is written after that wakes us again.
        let is_removed = changes.take()?;
        if let Some(mut open) = log.take() {
            let has_name = open.metadata()?.nlink() > 0;
            copy(&mut open, &mut on_bytes)?;
            // An open file keeps its folder from going even when it has no name.
            log = has_name.then_some(open);
        }
        if let Some(new) = replaced(path, log.as_ref())? {
            // Nothing is added any more to a log that was put aside.
            if let Some(log) = &mut log {
                copy(log, &mut on_bytes)?;
            }
            log = Some(new);
            changes.watch(path)?;
            continue;
        }
        if is_removed {
            return Ok(());
        }
        let mut waited = [
            PollFd::new(&changes.inotify, PollFlags::IN),
            PollFd::new(interrupt, PollFlags::IN),
            // Its end comes unasked.
            PollFd::new(&output, PollFlags::empty()),
        ];
        poll_until(&mut waited, None)?;
        if interrupt.requested() || !waited[2].revents().is_empty() {
            return Ok(());
        }
    }
}

/// Tells when there is more of a log to read.
struct Changes {
    inotify: OwnedFd,
    folder: i32,
}

impl Changes {
    /// A log that comes or goes is noticed by its folder, one that grows by itself:
    /// the folder would tell of every guest's.
    fn of(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        let folder = inotify::add_watch(&inotify, folder, flags)?;
        Ok(Self { inotify, folder })
    }

    /// Tells from now on of what is added to the log, if there is one.
    fn watch(&self, path: &Path) -> io::Result<()> {
        match inotify::add_watch(&self.inotify, path, WatchFlags::MODIFY) {
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes what was noticed; whether the folder is gone, and its watch with it.
    fn take(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut is_removed = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    is_removed |=
                        event.wd() == self.folder && event.events().contains(ReadFlags::IGNORED);
                }
                Err(Errno::AGAIN) => return Ok(is_removed),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Where a log is put that is full.
fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// The last lines of a log, and the log itself, read to there.
fn last(path: &Path, lines: usize) -> io::Result<(Vec<u8>, Option<File>)> {
    let (mut log, aside) = both(path)?;
    let mut newer = Vec::new();
    if let Some(log) = &mut log {
        read_end(log, TAIL_MAX, &mut newer)?;
    }
    let mut bytes = Vec::new();
    if let Some(mut aside) = aside {
        read_end(&mut aside, TAIL_MAX - newer.len() as u64, &mut bytes)?;
    }
    bytes.append(&mut newer);
    let start = start_of_last(&bytes, lines);
    bytes.drain(..start);
    Ok((bytes, log))
}

/// A log and the one that was put aside before, which are not the same file.
fn both(path: &Path) -> io::Result<(Option<File>, Option<File>)> {
    loop {
        let log = existing(path)?;
        let aside = existing(&older(path))?;
        let is_same = match (&log, &aside) {
            (Some(log), Some(aside)) => log.metadata()?.ino() == aside.metadata()?.ino(),
            _ => false,
        };
        if !is_same {
            return Ok((log, aside));
        }
    }
}

fn existing(path: &Path) -> io::Result<Option<File>> {
    if_there(File::open(path))
}

/// Reads the last bytes of a file, and no more than `most`.
fn read_end(file: &mut File, most: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    file.take(most).read_to_end(bytes)?;
    Ok(())
}

/// Where the last `lines` lines begin.
fn start_of_last(bytes: &[u8], lines: usize) -> usize {
    if lines == 0 {
        return bytes.len();
    }
    // The end of the last line begins no other.
    let inner = &bytes[..bytes.len().saturating_sub(1)];
    let feeds = inner.iter().enumerate().rev();
    let mut feeds = feeds.filter(|(_, byte)| **byte == b'\n');
    feeds.nth(lines - 1).map_or(0, |(at, _)| at + 1)
}

/// The log, if it is another than the one that is read.
fn replaced(path: &Path, log: Option<&File>) -> io::Result<Option<File>> {
    let Some(found) = existing(path)? else {
        return Ok(None);
    };
    let is_same = match log {
        Some(log) => log.metadata()?.ino() == found.metadata()?.ino(),
        None => false,
    };
    Ok((!is_same).then_some(found))
}

/// Hands over what was not read yet.
fn copy(log: &mut File, on_bytes: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        match log.read(&mut buffer)? {
            0 => return Ok(()),
            length => on_bytes(&buffer[..length])?,
        }
    }
}

#[cfg(test)]
mod tests;
