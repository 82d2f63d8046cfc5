//! Memory: how many guests fit, and what else uses it.

use std::path::Path;

use super::text::{count, counted, size};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::memory;
use crate::host::settings::Knob;
use crate::host::snapshot::{Host, Ksm};
use crate::host::want::{Basis, Want};
use crate::vmm::Sharing;

const MEMORY: Check = Check {
    id: "memory",
    document: "proc_meminfo(5)",
};
const CGROUP: Check = Check {
    id: "memory-cgroup",
    document: "https://docs.kernel.org/admin-guide/cgroup-v2.html#memory",
};
const HUGE_PAGES: Check = Check {
    id: "huge-pages",
    document: "https://docs.kernel.org/admin-guide/mm/hugetlbpage.html",
};
const THP: Check = Check {
    id: "thp",
    document: "https://docs.kernel.org/admin-guide/mm/transhuge.html",
};
const SWAP: Check = Check {
    id: "swap",
    document: "https://docs.kernel.org/admin-guide/sysctl/vm.html#swappiness",
};
const OVERCOMMIT: Check = Check {
    id: "overcommit",
    document: "https://docs.kernel.org/mm/overcommit-accounting.html",
};
const PSI: Check = Check {
    id: "psi",
    document: "https://docs.kernel.org/accounting/psi.html",
};

/// What a VMM may write of its own address space beside the guest's RAM: what
/// a strict commit limit counts, touched or not.
const VMM_COMMIT: u64 = 200 << 20;

pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    vec![
        memory(host, want),
        cgroup(host, want),
        huge_pages(host),
        thp(host),
        swap(host),
        overcommit(host, want),
        psi(host),
    ]
}

/// Whether the wanted guests fit while nothing is shared; yes, where that
/// cannot be seen.
pub(super) fn fits_unshared(host: &Host, want: &Want) -> bool {
    room(host).is_none_or(|room| guests(room, want, want.cost.memory) >= want.wanted())
}

/// Guests that there is memory for, as things are; `None` where that cannot be
/// seen.
pub(super) fn allowed(host: &Host, want: &Want) -> Option<u64> {
    Some(guests(room(host)?, want, each(host, want)))
}

/// Memory that guests may take; `None` where that cannot be seen.
fn room(host: &Host) -> Option<u64> {
    let room = [free(host), tightest(host).map(|(room, _)| room)];
    room.into_iter().flatten().min()
}

/// Memory that guests may take: what is available, less what stays free so
/// that the host itself can go on.
fn free(host: &Host) -> Option<u64> {
    Some(host.memory.available?.saturating_sub(floor(host)))
}

fn floor(host: &Host) -> u64 {
    memory::keep_free(host.memory.total)
}

/// What the tightest control group still allows, and its folder.
fn tightest(host: &Host) -> Option<(u64, &Path)> {
    let groups = host.cgroup.groups.iter();
    groups
        .filter_map(|group| Some((group.memory_room()?, group.path.as_path())))
        .min()
}

fn guests(room: u64, want: &Want, each: u64) -> u64 {
    room.saturating_sub(want.cost.memory_once) / each.max(1)
}

/// Whether KSM merges guests' RAM as things are.
fn shares(host: &Host, want: &Want) -> bool {
    let runs = host.ksm.as_ref().is_some_and(Ksm::runs);
    want.machine.sharing != Sharing::None && runs
}

/// What one guest more takes, as things are.
fn each(host: &Host, want: &Want) -> u64 {
    match want.cost.memory_merged {
        Some(merged) if shares(host, want) => merged,
        _ => want.cost.memory,
    }
}

/// Only measured costs are good enough to turn guests away.
fn severity(want: &Want, allowed: u64) -> Severity {
    let severity = want.limit(allowed);
    match want.cost.basis {
        Basis::Measured => severity,
        Basis::Assumed => severity.max(Severity::Advice),
    }
}

/// The finding that there is `room`, such as `2 GiB free`, for guests.
fn limit(check: Check, host: &Host, want: &Want, room: u64, value: String) -> Finding {
    let each = each(host, want);
    let allowed = guests(room, want, each);
    let need = want
        .wanted()
        .saturating_mul(each)
        .saturating_add(want.cost.memory_once);
    let known = match want.cost.basis {
        Basis::Measured => "measured here",
        Basis::Assumed => "assumed; --canary measures it",
    };
    let sharing = if shares(host, want) && want.cost.memory_merged.is_some() {
        "merged"
    } else {
        "with nothing merged"
    };
    let finding = check.finds(
        severity(want, allowed),
        value,
        format!("{} for {}", size(need), counted(want.wanted(), "guest")),
        format!(
            "A guest takes {}, {sharing} ({known}); {} fit.",
            size(each),
            count(allowed)
        ),
    );
    let finding = Finding {
        guests: Some(allowed),
        ..finding
    };
    finding.with_fix(Fix::manual(
        Needs::Choice,
        "launch fewer guests, share their pages (--sharing guest with KSM on), or free memory",
    ))
}

