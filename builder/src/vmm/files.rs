//! The open files, not paths, that a guest's VMM is handed when it starts.
//!
//! So the VMM needs no right to any folder, and no path has to be escaped for it.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::fcntl_dupfd_cloexec;

/// Open files for one guest.
#[derive(Debug)]
pub struct Files {
    /// Kernel image, opened again by QEMU: see [`may_read_again`]. A guest that is
    /// restored does not run it, but its machine is to be as its template's was.
    pub kernel: File,
    /// Initramfs, opened again by QEMU, likewise.
    pub initramfs: File,
    /// What its RAM is.
    pub ram: Ram,
    /// Its disk.
    pub disk: Option<Disk>,
    /// The identity blob, opened again by QEMU: see [`hand_over`].
    pub identity: Option<File>,
    /// Where its console is to be reached; it listens already.
    pub console: Listening,
    /// Where its VMM is to be asked about it; it listens already.
    pub monitor: Listening,
    /// Where the VMM's complaints go.
    pub errors: File,
    /// A queue of its tap, with [`super::Net::Tap`].
    pub tap: Option<OwnedFd>,
}

/// What a guest's RAM is.
#[derive(Debug)]
pub enum Ram {
    /// Memory of its own, empty.
    Own,
    /// A file, which keeps what the guest writes: others are to be restored from it.
    /// QEMU opens it again.
    Kept(File),
    /// That of a template, from which the guest is restored.
    Template {
        /// The template's RAM, sealed: where the guest writes, it gets a copy (mmap(2),
        /// `MAP_PRIVATE`). QEMU opens it again.
        memory: File,
        /// The state of its machine, opened for this guest alone: QEMU reads it to its
        /// end and closes it.
        state: File,
        /// The same, to be held only.
        kept_state: File,
    },
}

/// A socket that listens, and its file (`O_PATH`, open(2)), which leads to it for
/// as long as the VMM holds it, whatever becomes of its name.
#[derive(Debug)]
pub struct Listening {
    /// The socket.
    pub listener: UnixListener,
    /// Its file.
    pub file: OwnedFd,
}

/// A guest's disk. Both files are used as they are handed over, and need no
/// right of the VMM's user. Each is to be opened for this guest alone: QEMU's
/// locks belong to the open file (fcntl(2), open file description locks).
#[derive(Debug)]
pub struct Disk {
    /// The qcow2 file that is this guest's own, open for reading and writing.
    pub overlay: File,
    /// The qcow2 file under it, open for reading.
    pub base: File,
}

/// A file of a VMM's, which finds it at a descriptor of the same number in
/// every guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The console's listening socket.
    Console = 3,
    /// Kernel image.
    Kernel,
    /// Initramfs.
    Initramfs,
    /// Identity blob.
    Identity,
    /// The disk's own file.
    Overlay,
    /// The file under it.
    Base,
    /// The tap's queue.
    Tap,
    /// The monitor's listening socket.
    Monitor,
    /// The file of the console's socket, which QEMU only holds.
    ConsoleFile,
    /// The file of the monitor's, likewise.
    MonitorFile,
    /// RAM that is a file.
    Memory,
    /// The state of the template's machine.
    State,
    /// The same, which QEMU only holds.
    KeptState,
}

impl Part {
    /// The last one.
    pub const LAST: Self = Self::KeptState;

    /// Its descriptor in the VMM.
    pub fn descriptor(self) -> i32 {
        self as i32
    }

    /// A path to it, if the VMM with this process id lives and holds it
    /// (proc_pid_fd(5)).
    pub fn held_by(self, pid: u32) -> PathBuf {
        PathBuf::from(format!("/proc/{pid}/fd/{}", self.descriptor()))
    }
}

/// A file that a VMM's process uses before it is QEMU, at a descriptor that none
/// of [`Files`] takes there.
pub fn out_of_the_way(file: &impl AsFd) -> io::Result<File> {
    Ok(fcntl_dupfd_cloexec(file, Part::LAST.descriptor() + 1)?.into())
}

