//! The network: ports, neighbours, taps.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;

use super::Network;
use crate::host::ports;
use crate::sample::source::{LONG, Source, unexpected};

const TUN: &str = "dev/net/tun";
/// TCP sockets over IPv4, and over IPv6 where the kernel has it.
const SOCKETS: [&str; 2] = ["proc/net/tcp", "proc/net/tcp6"];
/// `TCP_LISTEN` of the kernel's include/net/tcp_states.h, as a socket's line
/// has it.
const LISTEN: &str = "0A";

/// The network of this process's namespace.
pub(crate) fn read(source: &mut Source) -> Network {
    let tun = fs::metadata(source.place(TUN));
    Network {
        ephemeral: source.parsed(ports::RANGE, "two ports", |text| {
            ports::parse(text).map(|range| [*range.start(), *range.end()])
        }),
        listening: listening(source),
        tun: source.kept(TUN, tun).is_some(),
        // Only who makes taps can tell that.
        taps: None,
        forwards: None,
        neighbours_max: source.number("proc/sys/net/ipv4/neigh/default/gc_thresh3"),
        backlog: source.number("proc/sys/net/core/netdev_max_backlog"),
    }
}

/// How many ports somebody listens on; `None` unless every list that is there
/// could be read.
fn listening(source: &mut Source) -> Option<u64> {
    let mut ports = BTreeSet::new();
    let mut lists = 0;
    for path in SOCKETS {
        if source.place(path).exists() {
            ports.extend(listed(source, path)?);
            lists += 1;
        }
    }
    (lists > 0).then_some(ports.len() as u64)
}

/// The ports that a list says somebody listens on.
fn listed(source: &mut Source, path: &str) -> Option<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    let mut garbled = None;
    let mut headline = true;
    source.lines(path, LONG, |line| {
        if std::mem::take(&mut headline) || line.is_empty() {
            return ControlFlow::Continue(());
        }
        match socket(line) {
            Some((port, LISTEN)) => {
                ports.insert(port);
                ControlFlow::Continue(())
            }
            // Those who listen come first (kernel document
            // networking/proc_net_tcp), and the others may be many.
            Some(_) => ControlFlow::Break(()),
            None => {
                garbled = Some(line.to_owned());
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(line) = garbled {
        source.note(path, unexpected(&line, "a socket"));
        return None;
    }
    Some(ports)
}

/// The local port and the state of a line such as
/// `0: 0100007F:0016 00000000:0000 0A …`.
fn socket(line: &str) -> Option<(u16, &str)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (_address, port) = words.next()?.rsplit_once(':')?;
    Some((u16::from_str_radix(port, 16).ok()?, words.nth(1)?))
}
