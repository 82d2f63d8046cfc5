//! The network interfaces: `lo` always, `eth0` as the identity says.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use tty_init::identity::Identity;
use tty_init::protocol::DeviceState;

use crate::console::Console;
use crate::failure::{Context, Failure};
use crate::sys::net::Interface;

const LO: Interface = Interface(c"lo");
const ETH0: Interface = Interface(c"eth0");

/// Sets up the interfaces; gives what became of `eth0`.
pub(crate) fn set_up(identity: Option<&Identity>, console: &mut Console) -> DeviceState {
    // A kernel without IPv4 has no interface to speak of either.
    let Ok(socket) = socket(AddressFamily::INET, SocketType::DGRAM, None) else {
        return DeviceState::Absent;
    };
    if let Err(failure) = LO.up(&socket).context("lo: SIOCSIFFLAGS") {
        console.log(format_args!("{failure}"));
    }
    if ETH0.flags(&socket) == Err(Errno::NODEV) {
        return DeviceState::Absent;
    }
    match set_up_eth0(&socket, identity) {
        Ok(true) => return DeviceState::Up,
        Ok(false) => console.log(format_args!("eth0 stays down: the identity has no address")),
        Err(failure) => console.log(format_args!("eth0: {failure}")),
    }
    DeviceState::Failed
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
