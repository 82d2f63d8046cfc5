//! Identities that a fleet gives its guests.

use std::net::Ipv4Addr;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use tty_init::identity::{Address, Identity};

use crate::units::GuestIndex;
use crate::vmm::{Net, mac};

/// What QEMU's user-mode network gives its one guest (qemu(1), "-netdev user").
const USER_NET: Address = Address {
    ip: Ipv4Addr::new(10, 0, 2, 15),
    prefix: 24,
    gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
};

/// How long a client may take to log in, in milliseconds.
const LOGIN_DEADLINE_MS: u32 = 10_000;

/// A new identity, with secrets from the host's random pool.
pub fn create(guest: GuestIndex, net: Net) -> Result<Identity, Errno> {
    Ok(Identity {
        id: guest
            .to_string()
            .parse()
            .expect("a guest's name is a valid id"),
        mac: mac(guest.get()),
        address: match net {
            Net::User => Some(USER_NET),
            Net::None => None,
        },
        login_deadline_ms: LOGIN_DEADLINE_MS,
        authorized_key: None,
        host_key_seed: random()?,
        entropy: random()?,
    })
}

fn random() -> Result<[u8; 32], Errno> {
    let mut bytes = [0; 32];
    // Up to 256 bytes are never cut short (getrandom(2)).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}
