//! Taps: a network interface of the host's for each guest, routed.
//!
//! Each guest is at the other end of a link of its own with two addresses
//! ([`addresses`]), without a bridge and its limit of 1,024 ports. The host routes
//! between links: forwarding is switched on for each tap, and never for the whole
//! host. Packets from elsewhere are not forwarded to guests, unless the host's
//! owner configures that.
//!
//! Taps outlive the process that made them (`TUNSETPERSIST`), and so do guests. The
//! names of all taps of a fleet begin with the same letters. [`remove`] finds taps
//! by these letters, whichever process made them, and even if it made only some.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::geteuid;

use crate::plain::if_there;
use crate::units::{GuestIndex, GuestRange, Instance};
use crate::vmm::mac;
use address::leaving;
use device::Queue;
use netlink::{Interface, Netlink};

mod address;
mod device;
mod error;
mod forwarding;
mod netlink;

pub use address::{
    LINK_PREFIX, Link, ParseSubnetError, Subnet, SubnetError, addresses, group, name, prefix,
};
pub use error::TapError;
pub use forwarding::forwards;

/// The taps of guests on trial; the kernel puts the next free number in.
const ON_TRIAL: &str = "ibtrial%d";

/// Fails, naming the route, where the host has other plans for addresses of
/// `subnet`, or it has no link for each of so many guests.
pub fn check(subnet: Subnet, guests: u64) -> Result<(), TapError> {
    check_beside(&mut connect()?, subnet, guests, |_| false)
}

/// The route of the host's that has a part of `subnet`, and its interface, for
/// people.
pub fn in_the_way(subnet: Subnet) -> Result<Option<String>, TapError> {
    match check(subnet, 0) {
        Ok(()) => Ok(None),
        Err(TapError::Overlap { route, device, .. }) => {
            let through = device.map(|name| format!(" through {name}"));
            Ok(Some(format!("{route}{}", through.unwrap_or_default())))
        }
        Err(error) => Err(error),
    }
}

/// As [`check`], but for the routes through a fleet's own taps.
fn check_beside(
    netlink: &mut Netlink,
    subnet: Subnet,
    guests: u64,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), TapError> {
    subnet.holds(guests)?;
    let in_the_way = routes(netlink)?
        .into_iter()
        .find(|(route, device)| route.overlaps(subnet) && !device.as_deref().is_some_and(&is_ours));
    match in_the_way {
        None => Ok(()),
        Some((route, device)) => Err(TapError::Overlap {
            subnet,
            route,
            device,
        }),
    }
}

/// Where the host's routes lead, and through which interface; without those
/// that are there only while somebody tries whether the host forwards.
fn routes(netlink: &mut Netlink) -> Result<Vec<(Subnet, Option<String>)>, TapError> {
    let routes = netlink
        .routes()
        .map_err(|error| TapError::refused("list the routes", error))?;
    let names: HashMap<_, _> = interfaces(netlink)?
        .into_iter()
        .map(|found| (found.index, found.name))
        .collect();
    let found = routes.into_iter().filter_map(|route| {
        let device = match route.interface {
            // One that is gone by now took its routes along.
            Some(index) => Some(names.get(&index)?.clone()),
            None => None,
        };
        Some((route.destination, device))
    });
    Ok(found
        .filter(|(_, device)| !device.as_deref().is_some_and(forwarding::is_probe))
        .collect())
}

/// As [`check`], and whether one of the `others` has a part of `subnet` that is not
/// up: fleets by name.
pub fn check_among<'a>(
    others: impl IntoIterator<Item = (&'a str, Subnet)>,
    subnet: Subnet,
    guests: u64,
) -> Result<(), TapError> {
    check(subnet, guests)?;
    let mut others = others.into_iter();
    match others.find(|(_, taken)| taken.overlaps(subnet)) {
        None => Ok(()),
        Some((fleet, taken)) => Err(TapError::Claimed {
            subnet,
            fleet: fleet.to_owned(),
            taken,
        }),
    }
}

