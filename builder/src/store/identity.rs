//! The identities of a fleet's guests.

use std::net::Ipv4Addr;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use rustix::io::Errno;
use tty_init::host_key;
use tty_init::identity::{Address, Identity};

use crate::net::tap::{self, Subnet, SubnetError};
use crate::random::random;
use crate::units::GuestIndex;
use crate::vmm::{Net, mac};

/// What QEMU's user-mode network gives its one guest (qemu(1), "-netdev user").
const USER_NET: Address = Address {
    ip: Ipv4Addr::new(10, 0, 2, 15),
    prefix: 24,
    gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
};

/// The address of a guest; of `taps` with [`Net::Tap`].
pub fn address(net: Net, taps: Subnet, guest: GuestIndex) -> Result<Option<Address>, SubnetError> {
    Ok(match net {
        Net::User => Some(USER_NET),
        Net::Tap => Some(tap::addresses(taps, guest)?.guest_address()),
        Net::None => None,
    })
}

/// A new identity, with secrets from the host's random pool.
pub fn create(
    guest: GuestIndex,
    address: Option<Address>,
    authorized_key: Option<[u8; 32]>,
    login_deadline: Duration,
) -> Result<Identity, Errno> {
    Ok(Identity {
        id: guest
            .to_string()
            .parse()
            .expect("a guest's name is a valid id"),
        mac: mac(guest.get()),
        address,
        login_deadline_ms: u32::try_from(login_deadline.as_millis()).unwrap_or(u32::MAX),
        authorized_key,
        host_key_seed: random()?,
        entropy: random()?,
    })
}

/// The identity of the same guest for its next start: only the entropy, which
/// must never serve twice, is new.
pub fn for_next_start(identity: &Identity) -> Result<Identity, Errno> {
    let mut next = identity.clone();
    next.entropy = random()?;
    Ok(next)
}

/// The public half of the guest's SSH host key, ed25519.
pub fn host_key(identity: &Identity) -> [u8; 32] {
    SigningKey::from_bytes(&host_key::secret(&identity.host_key_seed))
        .verifying_key()
        .to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_keeps_everything_but_the_entropy() {
        let guest = GuestIndex::new(7).unwrap();
        let first = create(guest, None, Some([1; 32]), Duration::from_secs(12)).unwrap();
        assert_eq!(first.login_deadline_ms, 12_000);
        let mut second = for_next_start(&first).unwrap();
        assert_ne!(second.entropy, first.entropy);
        assert_eq!(host_key(&second), host_key(&first));
        second.entropy = first.entropy;
        assert_eq!(second, first);
    }

    #[test]
    fn a_guest_is_addressed_as_its_network_has_it() {
        let guest = GuestIndex::new(2).unwrap();
        let address = |net| address(net, Subnet::FOR_TAPS, guest).unwrap();
        assert_eq!(address(Net::None), None);
        assert_eq!(address(Net::User), Some(USER_NET));
        let expected = Address {
            ip: Ipv4Addr::new(10, 213, 0, 5),
            prefix: 31,
            gateway: Some(Ipv4Addr::new(10, 213, 0, 4)),
        };
        assert_eq!(address(Net::Tap), Some(expected));
        // A guest reads back what it is given.
        let identity = create(guest, Some(expected), None, Duration::ZERO).unwrap();
        let blob = identity.encode();
        let read = Identity::decode(blob.as_slice()).unwrap();
        assert_eq!(read.address, Some(expected));
    }

    #[test]
    fn guests_differ_in_both_secrets() {
        let create = |index| {
            let guest = GuestIndex::new(index).unwrap();
            create(guest, None, None, Duration::ZERO).unwrap()
        };
        let [one, two] = [create(0), create(1)];
        assert_ne!(one.entropy, two.entropy);
        assert_ne!(host_key(&one), host_key(&two));
    }
}
