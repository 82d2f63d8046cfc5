//! Watches by inotify(7) which guests' VMMs write to stderr, and whether the
//! fleet's sockets are removed.

use std::collections::BTreeSet;
use std::ffi::{CStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::inotify;

use crate::units::GuestIndex;

/// Most reads of what was written before others are heard: some thousands of
/// writes, where a flood would go on for ever.
const READS_A_TURN: usize = 32;

/// The folder of the files that VMMs write to, and that of the fleet's sockets,
/// watched.
#[derive(Debug)]
pub(crate) struct Errors {
    watch: OwnedFd,
    /// The watch of the sockets' folder, and the one of them by whose absence it
    /// is known that somebody tidied up.
    sockets: Option<(i32, OsString)>,
}

/// What was written since the last time.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// By these guests' VMMs.
    pub by: BTreeSet<GuestIndex>,
    /// And by any other, since the kernel lost count.
    pub by_any: bool,
    /// The folder of sockets, or the socket that was named, is gone or moved.
    pub sockets_gone: bool,
    /// There is more news than one turn takes.
    pub more: bool,
}

impl Errors {
    /// Watches the files in `folder`.
    pub(super) fn watch(folder: &Path) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&watch, folder, inotify::WatchFlags::MODIFY)?;
        let sockets = None;
        Ok(Self { watch, sockets })
    }

    /// Watches the folder of this socket, too, and no other any more.
    pub(super) fn watch_sockets(&mut self, socket: &Path) -> io::Result<()> {
        use inotify::WatchFlags as Flags;
        if let Some((before, _)) = self.sockets.take() {
            // It went with what it watched, in most cases.
            let _ = inotify::remove_watch(&self.watch, before);
        }
        let folder = socket.parent().unwrap_or(socket);
        let name = socket.file_name().unwrap_or_default().to_os_string();
        let flags = Flags::DELETE | Flags::MOVED_FROM | Flags::DELETE_SELF | Flags::MOVE_SELF;
        let watch = inotify::add_watch(&self.watch, folder, flags | Flags::ONLYDIR)?;
        self.sockets = Some((watch, name));
        Ok(())
    }

    pub(super) fn read(&self) -> Written {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.watch, &mut buffer);
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
            if let Some((sockets, control)) = &self.sockets
                && event.wd() == *sockets
            {
                let name = event.file_name().map(CStr::to_bytes);
                // Guests' sockets go with them; an event without a name is the
                // folder's.
                written.sockets_gone |= name.is_none_or(|name| name == control.as_bytes());
                continue;
            }
            let name = event.file_name().and_then(|name| name.to_str().ok());
            written
                .by
                .extend(name.and_then(|name| name.parse::<GuestIndex>().ok()));
        }
    }
}

impl AsRawFd for Errors {
    fn as_raw_fd(&self) -> RawFd {
        self.watch.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sockets_that_go_are_reported_with_their_folder_or_without() {
        type Tidy = fn(&Path);
        let tidied: [Tidy; 4] = [
            |folder| fs::remove_file(folder.join("control")).unwrap(),
            |folder| fs::remove_dir_all(folder).unwrap(),
            |folder| fs::rename(folder, folder.with_extension("moved")).unwrap(),
            |folder| fs::rename(folder.join("control"), folder.join("other")).unwrap(),
        ];
        for tidy in tidied {
            let temporary = tempfile::tempdir().unwrap();
            let mut errors = Errors::watch(temporary.path()).unwrap();
            let folder = temporary.path().join("sockets");
            fs::create_dir(&folder).unwrap();
            for name in ["control", "g00001.console"] {
                fs::write(folder.join(name), "").unwrap();
            }
            errors.watch_sockets(&folder.join("control")).unwrap();
            fs::remove_file(folder.join("g00001.console")).unwrap();
            assert!(!errors.read().sockets_gone);
            tidy(&folder);
            assert!(errors.read().sockets_gone);
            // Made again, it is watched again.
            let _ = fs::create_dir(&folder);
            fs::write(folder.join("control"), "").unwrap();
            errors.watch_sockets(&folder.join("control")).unwrap();
            let _ = errors.read();
            fs::remove_file(folder.join("control")).unwrap();
            assert!(errors.read().sockets_gone);
        }
    }

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