fn memory(host: &Host, want: &Want) -> Finding {
    let (Some(available), Some(room)) = (host.memory.available, free(host)) else {
        let meaning = "It is not known how many guests fit in memory.";
        return MEMORY.not_seen("MemAvailable", meaning);
    };
    let value = format!(
        "{} available, of which {} stays free",
        size(available),
        size(floor(host))
    );
    limit(MEMORY, host, want, room, value)
}

fn cgroup(host: &Host, want: &Want) -> Finding {
    let Some((room, path)) = tightest(host) else {
        let meaning = "No control group of this process bounds the memory of guests.";
        return CGROUP.finds(Severity::Ok, "no limit", "room for the fleet", meaning);
    };
    let value = format!("{} left in {}", size(room), path.display());
    limit(CGROUP, host, want, room, value)
}

fn huge_pages(host: &Host) -> Finding {
    let need = "none set aside";
    match host.memory.huge_pages {
        None => HUGE_PAGES.not_seen(need, "It is not known whether memory is set aside."),
        Some(0) => {
            let meaning = "All memory is there for guests.";
            HUGE_PAGES.finds(Severity::Ok, "none", need, meaning)
        }
        Some(bytes) => HUGE_PAGES
            .finds(
                Severity::Advice,
                format!("{} set aside", size(bytes)),
                need,
                format!(
                    "These {} are lost to guests, used or not: their RAM is ordinary pages, which \
                     KSM can merge.",
                    size(bytes)
                ),
            )
            .with_fix(Fix::manual(
                Needs::Command,
                "give them back: sysctl vm.nr_hugepages=0 (hugepages= on the kernel's command \
                 line brings them back)",
            )),
    }
}

/// For information: what other programs get.
fn thp(host: &Host) -> Finding {
    let need = "any of them";
    let meaning = "imgbuild's QEMUs are started with huge pages off for themselves: guests get the \
                   pages that they touch and no more.";
    match &host.memory.transparent_huge_pages {
        None => THP.not_seen(need, meaning),
        Some(policy) => THP.finds(Severity::Ok, policy, need, meaning),
    }
}

fn swap(host: &Host) -> Finding {
    let need = "none in use";
    let (Some(total), Some(free)) = (host.memory.swap, host.memory.swap_free) else {
        return SWAP.not_seen(need, "It is not known whether guests could be swapped out.");
    };
    if total == 0 {
        let meaning = "Guests stay in memory.";
        return SWAP.finds(Severity::Ok, "none", need, meaning);
    }
    let used = total.saturating_sub(free);
    let heavily = host.memory.total.unwrap_or(total) / 10;
    let severity = if used > heavily {
        Severity::Advice
    } else {
        Severity::Ok
    };
    SWAP.finds(
        severity,
        format!("{} of {} in use", size(used), size(total)),
        need,
        "A guest that is swapped out stops burning until it is read back, so guests no longer burn \
         alike.",
    )
    .with_fix(Fix::manual(
        Needs::Command,
        "end what fills memory, then swapoff -a and swapon -a",
    ))
}

fn overcommit(host: &Host, want: &Want) -> Finding {
    let need = "0 or 1";
    let memory = &host.memory;
    match (memory.overcommit, memory.commit_limit, memory.committed) {
        (None, ..) | (Some(2), None, _) | (Some(2), _, None) => OVERCOMMIT.not_seen(
            need,
            "It is not known whether the kernel counts untouched memory.",
        ),
        (Some(2), Some(limit), Some(committed)) => {
            let each = want.machine.memory.bytes().saturating_add(VMM_COMMIT);
            let allowed = limit.saturating_sub(committed) / each;
            let needed = want.wanted().saturating_mul(each);
            OVERCOMMIT
                .allows(
                    want,
                    Some(allowed),
                    format!("2, with {} left", size(limit.saturating_sub(committed))),
                    format!("{need}, or {} left", size(needed)),
                    format!(
                        "The kernel counts all that guests could touch, about {} each, merged or \
                         not.",
                        size(each)
                    ),
                )
                .with_fix(Fix::setting(Knob::OvercommitMemory, 0))
        }
        (Some(mode), ..) => {
            let meaning = "Memory that guests have and do not touch costs nothing.";
            OVERCOMMIT.finds(Severity::Ok, mode.to_string(), need, meaning)
        }
    }
}

fn psi(host: &Host) -> Finding {
    let (severity, value) = if host.memory.pressure {
        (Severity::Ok, "present")
    } else {
        (Severity::Advice, "absent")
    };
    PSI.finds(
        severity,
        value,
        "/proc/pressure/memory",
        "While guests start it reports that memory runs short, before free memory does.",
    )
    .with_fix(Fix::manual(
        Needs::Reboot,
        "boot with psi=1, or a kernel built with CONFIG_PSI",
    ))
}
