//! Whether packets get from one guest's link to another's.
//!
//! Every tap forwards, but a firewall, such as a container engine's, may drop the
//! packets that the host forwards. The kernel has many hooks that could do so, so
//! this module does not inspect them but sends a packet.

use std::io;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::address::{Link, addresses, group};
use super::device::Queue;
use super::error::TapError;
use super::{check, connect, interfaces, without_ipv6};
use crate::interrupt::poll_until;
use crate::net::tap::Subnet;
use crate::random::random;
use crate::units::{GuestIndex, Instance};

/// How long a packet may take within one host.
const PATIENCE: Duration = Duration::from_millis(500);
/// What the names of the two interfaces begin with.
const PROBE: &str = "ibprobe-";
/// How long others who try it are waited for, and how long apart.
const OTHERS: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// More than the packet has.
const FRAME: usize = 2048;

/// Whether a packet from one link gets to another; `subnet` is the guests', and
/// its last two links are used.
///
/// The interfaces are there for as long as it takes, and carry packets without a
/// frame around them, which need no neighbour. Their names begin as those of
/// taps do, and are always the same: so one at a time tries it, and others know
/// that what they see passes ([`is_probe`]).
pub fn forwards(subnet: Subnet) -> Result<bool, TapError> {
    let system = |error| TapError::refused("test whether the host forwards", error);
    let mut instance = [0; 12];
    instance.copy_from_slice(&random().map_err(|error| system(error.into()))?[..12]);
    let last = subnet.last_two_links();
    check(last, 2)?;
    let from = End::make(Instance(instance), last, 0)?;
    let to = End::make(Instance(instance), last, 1)?;
    let packet = packet(from.link.guest, to.link.guest, instance);
    from.queue.send(&packet).map_err(system)?;
    to.receives(&instance).map_err(system)
}

/// Whether an interface is one of the two.
pub(crate) fn is_probe(interface: &str) -> bool {
    interface.starts_with(PROBE)
}

/// One of the two links, for as long as it is open.
struct End {
    link: Link,
    queue: Queue,
}

impl End {
    fn make(instance: Instance, subnet: Subnet, guest: u32) -> Result<Self, TapError> {
        let guest = GuestIndex::new(guest).expect("0 and 1 are guests");
        let name = format!("{PROBE}{}", guest.get());
        let refused = |error| TapError::refused(format!("set up the interface {name}"), error);
        let link = addresses(subnet, guest)?;
        let queue = Queue::open().map_err(TapError::Tun)?;
        let until = Instant::now() + OTHERS;
        while let Err(error) = queue.create_for_packets(&name) {
            if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= until {
                return Err(refused(error));
            }
            sleep(PAUSE);
        }
        let mut netlink = connect()?;
        let made = interfaces(&mut netlink)?
            .into_iter()
            .find(|found| found.name == name)
            .ok_or_else(|| TapError::Gone(name.clone()))?;
        without_ipv6(&name)?;
        netlink
            .set_up(made.index, group(instance))
            .and_then(|()| netlink.address(made.index, link))
            .map_err(refused)?;
        Ok(Self { link, queue })
    }

    /// Whether a packet that ends like this comes in time.
    fn receives(&self, end: &[u8]) -> io::Result<bool> {
        let until = Instant::now() + PATIENCE;
        let mut frame = [0; FRAME];
        loop {
            match self.queue.receive(&mut frame) {
                Ok(length) if frame[..length].ends_with(end) => return Ok(true),
                // The host's own words, such as those of its name service.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let mut more = [PollFd::new(&self.queue, PollFlags::IN)];
            if Instant::now() >= until || !poll_until(&mut more, Some(until))? {
                return Ok(false);
            }
        }
    }
}

/// A datagram to the discard service (RFC 791, RFC 768, RFC 863), without a
/// checksum of its own.
fn packet(from: Ipv4Addr, to: Ipv4Addr, payload: [u8; 12]) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[0] = 0x45; // version 4, five words
    packet[3] = 40; // length
    packet[8] = 64; // time to live
    packet[9] = 17; // UDP
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    let sum: u32 = packet[..20]
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    // Five words carry over once at most.
    let sum = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = (!sum).to_be_bytes();
    packet[10..12].copy_from_slice(&[high, low]);
    packet[21] = 9;
    packet[23] = 9;
    packet[25] = 20;
    packet[28..].copy_from_slice(&payload);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_the_checksum_of_its_header() {
        let packet = packet(
            "10.213.255.253".parse().unwrap(),
            "10.213.255.255".parse().unwrap(),
            [7; 12],
        );
        // As a receiver sums it up: all ones (RFC 1071).
        let sum: u32 = packet[..20]
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(packet.len(), usize::from(packet[3]));
        assert!(packet.ends_with(&[7; 12]));
    }
}
