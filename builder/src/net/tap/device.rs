//! `/dev/net/tun` (kernel document networking/tuntap).

use std::ffi::{c_int, c_uint};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl, opcode};

const DEVICE: &str = "/dev/net/tun";

/// Requests of the kernel's include/uapi/linux/if_tun.h.
const TUNSETIFF: Opcode = opcode::write::<c_int>(b'T', 202);
const TUNSETPERSIST: Opcode = opcode::write::<c_int>(b'T', 203);
const TUNSETOWNER: Opcode = opcode::write::<c_int>(b'T', 204);
const TUNGETIFF: Opcode = opcode::read::<c_uint>(b'T', 210);

/// Frames as they are, behind a header by which host and guest leave checksums
/// and segments to each other (`VIRTIO_NET_F_CSUM` and such).
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// Packets as they are: no frame, no header.
const PACKETS: c_int = libc::IFF_TUN | libc::IFF_NO_PI;

/// A queue of a tap: what a VMM reads and writes.
pub(crate) struct Queue(File);

impl Queue {
    pub(crate) fn open() -> io::Result<Self> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map(Self)
    }

    /// Makes the tap `name`, which must not be there (`EBUSY`).
    pub(crate) fn create(&self, name: &str) -> io::Result<()> {
        self.set_interface(name, FLAGS | libc::IFF_TUN_EXCL)
    }

    /// Makes the interface `name` for packets without a frame, which must not be
    /// there (`EBUSY`) and goes with this queue.
    pub(crate) fn create_for_packets(&self, name: &str) -> io::Result<()> {
        self.set_interface(name, PACKETS | libc::IFF_TUN_EXCL)
    }

    /// Sends the host a packet.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.0).write_all(packet)
    }

    /// Takes a packet of the host's, or fails with `WouldBlock`.
    pub(crate) fn receive(&self, packet: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(packet)
    }

    /// Becomes the queue of the tap `name`, or fails with `EBUSY` where it has
    /// one. Without such a tap, it makes one that goes with this queue.
    pub(crate) fn attach(&self, name: &str) -> io::Result<()> {
        self.set_interface(name, FLAGS)
    }

    /// Whether the tap outlives its queue.
    pub(crate) fn is_persistent(&self) -> io::Result<bool> {
        let mut request = request("", 0);
        // SAFETY: TUNGETIFF fills in a `struct ifreq`.
        let get = unsafe { Updater::<TUNGETIFF, libc::ifreq>::new(&mut request) };
        // SAFETY: the driver writes to the request only, which outlives the call.
        unsafe { ioctl(&self.0, get) }?;
        // SAFETY: TUNGETIFF answers with the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok(c_int::from(flags.cast_unsigned()) & libc::IFF_PERSIST != 0)
    }

    /// Lets only `user`, and who has `CAP_NET_ADMIN`, attach to the tap; without
    /// an owner anybody could.
    pub(crate) fn set_owner(&self, user: u32) -> io::Result<()> {
        // SAFETY: TUNSETOWNER takes a user id by value.
        let set = unsafe { IntegerSetter::<TUNSETOWNER>::new_usize(user as usize) };
        // SAFETY: the driver reads no memory of this process.
        Ok(unsafe { ioctl(&self.0, set) }?)
    }

    /// Has the tap outlive this queue.
    pub(crate) fn persist(&self) -> io::Result<()> {
        // SAFETY: TUNSETPERSIST takes a flag by value.
        let set = unsafe { IntegerSetter::<TUNSETPERSIST>::new_usize(1) };
        // SAFETY: the driver reads no memory of this process.
        Ok(unsafe { ioctl(&self.0, set) }?)
    }

    fn set_interface(&self, name: &str, flags: c_int) -> io::Result<()> {
        let mut request = request(name, flags);
        // SAFETY: TUNSETIFF takes a `struct ifreq` and writes the name back.
        let set = unsafe { Updater::<TUNSETIFF, libc::ifreq>::new(&mut request) };
        // SAFETY: the driver reads and writes the request only, which outlives
        // the call.
        Ok(unsafe { ioctl(&self.0, set) }?)
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Queue> for OwnedFd {
    fn from(queue: Queue) -> Self {
        queue.0.into()
    }
}

/// A request on the interface `name`, which is shorter than `IFNAMSIZ`.
fn request(name: &str, flags: c_int) -> libc::ifreq {
    // SAFETY: a `struct ifreq` holds numbers only, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays zero, as the name's end.
    let room = request.ifr_name.len() - 1;
    for (place, byte) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    // The flags are an unsigned short to the driver.
    #[expect(clippy::cast_possible_truncation, reason = "16 bits are all there are")]
    let flags = flags as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    request
}
