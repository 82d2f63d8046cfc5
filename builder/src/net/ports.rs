//! Loopback ports that lead to a fleet's guests.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::host;
use crate::host::ports::FIRST;

const FIVE_DIGITS: u16 = 10_000;

/// Fewer ports are free than the fleet has guests.
#[derive(Debug, thiserror::Error)]
#[error(
    "{wanted} guests need a loopback port each, and {free} are free (of {usable} from {FIRST} up, \
     without the ephemeral ports {} to {}); launch fewer, narrow net.ipv4.ip_local_port_range, or \
     launch with --net none", kernel.start(), kernel.end()
)]
pub struct TooFewPorts {
    wanted: u32,
    /// Ports that nobody listens on or is about to.
    free: usize,
    /// Ports that may be used at all.
    usable: usize,
    /// Ports that the kernel hands out.
    kernel: RangeInclusive<u16>,
}

/// Free ports for the first `count` guests of the fleet with this folder: those
/// that nobody listens on, and that are not `taken` by a fleet whose guest may be
/// about to start.
///
/// The search starts at a place of the fleet's own, made from its name and
/// whose it is, so that it tends to get the same ports again, and two fleets
/// get different ones even while neither listens yet. Ports of five digits come
/// first: arguments of equal length keep the heaps of VMMs alike
/// ([`crate::vmm::alike`]).
pub fn choose(fleet: &Path, taken: &BTreeSet<u16>, count: u32) -> Result<Vec<u16>, TooFewPorts> {
    extend(fleet, taken, &[], count)
}

/// The ports `chosen` for the first guests of a fleet, and free ones for the
/// rest of its `count`.
pub fn extend(
    fleet: &Path,
    taken: &BTreeSet<u16>,
    chosen: &[u16],
    count: u32,
) -> Result<Vec<u16>, TooFewPorts> {
    let kernel = host::ports::ephemeral(Path::new("/"));
    let new = count.saturating_sub(u32::try_from(chosen.len()).unwrap_or(u32::MAX));
    let is_free =
        |port| !taken.contains(&port) && !chosen.contains(&port) && host::ports::is_free(port);
    let mut ports = chosen.to_vec();
    ports.extend(search(fleet, new, kernel, is_free)?);
    Ok(ports)
}

/// A free port for a guest of a fleet that has these, in the place of its own.
pub fn another(fleet: &Path, taken: &BTreeSet<u16>, chosen: &[u16]) -> Result<u16, TooFewPorts> {
    let more = u32::try_from(chosen.len() + 1).unwrap_or(u32::MAX);
    let ports = extend(fleet, taken, chosen, more)?;
    Ok(*ports.last().expect("one more was found"))
}

fn search(
    fleet: &Path,
    count: u32,
    kernel: RangeInclusive<u16>,
    is_free: impl Fn(u16) -> bool,
) -> Result<Vec<u16>, TooFewPorts> {
    let usable: Vec<_> = host::ports::usable(&kernel).collect();
    let (short, long) = usable.split_at(usable.partition_point(|port| *port < FIVE_DIGITS));
    let (before, from_start) = long.split_at(start(fleet, long.len()));
    let ports: Vec<_> = from_start
        .iter()
        .chain(before)
        .chain(short)
        .copied()
        .filter(|port| is_free(*port))
        .take(count as usize)
        .collect();
    if ports.len() < count as usize {
        return Err(TooFewPorts {
            wanted: count,
            free: ports.len(),
            usable: usable.len(),
            kernel,
        });
    }
    Ok(ports)
}

/// Where in `0..places` the search for a fleet's ports starts.
fn start(fleet: &Path, places: usize) -> usize {
    let digest = Sha256::digest(fleet.as_os_str().as_bytes());
    let number = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
    number as usize % places.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: RangeInclusive<u16> = 32768..=60999;

    fn search(
        fleet: &str,
        count: u32,
        kernel: RangeInclusive<u16>,
        is_free: impl Fn(u16) -> bool,
    ) -> Result<Vec<u16>, TooFewPorts> {
        super::search(Path::new(fleet), count, kernel, is_free)
    }

    #[test]
    fn a_fleet_gets_its_ports_again_and_another_fleet_others() {
        let one = search("tty-burn", 100, KERNEL, |_| true).unwrap();
        assert_eq!(one, search("tty-burn", 100, KERNEL, |_| true).unwrap());
        let two = search("tty-idle", 100, KERNEL, |_| true).unwrap();
        assert!(one.iter().all(|port| !two.contains(port)));
    }

    #[test]
    fn every_usable_port_is_given_once_and_no_other() {
        let mut ports = search("f", 36_280, KERNEL, |_| true).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 36_280);
        assert!(
            ports
                .iter()
                .all(|port| *port >= 1024 && !KERNEL.contains(port))
        );
        let error = search("f", 36_281, KERNEL, |_| true).unwrap_err();
        assert!(
            error.to_string().starts_with(
                "36281 guests need a loopback port each, and 36280 are free (of 36280"
            ),
            "{error}"
        );
    }

    #[test]
    fn ports_of_five_digits_come_first() {
        let all = search("f", 36_280, KERNEL, |_| true).unwrap();
        let (long, short) = all.split_at(36_280 - (10_000 - 1024));
        assert!(long.iter().all(|port| *port >= 10_000));
        assert!(short.iter().all(|port| *port < 10_000));
    }

    #[test]
    fn ports_in_use_are_passed_over() {
        let wanted = search("f", 3, KERNEL, |_| true).unwrap();
        let ports = search("f", 3, KERNEL, |port| port != wanted[1]).unwrap();
        assert_eq!(ports[..2], [wanted[0], wanted[2]]);
        assert!(!ports.contains(&wanted[1]));
    }

    #[test]
    fn a_kernel_that_hands_out_every_port_leaves_none() {
        let error = search("f", 1, 1024..=65535, |_| true).unwrap_err();
        assert!(
            error.to_string().contains("ephemeral ports 1024 to 65535"),
            "{error}"
        );
        assert!(search("f", 0, 1..=65535, |_| true).unwrap().is_empty());
    }
}
