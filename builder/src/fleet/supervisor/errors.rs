//! Which guests' VMMs wrote to stderr.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::inotify;

use crate::units::GuestIndex;

/// Most reads of what was written before others are heard: some thousands of
/// writes, where a flood would go on for ever.
const READS_A_TURN: usize = 32;

/// The folder of the files that VMMs write to, watched by inotify(7).
#[derive(Debug)]
pub(super) struct Errors(OwnedFd);

/// What was written since the last time.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// By these guests' VMMs.
    pub by: BTreeSet<GuestIndex>,
    /// And by any other, since the kernel lost count.
    pub by_any: bool,
    /// There is more to be told than one turn takes.
    pub more: bool,
}

impl Errors {
    /// Watches the files in `folder`.
    pub fn watch(folder: &Path) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&watch, folder, inotify::WatchFlags::MODIFY)?;
        Ok(Self(watch))
    }

    /// Who wrote.
    pub fn read(&self) -> Written {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut written = Written::default();
        let mut reads = 0;
        loop {
            if reader.is_buffer_empty() {
                written.more = reads == READS_A_TURN;
                if written.more {
                    return written;
                }
                reads += 1;
            }
            let Ok(event) = reader.next() else {
                return written;
            };
            written.by_any |= event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
            let name = event.file_name().and_then(|name| name.to_str().ok());
            written
                .by
                .extend(name.and_then(|name| name.parse::<GuestIndex>().ok()));
        }
    }
}

impl AsRawFd for Errors {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_flood_takes_several_turns() {
        let folder = tempfile::tempdir().unwrap();
        let errors = Errors::watch(folder.path()).unwrap();
        // Two in turn, since the kernel joins what is the same.
        for _ in 0..3000 {
            for name in ["g00001", "g00002"] {
                fs::write(folder.path().join(name), "x").unwrap();
            }
        }
        let both = ["g00001", "g00002"].map(|name| name.parse().unwrap());
        let first = errors.read();
        assert!(first.more);
        assert_eq!(first.by, BTreeSet::from(both));
        fs::write(folder.path().join("g00003"), "x").unwrap();
        fs::write(folder.path().join("other"), "x").unwrap();
        let mut last = errors.read();
        while last.more {
            last = errors.read();
        }
        assert!(last.by.contains(&"g00003".parse().unwrap()));
        assert!(errors.read().by.is_empty());
    }
}
