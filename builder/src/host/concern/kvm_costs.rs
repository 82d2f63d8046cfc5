//! What KVM costs besides running guests' code: time to make a machine, CPU time
//! while that sleeps, and threads of the kernel.

use super::facts::config;
use super::facts::link::broken;
use super::text::{count, counted};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::kvm::probe::{Extremes, Outcome};
use crate::host::settings::Knob;
use crate::host::snapshot::Host;
use crate::host::want::Want;

const VM_CREATE: Check = Check {
    id: "vm-create",
    document: "https://docs.kernel.org/admin-guide/cgroup-v2.html#mounting",
};
const HALT_POLL: Check = Check {
    id: "halt-poll",
    document: "https://docs.kernel.org/virt/kvm/halt-polling.html",
};
const PIT: Check = Check {
    id: "kvm-pit",
    document: "https://docs.kernel.org/virt/kvm/api.html#kvm-create-pit2",
};
const NX_HUGE_PAGES: Check = Check {
    id: "nx-huge-pages",
    document: "https://docs.kernel.org/admin-guide/hw-vuln/multihit.html",
};

/// Nanoseconds to make a machine above which a fleet's start is held up. It takes
/// a third of a millisecond where the kernel waits for nothing, and 10 to 30 where
/// it waits for all CPUs to pass by.
const SLOW: u64 = 5_000_000;

/// Since when the thread for huge pages is the VMM's own, and moved nowhere.
const NO_MOVE: (u32, u32) = (6, 13);

/// What has KVM make no thread for huge pages.
const NO_THREAD: &str = "echo never > /sys/module/kvm/parameters/nx_huge_pages while no guest \
                         runs, or boot with kvm.nx_huge_pages=never";

/// Judges what guests under KVM cost the kernel, where they can be had.
pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    if broken(host).is_some() {
        return Vec::new();
    }
    vec![
        vm_create(host, want),
        halt_poll(host, want),
        pit(host),
        nx_huge_pages(host, want),
    ]
}

/// Of several machines made in a row the first may be the only one that waits, so
/// that the slowest counts.
fn vm_create(host: &Host, want: &Want) -> Finding {
    let here = match &host.kvm.probe {
        Some(Outcome::Ran(probe)) => probe.vm_create_ns,
        Some(Outcome::Failed(_) | Outcome::Overdue(_)) | None => None,
    };
    let need = format!("at most {}", milliseconds(SLOW));
    let places = [
        ("here", here),
        ("in a fleet's control group", host.kvm.vm_create_in_fleet),
    ];
    let seen: Vec<_> = places
        .into_iter()
        .filter_map(|(place, time)| Some((place, time?)))
        .collect();
    let Some(slowest) = seen.iter().map(|(_, time)| time.most).max() else {
        let meaning = "It was not measured how long a guest's start waits for the kernel.";
        return VM_CREATE.not_seen(need, meaning);
    };
    let value: Vec<_> = seen
        .into_iter()
        .map(|(place, time)| format!("{} {place}", span(time)))
        .collect();
    let value = value.join(", ");
    if slowest <= SLOW {
        let meaning = "The kernel makes a machine without waiting.";
        return VM_CREATE.finds(Severity::Ok, value, need, meaning);
    }
    if !waits_for_cpus(host) {
        let meaning = "No known cause of such a wait applies here: this host is busy, or slow.";
        return VM_CREATE.finds(Severity::Ok, value, need, meaning);
    }
    let all = want.guests.map_or_else(String::new, |guests| {
        let all = milliseconds(slowest.saturating_mul(guests.into()));
        format!(", {all} for {}", counted(guests.into(), "guest"))
    });
    let or_no_thread = if is_safe(host) {
        format!("; or {NO_THREAD}")
    } else {
        String::new()
    };
    VM_CREATE
        .finds(
            want.under_kvm(Severity::Advice),
            value,
            need,
            format!(
                "Each guest's start waits that long in the kernel, one after the other{all}, \
                 because KVM's thread for huge pages joins the control groups of its maker, which \
                 takes an answer of all CPUs."
            ),
        )
        .with_fix(Fix::manual(
            Needs::Command,
            format!(
                "mount -o remount,favordynmods /sys/fs/cgroup (Linux 6.0 and later){or_no_thread}"
            ),
        ))
}

/// Whether the kernel waits for all CPUs before a machine is made: where it makes a
/// thread for that, which it moves into the maker's control groups, and does not
/// favour moves.
fn waits_for_cpus(host: &Host) -> bool {
    let moves_a_thread = config::version(host).is_none_or(|version| version < NO_MOVE);
    moves_a_thread && !has_no_recovery(host) && host.cgroup.favours_moves != Some(true)
}

