//! The overlay disk.

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use tty_init::protocol::DeviceState;

use crate::console::Console;
use crate::failure::Context;
use crate::userland;

/// Mounts the disk, if there is one, on /disk or as the `root`.
pub(crate) fn mount(root: bool, console: &mut Console) -> DeviceState {
    let mounted = rustix::mount::mount(
        c"/dev/vda",
        c"/disk",
        c"ext4",
        MountFlags::NOATIME,
        // The kernel would write inode tables in the background: wakeups, and
        // blocks in every overlay.
        c"noinit_itable",
    );
    if mounted == Err(Errno::NOENT) {
        if root {
            console.log(format_args!(
                "/dev/vda: no disk, and so no root file system"
            ));
        }
        return DeviceState::Absent;
    }
    let mounted = mounted.context("/dev/vda: mount on /disk").and_then(|()| {
        if root {
            userland::switch_root()
        } else {
            Ok(())
        }
    });
    match mounted {
        Ok(()) => DeviceState::Up,
        Err(failure) => {
            console.log(format_args!("{failure}"));
            DeviceState::Failed
        }
    }
}

/// Leaves the disk clean, mounted or not.
pub(crate) fn unmount() {
    rustix::fs::sync();
    if rustix::mount::unmount(c"/disk", UnmountFlags::empty()).is_err() {
        // Somebody has a file open there, or it is the root.
        for path in [c"/disk", c"/"] {
            let _ = rustix::mount::mount_remount(path, MountFlags::RDONLY, c"");
        }
    }
}
