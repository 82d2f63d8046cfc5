//! Ports for guests behind QEMU's own network, and what taps need.

use super::text::{count, counted};
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
const TUN: Check = Check {
    id: "tun",
    document: "https://docs.kernel.org/networking/tuntap.html",
};

/// Judges the network.
pub fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    vec![
        ports(host, want),
        neighbours(host, want),
        backlog(host, want),
        tun(host),
    ]
}

fn ports(host: &Host, want: &Want) -> Finding {
    let need = format!("{} free", counted(want.wanted(), "port"));
    match want.net {
        Net::Tap | Net::None => {
            let meaning =
                "Guests without a network of QEMU's are not logged in to, and need no port.";
            return PORTS.finds(Severity::Ok, "none needed", "none", meaning);
        }
        Net::User => {}
    }
    let (Some([low, high]), Some(listening)) = (host.network.ephemeral, host.network.listening)
    else {
        let meaning = "How many guests can have a port of the loopback is not known.";
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
        .mended_by(Fix::manual(
            Needs::Command,
            "narrow the kernel's range, such as sysctl -w \
             net.ipv4.ip_local_port_range=\"56000 60999\", or launch with --net none",
        ))
}

/// Whether fewer than the wanted guests have room in a table that taps need.
fn short(want: &Want, most: u64) -> Severity {
    if most < want.wanted() {
        Severity::Advice
    } else {
        Severity::Ok
    }
}

fn neighbours(host: &Host, want: &Want) -> Finding {
    let need = format!("an entry for each of {}", counted(want.wanted(), "guest"));
    let meaning = "A tap for each guest is a neighbour for each: past gc_thresh3 the kernel drops \
                   packets to new ones. Guests behind --net user have none.";
    let Some(most) = host.network.neighbours_max else {
        return NEIGHBOURS.not_seen(need, meaning);
    };
    let soft = host.network.neighbours_soft.map_or_else(
        || "not seen".to_owned(),
        |soft| format!("{} (gc_thresh2)", count(soft)),
    );
    let raised = want.wanted().next_power_of_two();
    NEIGHBOURS
        .finds(
            short(want, most),
            format!("{} (gc_thresh3), {soft}", count(most)),
            need,
            meaning,
        )
        .mended_by(Fix::manual(
            Needs::Command,
            format!(
                "for taps: sysctl -w net.ipv4.neigh.default.gc_thresh3={} \
                 net.ipv4.neigh.default.gc_thresh2={raised}",
                raised * 2
            ),
        ))
}

fn backlog(host: &Host, want: &Want) -> Finding {
    let need = format!("a packet of each of {}", counted(want.wanted(), "guest"));
    let meaning = "Packets of taps queue here, for each CPU: when all guests send at once, more \
                   are dropped. Guests behind --net user have none.";
    let Some(most) = host.network.backlog else {
        return BACKLOG.not_seen(need, meaning);
    };
    BACKLOG
        .finds(short(want, most), count(most), need, meaning)
        .mended_by(Fix::manual(
            Needs::Command,
            format!(
                "for taps: sysctl -w net.core.netdev_max_backlog={}",
                want.wanted().next_power_of_two()
            ),
        ))
}

fn tun(host: &Host) -> Finding {
    let (severity, value) = if host.network.tun {
        (Severity::Ok, "present")
    } else {
        (Severity::Advice, "absent")
    };
    TUN.finds(
        severity,
        value,
        "/dev/net/tun",
        "Taps are made through it, one a guest, and routed: the 1,024 ports of a bridge do not \
         bound them. Guests behind --net user do without.",
    )
    .mended_by(Fix::manual(Needs::Command, "for taps: modprobe tun"))
}
