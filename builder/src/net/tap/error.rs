//! Errors of taps.

use std::io;
use std::path::PathBuf;

use super::address::SubnetError;
use crate::net::tap::Subnet;

/// Why taps could not be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The device does not open.
    #[error(
        "/dev/net/tun cannot be opened: {0}; load the module (modprobe tun), in a container start \
         it with --device /dev/net/tun, or use --net user"
    )]
    Tun(io::Error),
    /// This process may not configure the network.
    #[error("not permitted to {0}: taps take CAP_NET_ADMIN; become root, or use --net user")]
    Denied(String),
    /// An interface has the name already.
    #[error(
        "the network interface {0} exists already; launch again, which chooses other names, or \
         remove it (ip link del {0})"
    )]
    Taken(String),
    /// Another process has the tap's queue.
    #[error("the tap {0} is in use by another process, which must end first")]
    Busy(String),
    /// Somebody removed the tap.
    #[error("the tap {0} is gone: somebody removed it; stop the fleet and launch it again")]
    Gone(String),
    /// The subnet has too few addresses.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The host has other plans for those addresses.
    #[error(
        "the subnet {subnet} for taps overlaps the route to {route}{}; choose another with \
         --tap-subnet",
        device.as_ref().map_or_else(String::new, |name| format!(" through {name}"))
    )]
    Overlap {
        /// The subnet.
        subnet: Subnet,
        /// Where the route leads.
        route: Subnet,
        /// The interface it goes through.
        device: Option<String>,
    },
    /// Another fleet has those addresses, or is about to.
    #[error(
        "the subnet {subnet} for taps overlaps {taken}, which the fleet {fleet} has; choose another \
         with --tap-subnet"
    )]
    Claimed {
        /// The subnet.
        subnet: Subnet,
        /// The fleet.
        fleet: String,
        /// Its subnet.
        taken: Subnet,
    },
    /// Everybody has plans for the addresses that fleets get by default.
    #[error(
        "no network of 10.213.0.0/16 to 10.254.0.0/16 is free for taps: each overlaps a route of \
         this host (ip route show table all) or the taps of another fleet; choose one with \
         --tap-subnet"
    )]
    NoneFree,
    /// A setting of the interface could not be written.
    #[error(
        "cannot write {}: {source}; in a container, start it with a writable /proc/sys",
        path.display()
    )]
    Sysctl {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {what}: {source}; the kernel's log (dmesg) may say more")]
    Refused {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl TapError {
    /// What the kernel said to trying `what`.
    pub(crate) fn refused(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Denied(what),
            _ => Self::Refused { what, source },
        }
    }

    /// What the kernel said to opening the device.
    pub(crate) fn unopened(source: io::Error) -> Self {
        match source.raw_os_error() {
            // Its mode; what a container withholds is EPERM.
            Some(libc::EACCES) => Self::Denied("open /dev/net/tun".to_owned()),
            _ => Self::Tun(source),
        }
    }
}