fn halt_poll(host: &Host, want: &Want) -> Finding {
    let Some(nanoseconds) = number(host, "halt_poll_ns") else {
        let meaning = "It is not known whether a guest that sleeps keeps a CPU for a while.";
        return HALT_POLL.not_seen("0 for a fleet", meaning);
    };
    let few = want
        .guests
        .is_some_and(|guests| u64::from(guests) <= host.cpu.allowed);
    let (severity, meaning) = if nanoseconds == 0 {
        (
            Severity::Ok,
            "A guest that sleeps gives its CPU away at once.",
        )
    } else if few {
        (
            Severity::Ok,
            "A guest that sleeps keeps its CPU for so long at most, and wakes sooner; the fleet \
             has no more guests than there are CPUs.",
        )
    } else {
        (
            want.under_kvm(Severity::Advice),
            "A guest that sleeps keeps its CPU for up to so long, in case it wakes: guests that \
             wake often burn CPU time that others could use. The setting affects every machine of \
             the host.",
        )
    };
    HALT_POLL
        .finds(
            severity,
            format!("{} ns", count(nanoseconds)),
            "0 for a fleet",
            meaning,
        )
        .with_fix(Fix::setting(Knob::KvmHaltPollNs, 0))
}

/// For information: imgbuild's guests keep their PIT. Without one, more of them hung
/// in the machine in which KVM is tested, for a reason that is not known.
fn pit(host: &Host) -> Finding {
    let need = "at most one for each guest";
    match host.kvm.pit_threads {
        None => PIT.not_seen(need, "It is not known whether machines' PITs take threads."),
        Some(threads) => PIT.finds(
            Severity::Ok,
            counted(threads, "kernel thread"),
            need,
            "KVM runs a thread for each machine with a PIT, which imgbuild's guests have: it takes \
             a process number, and on AMD's CPUs KVM uses no AVIC for such a machine.",
        ),
    }
}

fn nx_huge_pages(host: &Host, want: &Want) -> Finding {
    let need = "never, where the CPU is not affected";
    let Some(set) = host.kvm.parameters.get("nx_huge_pages") else {
        let meaning = "It is not known whether KVM has a thread for each guest's huge pages.";
        return NX_HUGE_PAGES.not_seen(need, meaning);
    };
    let multihit = host.cpu.itlb_multihit.as_deref().unwrap_or("unknown");
    let value = format!("{set}, itlb_multihit: {multihit}");
    if has_no_recovery(host) {
        let meaning = "KVM has no thread for huge pages that it split.";
        return NX_HUGE_PAGES.finds(Severity::Ok, value, need, meaning);
    }
    if !is_safe(host) {
        let meaning = "KVM splits huge pages that guests run code from, because a guest could hang \
                       a CPU otherwise, and runs a thread for each guest to join them again.";
        return NX_HUGE_PAGES.finds(Severity::Ok, value, need, meaning);
    }
    NX_HUGE_PAGES
        .finds(
            want.under_kvm(Severity::Advice),
            value,
            need,
            "KVM runs a thread for each guest to join split huge pages, although it splits none \
             here: the thread takes a process number, and may delay each start (`vm-create`).",
        )
        .with_fix(Fix::manual(Needs::Command, NO_THREAD))
}

/// Whether KVM has no thread for huge pages at all.
fn has_no_recovery(host: &Host) -> bool {
    let set = host.kvm.parameters.get("nx_huge_pages");
    set.is_some_and(|value| value == "never")
}

/// Whether no guest can hang a CPU by its huge pages.
fn is_safe(host: &Host) -> bool {
    host.cpu.itlb_multihit.as_deref() == Some("Not affected")
}

fn number(host: &Host, parameter: &str) -> Option<u64> {
    host.kvm.parameters.get(parameter)?.parse().ok()
}

/// The least and the most, in milliseconds.
fn span(Extremes { least, most }: Extremes) -> String {
    let (least, most) = (milliseconds(least), milliseconds(most));
    if least == most {
        most
    } else {
        format!("{least} to {most}")
    }
}

/// A time, to two digits below a second and to whole seconds above.
fn milliseconds(nanoseconds: u64) -> String {
    let microseconds = nanoseconds / 1_000;
    if microseconds >= 10_000_000 {
        format!("{} s", count(microseconds / 1_000_000))
    } else if microseconds >= 10_000 {
        format!("{} ms", count(microseconds / 1_000))
    } else {
        format!("{}.{:02} ms", microseconds / 1_000, microseconds / 10 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_what_tells_them_apart() {
        for (nanoseconds, text) in [
            (0, "0.00 ms"),
            (352_000, "0.35 ms"),
            (9_994_000, "9.99 ms"),
            (27_123_000, "27 ms"),
            (9_000_000_000, "9,000 ms"),
            (27_000_000_000, "27 s"),
        ] {
            assert_eq!(milliseconds(nanoseconds), text);
        }
        for (most, text) in [(27_000_000, "0.35 ms to 27 ms"), (352_000, "0.35 ms")] {
            let least = 352_000;
            assert_eq!(span(Extremes { least, most }), text);
        }
    }
}