/// The first of the networks for taps that no route and none of the `others` has a
/// part of: fleets by name.
pub fn choose<'a>(
    others: impl IntoIterator<Item = (&'a str, Subnet)>,
    guests: u64,
) -> Result<Subnet, TapError> {
    let others = others.into_iter().map(|(_, taken)| taken);
    let routes = routes(&mut connect()?)?.into_iter().map(|(route, _)| route);
    first_free(&others.chain(routes).collect::<Vec<_>>(), guests)
}

fn first_free(taken: &[Subnet], guests: u64) -> Result<Subnet, TapError> {
    Subnet::FOR_TAPS.holds(guests)?;
    Subnet::candidates()
        .find(|free| !taken.iter().any(|taken| taken.overlaps(*free)))
        .ok_or(TapError::NoneFree)
}

/// Makes taps for guests of a fleet that have none: up, addressed and
/// forwarding.
///
/// They belong to this process's user: nobody else may attach to them without
/// `CAP_NET_ADMIN`. When it fails, it removes what it made.
pub fn create(instance: Instance, subnet: Subnet, guests: GuestRange) -> Result<(), TapError> {
    let last = guests
        .iter()
        .last()
        .map_or(0, |guest| u64::from(guest.get()) + 1);
    let mut netlink = connect()?;
    let before = of_fleet(&mut netlink, instance)?;
    let ours = prefix(instance);
    check_beside(&mut netlink, subnet, last, |device| {
        device.starts_with(&ours)
    })?;
    let wanted: HashSet<_> = guests.iter().map(|guest| name(instance, guest)).collect();
    if let Some(found) = before.into_iter().find(|tap| wanted.contains(&tap.name)) {
        return Err(TapError::Taken(found.name));
    }
    let made = create_all(&mut netlink, instance, subnet, guests);
    if made.is_err()
        && let Err(error) = remove_of(instance, guests.iter())
    {
        tracing::warn!("cannot remove taps: {error}");
    }
    made
}

fn create_all(
    netlink: &mut Netlink,
    instance: Instance,
    subnet: Subnet,
    guests: GuestRange,
) -> Result<(), TapError> {
    for guest in guests.iter() {
        create_device(&name(instance, guest))?;
    }
    let indexes: HashMap<_, _> = of_fleet(netlink, instance)?
        .into_iter()
        .map(|found| (found.name, found.index))
        .collect();
    for guest in guests.iter() {
        let name = name(instance, guest);
        let link = addresses(subnet, guest)?;
        let index = *indexes
            .get(&name)
            .ok_or_else(|| TapError::Gone(name.clone()))?;
        without_ipv6(&name)?;
        netlink
            .set_up(index, group(instance))
            .and_then(|()| netlink.address(index, link))
            .and_then(|()| netlink.neighbour(index, link, mac(guest.get())))
            .map_err(|error| TapError::refused(format!("set up the tap {name}"), error))?;
    }
    Ok(())
}

fn create_device(name: &str) -> Result<(), TapError> {
    let refused = |error| TapError::refused(format!("make the tap {name}"), error);
    let queue = Queue::open().map_err(TapError::unopened)?;
    queue
        .create(name)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => TapError::Taken(name.to_owned()),
            _ => refused(error),
        })?;
    queue.set_owner(geteuid().as_raw()).map_err(refused)?;
    queue.persist().map_err(refused)
}

/// Keeps IPv6 from greeting the guest, and waking it, each time that it comes
/// and goes.
fn without_ipv6(name: &str) -> Result<(), TapError> {
    let path = Path::new("/proc/sys/net/ipv6/conf")
        .join(name)
        .join("disable_ipv6");
    // The kernel may have none, or it is off.
    let written = if_there(fs::write(&path, "1")).map(drop);
    written.map_err(|source| TapError::Sysctl { path, source })
}

/// The queue of a guest's tap, for its VMM: the tap is connected for as long as
/// it is open.
pub fn open(instance: Instance, guest: GuestIndex) -> Result<OwnedFd, TapError> {
    let name = name(instance, guest);
    let refused = |error| TapError::refused(format!("attach to the tap {name}"), error);
    let queue = Queue::open().map_err(TapError::unopened)?;
    queue
        .attach(&name)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => TapError::Busy(name.clone()),
            _ => refused(error),
        })?;
    if queue.is_persistent().map_err(refused)? {
        Ok(queue.into())
    } else {
        // It was made by opening it, and goes when it is closed.
        Err(TapError::Gone(name))
    }
}

