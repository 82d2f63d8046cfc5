//! The addresses and the interface name of a guest: pure functions of the fleet and
//! the guest's number.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tty_init::identity::Address;

use crate::units::{GuestIndex, Instance, counted};

/// Prefix length of a link: a network of two addresses and no broadcast
/// (RFC 3021).
pub const LINK_PREFIX: u8 = 31;

/// The first byte of a fleet's interface group, "ib" as a hexadecimal number
/// can have it.
const GROUP: u8 = 0x1b;
/// The same of those that are about to be removed.
const LEAVING: u8 = 0x1c;

/// A network of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Its first address.
    pub network: Ipv4Addr,
    /// Bits of the network's part.
    pub prefix: u8,
}

/// The two ends of a guest's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The tap's address, even.
    pub host: Ipv4Addr,
    /// The guest's address, the odd one after it.
    pub guest: Ipv4Addr,
}

impl Link {
    /// The guest's address as its identity has it: its gateway is the host.
    pub fn guest_address(self) -> Address {
        Address {
            ip: self.guest,
            prefix: LINK_PREFIX,
            gateway: Some(self.host),
        }
    }
}

/// A subnet that has no link for each guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// It has too few addresses.
    #[error(
        "the subnet {subnet} for taps has {}, and a fleet whose last guest is number {} takes {}: \
         each takes two addresses, and guest 0 has the first; choose one with --tap-subnet of \
         prefix length {prefix} or less, such as 10.0.0.0/{prefix}, or a lower --first",
        counted(subnet.links(), "link"), guests.saturating_sub(1), counted(*guests, "link")
    )]
    TooSmall {
        /// The subnet.
        subnet: Subnet,
        /// Numbers up to the last guest's, each of which has a link.
        guests: u64,
        /// The longest prefix that has them.
        prefix: u8,
    },
}

/// A text that is not a subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseSubnetError {
    /// Not an address, a slash and a prefix length.
    #[error(
        "`{0}` is not a subnet: give an IPv4 network and its prefix length, such as 10.213.0.0/16"
    )]
    Form(String),
    /// Its prefix leaves no room for a link.
    #[error("`{0}` has no room for a link: give a prefix length of 1 to 31, such as 10.213.0.0/16")]
    Prefix(String),
    /// An address within a network, instead of the network's first.
    #[error("`{text}` is not a network but an address within one: give {network}")]
    Host {
        /// What was given.
        text: String,
        /// The network that it is in.
        network: Subnet,
    },
    /// Not an address that a host can have.
    #[error(
        "`{0}` is reserved (0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3): give a private network, such as \
         10.213.0.0/16"
    )]
    Reserved(String),
}

impl Subnet {
    /// Where the first fleet's taps are unless the user says otherwise: 32,768
    /// links of a private network (RFC 1918).
    pub const FOR_TAPS: Self = Self {
        network: Ipv4Addr::new(10, 213, 0, 0),
        prefix: 16,
    };

    /// The networks that a fleet's taps may have unless the user says otherwise,
    /// the first that is free.
    pub(crate) fn candidates() -> impl Iterator<Item = Self> {
        (213..=254).map(|second| Self {
            network: Ipv4Addr::new(10, second, 0, 0),
            ..Self::FOR_TAPS
        })
    }

    /// The bits that are the network's.
    fn mask(self) -> u32 {
        let host = 32_u32.saturating_sub(self.prefix.into());
        u32::MAX.checked_shl(host).unwrap_or(0)
    }

    /// How many links it has.
    pub fn links(self) -> u64 {
        1_u64 << 32_u32.saturating_sub(self.prefix.into()) >> 1
    }

    /// The part of it that its last two links take.
    pub(crate) fn last_two_links(self) -> Self {
        let last = u32::from(self.network) | !self.mask();
        Self {
            network: (last & !3).into(),
            prefix: self.prefix.max(30),
        }
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let differ = u32::from(self.network) ^ u32::from(other.network);
        differ & self.mask() & other.mask() == 0
    }

