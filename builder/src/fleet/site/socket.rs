//! The sockets of guests' consoles and monitors.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::plain::if_there;
use crate::private::is_served_by_us;
use crate::vmm::Listening;
use crate::vmm::running::is_out_of_reach;

/// A socket of a guest's in the place of an earlier life's, closed to others.
pub(super) fn listener(path: &Path) -> io::Result<Listening> {
    if_there(fs::remove_file(path))?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(Listening { listener, file })
}

/// Connects to a socket of a guest's: by its name, or, where that is gone, by
/// the VMM's own hold on it.
pub(super) fn reach<T>(
    name: &Path,
    by_vmm: &Path,
    mut connect: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<T> {
    match connect(name) {
        Err(error) if is_out_of_reach(&error) => connect(by_vmm).map_err(|_| error),
        other => other,
    }
}

/// Connects to a socket without waiting for a VMM that accepts nobody.
pub(super) fn connect(path: &Path, user: Option<u32>) -> io::Result<UnixStream> {
    let socket = socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    is_served_by_us(&socket, user)?;
    Ok(socket)
}

/// A socket that waits for nothing.
pub(super) fn socket() -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?.into())
}
