//! The network interfaces: `lo` always, `eth0` as the identity says.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tty_init::identity::Identity;
use tty_init::protocol::DeviceState;

use crate::console::Console;
use crate::failure::{Context, Failure};
use crate::sys::net::Interface;

const LO: Interface = Interface(c"lo");
const ETH0: Interface = Interface(c"eth0");

/// The interfaces.
pub(crate) struct Interfaces {
    /// `None` in a kernel without IPv4, which has no interface to speak of either.
    socket: Option<OwnedFd>,
}

impl Interfaces {
    /// Brings up `lo`.
    pub(crate) fn open(console: &mut Console) -> Self {
        let this = Self {
            // The image's programs inherit what is not closed for them.
            socket: socket_with(
                AddressFamily::INET,
                SocketType::DGRAM,
                SocketFlags::CLOEXEC,
                None,
            )
            .ok(),
        };
        this.bring_up(LO, "lo: SIOCSIFFLAGS", console);
        this
    }

    /// Brings up `eth0` ahead of its addresses: the driver of virtio's NIC takes
    /// another hardware address at any time.
    pub(crate) fn bring_up_eth0(&self, console: &mut Console) {
        self.bring_up(ETH0, "eth0: SIOCSIFFLAGS", console);
    }

    /// Brings up an interface, if there is one.
    fn bring_up(&self, interface: Interface, what: &'static str, console: &mut Console) {
        if let Some(socket) = &self.socket
            && let Err(errno) = interface.up(socket)
            && errno != Errno::NODEV
        {
            console.log(format_args!("{}", Failure::new(what, errno)));
        }
    }

    /// Sets up `eth0`; gives what became of it.
    pub(crate) fn set_up(&self, identity: Option<&Identity>, console: &mut Console) -> DeviceState {
        let Some(socket) = &self.socket else {
            return DeviceState::Absent;
        };
        if ETH0.flags(socket) == Err(Errno::NODEV) {
            return DeviceState::Absent;
        }
        match set_up_eth0(socket, identity) {
            Ok(true) => return DeviceState::Up,
            Ok(false) => console.log(format_args!("eth0 gets no address: the identity has none")),
            Err(failure) => console.log(format_args!("eth0: {failure}")),
        }
        DeviceState::Failed
    }
}

/// Gives `eth0` its addresses; `false` if it is to have none.
fn set_up_eth0(socket: &OwnedFd, identity: Option<&Identity>) -> Result<bool, Failure> {
    let Some(identity) = identity else {
        return Ok(false);
    };
    if identity.mac != [0; 6] {
        ETH0.set_mac(socket, identity.mac)
            .context("SIOCSIFHWADDR")?;
    }
    let Some(address) = identity.address else {
        return Ok(false);
    };
    let mask = u32::MAX
        .checked_shl(32 - u32::from(address.prefix))
        .unwrap_or(0);
    ETH0.set_address(socket, address.ip)
        .context("SIOCSIFADDR")?;
    ETH0.set_netmask(socket, mask.into())
        .context("SIOCSIFNETMASK")?;
    ETH0.up(socket).context("SIOCSIFFLAGS")?;
    if let Some(gateway) = address.gateway {
        if (u32::from(gateway) ^ u32::from(address.ip)) & mask != 0 {
            // A routed tap without a bridge: its other end is not a neighbour by
            // address, so the kernel must be told that it is one.
            ETH0.add_host_route(socket, gateway)
                .context("SIOCADDRT gateway")?;
        }
        ETH0.add_default_route(socket, gateway)
            .context("SIOCADDRT")?;
    }
    Ok(true)
}