    /// Fails unless it has a link for each of so many guests.
    pub fn holds(self, guests: u64) -> Result<(), SubnetError> {
        if guests <= self.links() {
            return Ok(());
        }
        let addresses = guests.saturating_mul(2).checked_next_power_of_two();
        let bits = addresses.map_or(32, u64::trailing_zeros).min(32);
        Err(SubnetError::TooSmall {
            subnet: self,
            guests,
            prefix: u8::try_from(32 - bits).expect("at most 32"),
        })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = ParseSubnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || ParseSubnetError::Form(text.to_owned());
        let (network, prefix) = text.split_once('/').ok_or_else(form)?;
        let given = Self {
            network: network.parse().map_err(|_| form())?,
            prefix: prefix.parse().map_err(|_| form())?,
        };
        if !(1..=LINK_PREFIX).contains(&given.prefix) {
            return Err(ParseSubnetError::Prefix(text.to_owned()));
        }
        let network = Self {
            network: (u32::from(given.network) & given.mask()).into(),
            ..given
        };
        if network != given {
            let text = text.to_owned();
            return Err(ParseSubnetError::Host { text, network });
        }
        let reserved = [(0, 8), (127, 8), (224, 3)].map(|(first, prefix)| Self {
            network: Ipv4Addr::new(first, 0, 0, 0),
            prefix,
        });
        if reserved.iter().any(|range| range.overlaps(given)) {
            return Err(ParseSubnetError::Reserved(text.to_owned()));
        }
        Ok(given)
    }
}

/// The addresses of a guest's link.
pub fn addresses(subnet: Subnet, guest: GuestIndex) -> Result<Link, SubnetError> {
    subnet.holds(u64::from(guest.get()) + 1)?;
    let host = (u32::from(subnet.network) & subnet.mask()) | guest.get() << 1;
    Ok(Link {
        host: host.into(),
        guest: (host | 1).into(),
    })
}

/// What the interfaces of a fleet begin with: `ib`, six digits of its instance
/// and a dash.
pub fn prefix(instance: Instance) -> String {
    format!("ib{}-", hex::encode(&instance.0[..3]))
}

/// The interface of a guest, such as `ib3fa9c2-31999`: at most the 15 bytes that
/// the kernel takes (`IFNAMSIZ`), and without a dot, which sysctl(8) would take
/// for a slash.
pub fn name(instance: Instance, guest: GuestIndex) -> String {
    format!("{}{}", prefix(instance), guest.get())
}

/// The group (ip-link(8)) that a fleet's interfaces are in, so that one command
/// or rule of the host's can name them all.
pub fn group(instance: Instance) -> u32 {
    let [first, second, third, ..] = instance.0;
    u32::from_be_bytes([GROUP, first, second, third])
}