impl Files {
    /// What is mapped to a descriptor by number, and the file of the VMM's
    /// complaints.
    pub(crate) fn into_parts(self) -> (Vec<(Part, OwnedFd)>, File) {
        let (overlay, base) = self.disk.map(|disk| (disk.overlay, disk.base)).unzip();
        let [memory, state, kept_state] = match self.ram {
            Ram::Own => [None, None, None],
            Ram::Kept(memory) => [Some(memory), None, None],
            Ram::Template {
                memory,
                state,
                kept_state,
            } => [memory, state, kept_state].map(Some),
        };
        let parts = [
            (Part::Console, Some(self.console.listener.into())),
            (Part::Kernel, Some(self.kernel.into())),
            (Part::Initramfs, Some(self.initramfs.into())),
            (Part::Identity, self.identity.map(OwnedFd::from)),
            (Part::Overlay, overlay.map(OwnedFd::from)),
            (Part::Base, base.map(OwnedFd::from)),
            (Part::Tap, self.tap),
            (Part::Monitor, Some(self.monitor.listener.into())),
            (Part::ConsoleFile, Some(self.console.file)),
            (Part::MonitorFile, Some(self.monitor.file)),
            (Part::Memory, memory.map(OwnedFd::from)),
            (Part::State, state.map(OwnedFd::from)),
            (Part::KeptState, kept_state.map(OwnedFd::from)),
        ];
        let given = parts
            .into_iter()
            .filter_map(|(part, file)| Some((part, file?)))
            .collect();
        (given, self.errors)
    }
}

/// The right to read, in every class of a mode (inode(7)).
const EVERYBODY: u32 = 0o444;

/// Whether a VMM may open `file` again, by the descriptor that it is handed, whatever
/// user it runs as. That passes by the folders above it (proc_pid_fd(5)), but not by
/// the file's own mode.
pub(crate) fn may_read_again(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.mode() & EVERYBODY == EVERYBODY)
}

/// What user and group `uid` may do with a file of this mode, owner and group
/// (inode(7)), as the last three bits of a mode: the first class that fits
/// decides.
pub(crate) fn rights(mode: u32, owner: u32, group: u32, uid: u32) -> u32 {
    let class = if owner == uid {
        6
    } else if group == uid {
        3
    } else {
        0
    };
    mode >> class & 0o7
}

/// Lets a VMM that runs as user and group `uid` read the file at `path`, which
/// is not a link: it gets that group and mode 0640. It stays its owner's, so that
/// the VMM cannot change what it will be given at the next start.
pub fn hand_over(path: &Path, uid: u32) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    // The group first: the old one must not read it for a moment.
    fchown(&file, None, Some(uid))?;
    file.set_permissions(Permissions::from_mode(0o640))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn parts_are_numbered_one_after_the_other_from_the_first_free_descriptor() {
        let parts = [
            Part::Console,
            Part::Kernel,
            Part::Initramfs,
            Part::Identity,
            Part::Overlay,
            Part::Base,
            Part::Tap,
            Part::Monitor,
            Part::ConsoleFile,
            Part::MonitorFile,
            Part::Memory,
            Part::State,
            Part::LAST,
        ];
        assert!(parts.into_iter().map(Part::descriptor).eq(3..=15));
    }

    #[test]
    fn what_a_child_uses_is_not_replaced_by_what_it_is_handed() {
        let file = out_of_the_way(&File::open("/dev/null").unwrap()).unwrap();
        assert!(file.as_raw_fd() > Part::LAST.descriptor());
    }

    #[test]
    fn the_first_class_that_fits_decides_what_a_user_may() {
        for (mode, owner, group, may) in [
            (0o444, 0, 0, 0o4),
            (0o440, 0, 0, 0),
            (0o440, 0, 7, 0o4),
            (0o404, 0, 7, 0),
            (0o400, 7, 0, 0o4),
            (0o044, 7, 7, 0),
            (0o4751, 0, 0, 0o1),
        ] {
            assert_eq!(
                rights(mode, owner, group, 7),
                may,
                "{mode:o} {owner} {group}"
            );
        }
    }

    #[test]
    fn a_file_that_is_handed_over_can_be_read_and_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g00000");
        std::fs::write(&path, "identity").unwrap();
        let own = rustix::process::getgid().as_raw();
        hand_over(&path, own).unwrap();
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o640, own));
        assert_eq!(rights(0o640, 0, 70_000, 70_000), 0o4);
        // What a link leads to is not touched.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(hand_over(&link, own).is_err());
    }
}
