//! Interface addresses and routes by ioctl (netdevice(7), rt(4)): for one
//! interface that is less code and less memory than rtnetlink.

use core::ffi::{CStr, c_char, c_short, c_ulong, c_ushort, c_void};
use core::net::Ipv4Addr;
use core::ptr;

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::ioctl::{Updater, ioctl};

const SIOCADDRT: u32 = 0x890b;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCSIFFLAGS: u32 = 0x8914;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCSIFADDR: u32 = 0x8916;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCSIFNETMASK: u32 = 0x891c;
const SIOCSIFHWADDR: u32 = 0x8924;
const SIOCGIFHWADDR: u32 = 0x8927;

const AF_INET: u16 = 2;
const ARPHRD_ETHER: u16 = 1;
/// The interface is up.
pub(crate) const IFF_UP: u16 = 1;
const RTF_UP: c_ushort = 1;
const RTF_GATEWAY: c_ushort = 2;
const RTF_HOST: c_ushort = 4;

/// An interface's name.
#[derive(Clone, Copy)]
pub(crate) struct Interface(pub &'static CStr);

/// `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

/// `struct rtentry` of a 64-bit kernel.
#[repr(C)]
struct Route {
    pad1: c_ulong,
    destination: [u8; 16],
    gateway: [u8; 16],
    mask: [u8; 16],
    flags: c_ushort,
    pad2: c_short,
    pad3: c_ulong,
    pad4: *mut c_void,
    metric: c_short,
    device: *const c_char,
    mtu: c_ulong,
    window: c_ulong,
    irtt: c_ushort,
}

impl Interface {
    /// Whether the kernel has such an interface, of type `NODEV` if not.
    pub(crate) fn flags(self, socket: impl AsFd) -> Result<u16, Errno> {
        let value = self.ask::<SIOCGIFFLAGS>(socket, [0; 24])?;
        Ok(u16::from_ne_bytes([value[0], value[1]]))
    }

    /// The hardware address.
    pub(crate) fn mac(self, socket: impl AsFd) -> Result<[u8; 6], Errno> {
        let value = self.ask::<SIOCGIFHWADDR>(socket, [0; 24])?;
        Ok(*value[2..].first_chunk().unwrap_or(&[0; 6]))
    }

    /// The address.
    pub(crate) fn address(self, socket: impl AsFd) -> Result<Ipv4Addr, Errno> {
        self.ask::<SIOCGIFADDR>(socket, [0; 24]).map(ip_of)
    }

    /// The netmask.
    pub(crate) fn netmask(self, socket: impl AsFd) -> Result<Ipv4Addr, Errno> {
        self.ask::<SIOCGIFNETMASK>(socket, [0; 24]).map(ip_of)
    }

    /// Brings the interface up, if it is not.
    pub(crate) fn up(self, socket: impl AsFd) -> Result<(), Errno> {
        let flags = self.flags(&socket)?;
        if flags & IFF_UP != 0 {
            return Ok(());
        }
        let mut value = [0; 24];
        value[..2].copy_from_slice(&(flags | IFF_UP).to_ne_bytes());
        self.ask::<SIOCSIFFLAGS>(socket, value).map(drop)
    }

    /// Sets the hardware address of an Ethernet interface that is down, or whose
    /// driver takes one at any time.
    pub(crate) fn set_mac(self, socket: impl AsFd, mac: [u8; 6]) -> Result<(), Errno> {
        let mut value = [0; 24];
        value[..2].copy_from_slice(&ARPHRD_ETHER.to_ne_bytes());
        value[2..8].copy_from_slice(&mac);
        self.ask::<SIOCSIFHWADDR>(socket, value).map(drop)
    }

    /// Sets the address.
    pub(crate) fn set_address(self, socket: impl AsFd, ip: Ipv4Addr) -> Result<(), Errno> {
        self.ask::<SIOCSIFADDR>(socket, inet_value(ip)).map(drop)
    }

    /// Sets the netmask, after the address.
    pub(crate) fn set_netmask(self, socket: impl AsFd, mask: Ipv4Addr) -> Result<(), Errno> {
        self.ask::<SIOCSIFNETMASK>(socket, inet_value(mask))
            .map(drop)
    }

    /// Adds a route to one host that the interface reaches without a gateway.
    pub(crate) fn add_host_route(self, socket: impl AsFd, host: Ipv4Addr) -> Result<(), Errno> {
        let nowhere = Ipv4Addr::UNSPECIFIED;
        self.add_route(socket, host, nowhere, RTF_UP | RTF_HOST)
    }

    /// Adds the default route by this gateway.
    pub(crate) fn add_default_route(
        self,
        socket: impl AsFd,
        gateway: Ipv4Addr,
    ) -> Result<(), Errno> {
        let everywhere = Ipv4Addr::UNSPECIFIED;
        self.add_route(socket, everywhere, gateway, RTF_UP | RTF_GATEWAY)
    }

    fn add_route(
        self,
        socket: impl AsFd,
        destination: Ipv4Addr,
        gateway: Ipv4Addr,
        flags: c_ushort,
    ) -> Result<(), Errno> {
        let mut route = Route {
            pad1: 0,
            destination: inet(destination),
            gateway: inet(gateway),
            mask: inet(Ipv4Addr::UNSPECIFIED),
            flags,
            pad2: 0,
            pad3: 0,
            pad4: ptr::null_mut(),
            metric: 0,
            device: self.0.as_ptr(),
            mtu: 0,
            window: 0,
            irtt: 0,
        };
        // SAFETY: SIOCADDRT reads an rtentry, which `Route` is, and the name of
        // the device, which ends with a NUL.
        let request = unsafe { Updater::<SIOCADDRT, Route>::new(&mut route) };
        // SAFETY: the kernel reads `route` and the name alone.
        unsafe { ioctl(socket, request) }
    }

    /// One of the ioctls that take an ifreq; gives the value that comes back.
    fn ask<const OPERATION: u32>(
        self,
        socket: impl AsFd,
        value: [u8; 24],
    ) -> Result<[u8; 24], Errno> {
        let mut request = Request {
            name: [0; 16],
            value,
        };
        let name = self.0.to_bytes_with_nul();
        request
            .name
            .get_mut(..name.len())
            .ok_or(Errno::NAMETOOLONG)?
            .copy_from_slice(name);
        // SAFETY: every operation of this module but SIOCADDRT reads or writes
        // an ifreq, which `Request` is.
        let updater = unsafe { Updater::<OPERATION, Request>::new(&mut request) };
        // SAFETY: the kernel touches `request` alone.
        unsafe { ioctl(socket, updater) }?;
        Ok(request.value)
    }
}

/// A `sockaddr_in` without a port.
fn inet(ip: Ipv4Addr) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(&AF_INET.to_ne_bytes());
    address[4..8].copy_from_slice(&ip.octets());
    address
}

/// The address in a `sockaddr_in`.
fn ip_of(value: [u8; 24]) -> Ipv4Addr {
    let [_, _, _, _, a, b, c, d, ..] = value;
    Ipv4Addr::new(a, b, c, d)
}

fn inet_value(ip: Ipv4Addr) -> [u8; 24] {
    let mut value = [0; 24];
    value[..16].copy_from_slice(&inet(ip));
    value
}
