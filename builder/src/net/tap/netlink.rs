//! Requests to the kernel's network configuration (rtnetlink(7)), one at a time.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::address::{LINK_PREFIX, Link};
use crate::net::tap::Subnet;

/// Packets that wait in a tap for its guest; the ring is memory of each tap's.
const QUEUE: u32 = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub index: u32,
    pub name: String,
}

/// A route of IPv4, of any table: the host's own addresses are among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub destination: Subnet,
    /// Index of the interface that it leads to.
    pub interface: Option<u32>,
}

/// A connection to the kernel, for the network namespace of its thread.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    pub(super) fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump(&all, |message| match message {
            RouteNetlinkMessage::NewLink(link) => interface(&link),
            _ => None,
        })
    }

    /// All routes of IPv4 but default ones.
    pub(super) fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut all = RouteMessage::default();
        all.header.address_family = AddressFamily::Inet;
        let all = RouteNetlinkMessage::GetRoute(all);
        self.dump(&all, |message| match message {
            RouteNetlinkMessage::NewRoute(found) => route(&found),
            _ => None,
        })
    }

    /// Makes an interface one of a fleet's: without a queue before its own ring,
    /// up, forwarding, and taking from its guest only packets with the guest's
    /// address (`rp_filter`).
    pub(super) fn set_up(&mut self, index: u32, group: u32) -> io::Result<()> {
        let mut queue = TcMessage::default();
        queue.header.index = index.cast_signed();
        queue.header.parent = TcHandle::ROOT;
        queue
            .attributes
            .push(TcAttribute::Kind("noqueue".to_owned()));
        let queue = RouteNetlinkMessage::NewQueueDiscipline(queue);
        self.ask(queue, NLM_F_CREATE | NLM_F_REPLACE)?;

        let mut conf = InetDevConf::default();
        conf.forwarding = 1;
        conf.rp_filter = 1;
        let conf = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]);
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes = vec![
            LinkAttribute::Group(group),
            LinkAttribute::TxQueueLen(QUEUE),
            LinkAttribute::AfSpecUnspec(vec![conf]),
        ];
        self.ask(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Gives an interface its address.
    pub(super) fn address(&mut self, index: u32, link: Link) -> io::Result<()> {
        let mut address = AddressMessage::default();
        address.header.family = AddressFamily::Inet;
        address.header.prefix_len = LINK_PREFIX;
        address.header.index = index;
        address.attributes = vec![
            AddressAttribute::Local(link.host.into()),
            AddressAttribute::Address(link.host.into()),
        ];
        let address = RouteNetlinkMessage::NewAddress(address);
        self.ask(address, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Tells an interface who is at the other end.
    ///
    /// The neighbour is permanent: the host never asks a guest for it, and it
    /// does not count towards `gc_thresh3`, which would bound the guests (kernel
    /// document networking/ip-sysctl).
    pub(super) fn neighbour(&mut self, index: u32, link: Link, guest: [u8; 6]) -> io::Result<()> {
        let mut neighbour = NeighbourMessage::default();
        neighbour.header.family = AddressFamily::Inet;
        neighbour.header.ifindex = index;
        neighbour.header.state = NeighbourState::Permanent;
        neighbour.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet(link.guest)),
            NeighbourAttribute::LinkLayerAddress(guest.to_vec()),
        ];
        let neighbour = RouteNetlinkMessage::NewNeighbour(neighbour);
        self.ask(neighbour, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Puts an interface into a group.
    pub(super) fn set_group(&mut self, index: u32, group: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Group(group));
        self.ask(RouteNetlinkMessage::SetLink(link), 0)
    }

    /// Removes all interfaces of a group at once, which takes as long as one.
    pub(super) fn remove_group(&mut self, group: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::Group(group));
        self.ask(RouteNetlinkMessage::DelLink(link), 0)
    }

    /// Sends a request and waits for the kernel's word on it.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, flags | NLM_F_ACK)?;
        self.answers(|_| ()).map(drop)
    }

    /// What `keep` keeps of a list, which is asked for again for as long as it
    /// changes meanwhile.
    fn dump<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        mut keep: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        loop {
            let mut kept = Vec::new();
            self.send(message.clone(), NLM_F_DUMP)?;
            if self.answers(|part| kept.extend(keep(part)))? == Whole::Yes {
                return Ok(kept);
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Hands on the parts of an answer up to its end.
    fn answers(&mut self, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<Whole> {
        let mut whole = Whole::Yes;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let part = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                // Messages begin at multiples of four bytes (netlink(7)).
                let length = (part.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                if part.header.sequence_number != self.sequence {
                    continue;
                }
                if part.header.flags & NLM_F_DUMP_INTR != 0 {
                    whole = Whole::No;
                }
                match part.payload {
                    NetlinkPayload::InnerMessage(message) => take(message),
                    NetlinkPayload::Done(_) => return Ok(whole),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(whole),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Overrun(_) => {
                        return Err(io::Error::other("answers were lost"));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Whether a list is as it was at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

fn interface(link: &LinkMessage) -> Option<Interface> {
    let name = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
    Some(Interface {
        index: link.header.index,
        name,
    })
}

fn route(found: &RouteMessage) -> Option<Route> {
    let destination = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(network)) => Some(*network),
        _ => None,
    };
    let interface = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    };
    let network: Ipv4Addr = found.attributes.iter().find_map(destination)?;
    let prefix = found.header.destination_prefix_length;
    (prefix > 0).then_some(Route {
        destination: Subnet { network, prefix },
        interface: found.attributes.iter().find_map(interface),
    })
}
