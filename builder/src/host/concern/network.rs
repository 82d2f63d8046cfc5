//! Ports for guests behind QEMU's own network, and what taps need.

use super::text::{count, counted, numbered};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::ports::usable;
use crate::host::snapshot::Host;
use crate::host::want::Want;
use crate::vmm::Net;

const SYSCTL: &str = "https://docs.kernel.org/networking/ip-sysctl.html";
const PORTS: Check = Check {
    id: "ports",
    document: SYSCTL,
};
const NEIGHBOURS: Check = Check {
    id: "neighbours",
    document: SYSCTL,
};
const BACKLOG: Check = Check {
    id: "backlog",
    document: "https://docs.kernel.org/admin-guide/sysctl/net.html#netdev-max-backlog",
};
const FORWARDING: Check = Check {
    id: "forwarding",
    document: "https://wiki.nftables.org/wiki-nftables/index.php/Netfilter_hooks",
};
const TAP_SUBNET: Check = Check {
    id: "tap-subnet",
    document: "https://www.rfc-editor.org/rfc/rfc3021",
};
const TUN: Check = Check {
    id: "tun",
    document: "https://docs.kernel.org/networking/tuntap.html",
};

pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    vec![
        ports(host, want),
        tun(host, want),
        tap_subnet(host, want),
        forwarding(host, want),
        neighbours(host),
        backlog(host, want),
    ]
}

fn ports(host: &Host, want: &Want) -> Finding {
    let need = format!("{} free", counted(want.wanted(), "port"));
    match want.machine.net {
        Net::Tap | Net::None => {
            let meaning = "Only guests behind QEMU's own network are reached through a port of \
                           the host's.";
            return PORTS.finds(Severity::Ok, "none needed", "none", meaning);
        }
        Net::User => {}
    }
    let (Some([low, high]), Some(listening)) = (host.network.ephemeral, host.network.listening)
    else {
        let meaning = "It is not known how many guests can have a port of the loopback.";
        return PORTS.not_seen(need, meaning);
    };
    let usable = usable(&(low..=high)).fold(0_u64, |ports, _| ports + 1);
    let free = usable.saturating_sub(listening);
    PORTS
        .allows(
            want,
            Some(free),
            format!(
                "{} free outside the kernel's own range {low} to {high}",
                count(free)
            ),
            need,
            "Each guest's SSH server is reached through a port of the host's loopback; those of \
             the kernel's own range could be taken at any time.",
        )
        .with_fix(Fix::manual(
            Needs::Command,
            "narrow the kernel's range, such as sysctl -w \
             net.ipv4.ip_local_port_range=\"56000 60999\", or launch with --net none",
        ))
}

/// How many a table of the kernel's holds matters to nobody but guests' taps.
fn neighbours(host: &Host) -> Finding {
    let need = "none of them";
    let meaning = "Each tap's guest is a permanent neighbour of the host's, which gc_thresh3 does \
                   not count: it bounds the others, and not the number of taps.";
    let Some(most) = host.network.neighbours_max else {
        return NEIGHBOURS.not_seen(need, meaning);
    };
    NEIGHBOURS.finds(
        Severity::Ok,
        format!("{} others (gc_thresh3)", count(most)),
        need,
        meaning,
    )
}

fn backlog(host: &Host, want: &Want) -> Finding {
    let need = format!("a packet of each of {}", counted(want.wanted(), "guest"));
    let meaning = "Packets of taps queue here, for each CPU: when all guests send at once, more \
                   are dropped. Guests behind --net user have none.";
    let Some(most) = host.network.backlog else {
        return BACKLOG.not_seen(need, meaning);
    };
    let severity = if most < want.wanted() {
        want.with_taps(Severity::Advice)
    } else {
        Severity::Ok
    };
    BACKLOG
        .finds(severity, count(most), need, meaning)
        .with_fix(Fix::manual(
            Needs::Command,
            format!(
                "sysctl -w net.core.netdev_max_backlog={}",
                want.wanted().next_power_of_two()
            ),
        ))
}

fn tun(host: &Host, want: &Want) -> Finding {
    let (severity, value) = if !host.network.tun {
        (want.with_taps(Severity::Blocker), "absent")
    } else if host.privileged {
        (Severity::Ok, "present")
    } else {
        (
            want.with_taps(Severity::Advice),
            "present; this user is not root",
        )
    };
    TUN.finds(
        severity,
        value,
        "/dev/net/tun, and CAP_NET_ADMIN",
        "Taps are made through it, one a guest, and routed: the 1,024 ports of a bridge do not \
         bound them. Guests behind --net user do not need it.",
    )
    .with_fix(Fix::manual(
        Needs::Command,
        "modprobe tun, and launch as root; or launch with --net user",
    ))
}

fn tap_subnet(host: &Host, want: &Want) -> Finding {
    let need = format!("links for {}, and no route", numbered(want));
    let taps = match (want.machine.net, &host.network.taps) {
        (Net::User | Net::None, _) => {
            let meaning = "Only guests on taps have addresses of the host's network.";
            return TAP_SUBNET.finds(Severity::Ok, "not needed", need, meaning);
        }
        (Net::Tap, None) => {
            let meaning = "It is not known whether the addresses of guests on taps are free.";
            return TAP_SUBNET.not_seen(need, meaning);
        }
        (Net::Tap, Some(taps)) => taps,
    };
    let fix = |instruction| Fix::manual(Needs::Choice, instruction);
    let subnet = &taps.subnet;
    match &taps.overlaps {
        Some(route) => TAP_SUBNET
            .finds(
                Severity::Blocker,
                format!("{subnet} overlaps the route to {route}"),
                need,
                "The host sends packets for some of these addresses elsewhere: no guest gets one.",
            )
            .with_fix(fix("choose another with --tap-subnet")),
        None => TAP_SUBNET
            .allows(
                want,
                Some(want.of_numbers(taps.links)),
                format!("{subnet}: {}", counted(taps.links, "link")),
                need,
                "Each guest's link takes two addresses, which follow the guest's number.",
            )
            .with_fix(fix(
                "choose a larger one with --tap-subnet, such as 10.0.0.0/14, or a lower --first",
            )),
    }
}

fn forwarding(host: &Host, want: &Want) -> Finding {
    let need = "packets of one tap reach another";
    let meaning = "A packet that was sent from one tap to another did not arrive: a firewall drops \
                   what this host forwards, and guests would reach the host but not each other.";
    match (want.machine.net, host.network.forwards) {
        (Net::User | Net::None, _) => FORWARDING.finds(
            Severity::Ok,
            "not needed",
            need,
            "Only guests behind taps reach each other through the host.",
        ),
        (Net::Tap, Some(true)) => FORWARDING.finds(
            Severity::Ok,
            "they do",
            need,
            "A packet that was sent from one tap to another arrived: no firewall is in the way.",
        ),
        (Net::Tap, Some(false)) => FORWARDING
            .finds(Severity::Blocker, "dropped", need, meaning)
            .with_fix(Fix::manual(
                Needs::Command,
                "let them pass, such as iptables -I FORWARD -i ib+ -o ib+ -j ACCEPT, or in the \
                 chain of nftables that drops them: iifname \"ib*\" oifname \"ib*\" accept",
            )),
        (Net::Tap, None) => FORWARDING.not_seen(
            need,
            "It is not known whether a firewall drops what this host forwards between guests.",
        ),
    }
}