/// The group of those of a fleet's interfaces that are about to be removed.
pub(crate) fn leaving(instance: Instance) -> u32 {
    let [first, second, third, ..] = instance.0;
    u32::from_be_bytes([LEAVING, first, second, third])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MAX_GUESTS;

    fn guest(index: u32) -> GuestIndex {
        GuestIndex::new(index).unwrap()
    }

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn each_guest_has_two_addresses_of_its_own() {
        for (net, index, host, at_guest) in [
            ("10.213.0.0/16", 0, "10.213.0.0", "10.213.0.1"),
            ("10.213.0.0/16", 1, "10.213.0.2", "10.213.0.3"),
            ("10.213.0.0/16", 32_767, "10.213.255.254", "10.213.255.255"),
            ("192.168.7.64/31", 0, "192.168.7.64", "192.168.7.65"),
            ("10.0.0.0/8", 99_999, "10.3.13.62", "10.3.13.63"),
        ] {
            let link = addresses(subnet(net), guest(index)).unwrap();
            assert_eq!(link.host.to_string(), host);
            assert_eq!(link.guest.to_string(), at_guest);
            let address = link.guest_address();
            assert_eq!((address.prefix, address.gateway), (31, Some(link.host)));
        }
    }

    #[test]
    fn a_subnet_that_is_too_small_names_the_prefix_needed() {
        for (net, guests, needed) in [
            ("10.213.0.0/31", 2, 30),
            ("10.213.0.0/16", 32_769, 15),
            ("10.213.0.0/24", 100_000, 14),
        ] {
            let error = subnet(net).holds(guests).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("10.0.0.0/{needed}")), "{text}");
            let enough = Subnet {
                prefix: needed,
                ..subnet("10.0.0.0/8")
            };
            enough.holds(guests).unwrap();
            assert!(
                Subnet {
                    prefix: needed + 1,
                    ..enough
                }
                .holds(guests)
                .is_err()
            );
        }
        assert!(addresses(subnet("10.213.0.0/16"), guest(32_768)).is_err());
        // What a document may hold that was not parsed from a text.
        for prefix in [0, 32, 33, 255] {
            let odd = Subnet {
                prefix,
                ..Subnet::FOR_TAPS
            };
            let _ = (odd.holds(u64::MAX), addresses(odd, guest(MAX_GUESTS - 1)));
        }
    }

    #[test]
    fn subnets_are_networks_for_hosts() {
        assert_eq!(subnet("10.213.0.0/16"), Subnet::FOR_TAPS);
        assert_eq!(Subnet::FOR_TAPS.to_string(), "10.213.0.0/16");
        let last = Subnet::FOR_TAPS.last_two_links();
        assert_eq!(last.to_string(), "10.213.255.252/30");
        assert_eq!(last.last_two_links(), last);
        for (text, says) in [
            ("", "such as"),
            ("10.213.0.0", "such as"),
            ("10.213.0/16", "such as"),
            ("10.213.0.0/-1", "such as"),
            ("10.213.0.0/256", "such as"),
            ("::/16", "such as"),
            ("10.213.0.0/0", "1 to 31"),
            ("10.213.0.0/32", "1 to 31"),
            ("10.213.0.7/16", "give 10.213.0.0/16"),
            ("127.0.0.0/16", "reserved"),
            ("126.0.0.0/7", "reserved"),
            ("0.0.0.0/1", "reserved"),
            ("224.0.0.0/16", "reserved"),
            ("240.0.0.0/16", "reserved"),
        ] {
            let error = text.parse::<Subnet>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn subnets_overlap_where_one_is_within_the_other() {
        for (one, other, overlap) in [
            ("10.213.0.0/16", "10.213.4.4/31", true),
            ("10.213.0.0/16", "10.0.0.0/8", true),
            ("10.213.0.0/16", "10.212.0.0/16", false),
            ("10.212.0.0/15", "10.213.0.0/16", true),
            ("10.213.0.0/16", "192.168.0.0/16", false),
        ] {
            assert_eq!(
                subnet(one).overlaps(subnet(other)),
                overlap,
                "{one} {other}"
            );
            assert_eq!(
                subnet(other).overlaps(subnet(one)),
                overlap,
                "{other} {one}"
            );
        }
        let host = Subnet {
            network: Ipv4Addr::new(10, 213, 9, 9),
            prefix: 32,
        };
        assert!(Subnet::FOR_TAPS.overlaps(host));
    }

    #[test]
    fn names_fit_the_kernel_and_tell_fleet_and_guest() {
        let instance = Instance([0x3f, 0xa9, 0xc2, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let last = name(instance, guest(MAX_GUESTS - 1));
        assert_eq!(last, "ib3fa9c2-99999");
        assert!(last.len() <= 15);
        assert_eq!(group(instance), 0x1b3f_a9c2);
        assert_ne!(name(instance, guest(1)), name(instance, guest(11)));
    }
}