/// The queue of a tap for a guest on trial: no other has its name, it is down
/// and without an address, and it goes when it is closed.
pub fn open_on_trial() -> Result<OwnedFd, TapError> {
    let queue = Queue::open().map_err(TapError::unopened)?;
    queue
        .create(ON_TRIAL)
        .map_err(|error| TapError::refused("make a tap for a guest on trial", error))?;
    Ok(queue.into())
}

/// Removes all taps of a fleet, and says how many there were; those too that a
/// process left which died while it made them.
pub fn remove(instance: Instance) -> Result<usize, TapError> {
    remove_where(instance, |_| true)
}

/// Removes the taps of some guests of a fleet.
pub fn remove_of(
    instance: Instance,
    guests: impl IntoIterator<Item = GuestIndex>,
) -> Result<(), TapError> {
    let guests = guests.into_iter();
    let names: HashSet<_> = guests.map(|guest| name(instance, guest)).collect();
    remove_where(instance, |tap| names.contains(tap)).map(drop)
}

/// One by one takes 20 ms each, and all of a group as long as one: so they come
/// into a group of their own first, which they were not made in.
fn remove_where(instance: Instance, wanted: impl Fn(&str) -> bool) -> Result<usize, TapError> {
    let mut netlink = connect()?;
    let mut taps = of_fleet(&mut netlink, instance)?;
    taps.retain(|tap| wanted(&tap.name));
    if taps.is_empty() {
        return Ok(0);
    }
    let group = leaving(instance);
    for tap in &taps {
        netlink
            .set_group(tap.index, group)
            .map_err(|error| TapError::refused(format!("remove the tap {}", tap.name), error))?;
    }
    let prefix = prefix(instance);
    netlink
        .remove_group(group)
        .map_err(|error| TapError::refused(format!("remove the taps {prefix}*"), error))?;
    Ok(taps.len())
}

/// Whether a fleet has taps, as far as it can be seen.
pub(crate) fn are_there(instance: Instance) -> bool {
    let taps = connect().and_then(|mut netlink| of_fleet(&mut netlink, instance));
    taps.is_ok_and(|taps| !taps.is_empty())
}

fn connect() -> Result<Netlink, TapError> {
    Netlink::open().map_err(|error| TapError::refused("ask the kernel for its network", error))
}

fn interfaces(netlink: &mut Netlink) -> Result<Vec<Interface>, TapError> {
    let listed = netlink.interfaces();
    listed.map_err(|error| TapError::refused("list the network interfaces", error))
}

fn of_fleet(netlink: &mut Netlink, instance: Instance) -> Result<Vec<Interface>, TapError> {
    let prefix = prefix(instance);
    let mut found = interfaces(netlink)?;
    found.retain(|found| found.name.starts_with(&prefix));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_get_the_first_network_that_nobody_has_a_part_of() {
        let first_free = |taken: &[&str], guests| {
            let taken: Vec<_> = taken.iter().map(|text| text.parse().unwrap()).collect();
            first_free(&taken, guests).map(|free| free.to_string())
        };
        for (taken, free) in [
            (&["10.212.0.0/16", "192.168.0.0/16"][..], "10.213.0.0/16"),
            (&["10.213.9.8/31"], "10.214.0.0/16"),
            (&["10.214.0.0/16", "10.213.0.0/16"], "10.215.0.0/16"),
            (&["10.208.0.0/12", "10.128.0.0/10"], "10.224.0.0/16"),
        ] {
            assert_eq!(first_free(taken, 32_768).unwrap(), free, "{taken:?}");
        }
        for (taken, guests, says) in [
            ("10.0.0.0/8", 1, "10.213.0.0/16 to 10.254.0.0/16"),
            ("192.168.0.0/16", 32_769, "10.0.0.0/15"),
        ] {
            let error = first_free(&[taken], guests).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let last = Subnet::candidates().last().unwrap();
        assert_eq!(last.to_string(), "10.254.0.0/16");
    }
}
