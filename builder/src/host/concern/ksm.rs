//! Kernel samepage merging.

use super::memory;
use super::text::count;
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::settings::{Knob, Setting};
use crate::host::snapshot::{Host, Ksm, MemoryMerge};
use crate::host::want::{Basis, Want};
use crate::sample::ksm::{KSMD_MAX, PAGES_A_GUEST};
use crate::vmm::Sharing;

const DOCUMENT: &str = "https://docs.kernel.org/admin-guide/mm/ksm.html";
const KSM: Check = Check {
    id: "ksm",
    document: DOCUMENT,
};
const RUN: Check = Check {
    id: "ksm-run",
    document: DOCUMENT,
};
const RATE: Check = Check {
    id: "ksm-rate",
    document: DOCUMENT,
};
const SMART_SCAN: Check = Check {
    id: "ksm-smart-scan",
    document: DOCUMENT,
};
const PRIORITY: Check = Check {
    id: "ksm-priority",
    document: "setpriority(2)",
};
const MAX_SHARING: Check = Check {
    id: "ksm-max-page-sharing",
    document: DOCUMENT,
};
const ZERO_PAGES: Check = Check {
    id: "ksm-zero-pages",
    document: DOCUMENT,
};
const ACROSS_NODES: Check = Check {
    id: "ksm-across-nodes",
    document: DOCUMENT,
};
const MEMORY_MERGE: Check = Check {
    id: "memory-merge",
    document: "prctl(2), PR_SET_MEMORY_MERGE",
};
const ALLOCATOR: Check = Check {
    id: "allocator",
    document: "https://jemalloc.net/jemalloc.3.html#tuning",
};

/// Seconds that a pass over all guests may take; a page is merged in the
/// second pass that finds it unchanged.
const PASS: u64 = 10;
/// Seconds of a pass above which guests that are started back to back are not
/// merged before memory ends.
const LATE_PASS: u64 = 60;
/// Pages a turn, and milliseconds between turns, that keep ksmd busy.
const PAGES_TO_SCAN: u64 = 20_000;
const SLEEP_MILLISECS: u64 = 10;
/// The nice value of ksmd at which it keeps up beside guests that burn. At the
/// kernel's 5 it gets a third of the CPU time of any of them; at this, nine times as
/// much.
const NICE: i64 = -10;
const RENICE: Setting = Setting {
    knob: Knob::KsmdNice,
    value: NICE,
};
/// Mappings of one page. A page that all guests have alike is kept once for
/// every so many of them.
const MAX_PAGE_SHARING: u64 = 4_096;

pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    let mut findings = match &host.ksm {
        None => vec![absent(host, want)],
        Some(ksm) if ksm.runs() => vec![
            present(),
            run(host, want, ksm),
            rate(host, want, ksm),
            priority(want, ksm),
            smart_scan(want, ksm),
            max_page_sharing(want, ksm),
            zero_pages(want, ksm),
            across_nodes(host, want, ksm),
        ],
        // How it would run is the business of the fix that turns it on.
        Some(ksm) => vec![present(), run(host, want, ksm)],
    };
    findings.push(memory_merge(host, want));
    findings.push(allocator(host, want));
    findings
}

/// How much it matters that nothing is merged: guests that do not fit as they
/// are cannot be launched, if what they cost is known.
fn unmerged(host: &Host, want: &Want) -> Severity {
    let needed = want.guests.is_some() && !memory::fits_unshared(host, want);
    match want.cost.basis {
        Basis::Measured if needed => want.when_shared(Severity::Blocker),
        Basis::Measured | Basis::Assumed => want.when_shared(Severity::Advice),
    }
}

/// What not merging means for guests.
fn unmerged_meaning(host: &Host, want: &Want) -> &'static str {
    match want.machine.sharing {
        Sharing::None => "Guests with --sharing none do not use it.",
        Sharing::Guest | Sharing::All if memory::fits_unshared(host, want) => {
            "Each guest keeps a copy of its own of equal pages; the fleet fits anyway."
        }
        Sharing::Guest | Sharing::All => {
            "Each guest keeps a copy of its own of equal pages, so the fleet does not fit."
        }
    }
}

fn present() -> Finding {
    let meaning = "The kernel can keep equal pages of guests once.";
    KSM.finds(Severity::Ok, "present", "CONFIG_KSM", meaning)
}

fn absent(host: &Host, want: &Want) -> Finding {
    let meaning = unmerged_meaning(host, want);
    KSM.finds(unmerged(host, want), "absent", "CONFIG_KSM", meaning)
        .with_fix(Fix::manual(
            Needs::Reboot,
            "boot a kernel built with CONFIG_KSM=y, or launch with --sharing none",
        ))
}

fn run(host: &Host, want: &Want, ksm: &Ksm) -> Finding {
    let need = "run=1";
    match ksm.run {
        None => RUN.not_seen(need, "It is not known whether pages are merged."),
        Some(1) => RUN.finds(
            Severity::Ok,
            "run=1",
            need,
            "Equal pages of guests are kept once, as are those of every process that asks for \
             merging.",
        ),
        Some(run) => RUN
            .finds(
                unmerged(host, want),
                format!("run={run}"),
                need,
                format!(
                    "{} Turning KSM on affects every process that asked for merging.",
                    unmerged_meaning(host, want)
                ),
            )
            .with_fix(Fix::Settings(settings(host, ksm))),
    }
}

/// What turns KSM on so that it keeps up with guests that start, `run` last.
///
/// `max_page_sharing` and `merge_across_nodes` can change only while nothing is
/// merged, and `pages_to_scan` not while an advisor sets it (mm/ksm.c). What
/// the kernel does not have, or has as it should be, is left out.
fn settings(host: &Host, ksm: &Ksm) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |knob, value, now: Option<u64>| {
        if now.is_some_and(|now| now != value) {
            settings.push(Setting::of(knob, value));
        }
    };
    if is_empty(ksm) {
        if host.nodes.len() > 1 {
            set(Knob::KsmMergeAcrossNodes, 1, ksm.merge_across_nodes);
        }
        let sharing = ksm.max_page_sharing.filter(|now| *now < MAX_PAGE_SHARING);
        set(Knob::KsmMaxPageSharing, MAX_PAGE_SHARING, sharing);
    }
    set(Knob::KsmUseZeroPages, 1, ksm.use_zero_pages);
    set(Knob::KsmSmartScan, 0, ksm.smart_scan);
    if !is_advised(ksm) {
        set(Knob::KsmPagesToScan, PAGES_TO_SCAN, ksm.pages_to_scan);
    }
    set(
        Knob::KsmSleepMillisecs,
        SLEEP_MILLISECS,
        ksm.sleep_millisecs,
    );
    set(Knob::KsmRun, 1, ksm.run);
    if ksm.ksmd_nice.is_some_and(|nice| nice > NICE) {
        settings.push(RENICE);
    }
    settings
}

fn priority(want: &Want, ksm: &Ksm) -> Finding {
    let need = format!("ksmd at nice {NICE}");
    let meaning = "ksmd merges pages whenever a CPU is left for it, and guests that burn leave \
                   none.";
    match ksm.ksmd_nice {
        None => PRIORITY.finds(
            Severity::Ok,
            "not seen: ksmd is outside this PID namespace",
            need,
            "Whether guests that burn keep ksmd from merging is not known.",
        ),
        Some(nice) if nice > NICE => PRIORITY
            .finds(
                want.when_shared(Severity::Advice),
                format!("nice {nice}"),
                need,
                meaning,
            )
            .with_fix(Fix::Settings(vec![RENICE])),
        Some(nice) => PRIORITY.finds(Severity::Ok, format!("nice {nice}"), need, meaning),
    }
}

fn is_empty(ksm: &Ksm) -> bool {
    ksm.pages_shared == Some(0)
}

fn is_advised(ksm: &Ksm) -> bool {
    ksm.advisor_mode.as_deref() == Some("scan-time")
}

fn rate(host: &Host, want: &Want, ksm: &Ksm) -> Finding {
    let asked = want.guests.map(u64::from);
    let guests = asked.or_else(|| memory::allowed(host, want)).unwrap_or(1);
    let pages = guests.saturating_mul(PAGES_A_GUEST);
    let needed = (pages / PASS).min(KSMD_MAX);
    let need = format!("{} pages a second", count(needed));
    let (Some(turn), Some(sleep)) = (ksm.pages_to_scan, ksm.sleep_millisecs) else {
        return RATE.not_seen(need, "It is not known how fast guests' pages are merged.");
    };
    if is_advised(ksm) {
        let value = format!("{} pages a turn now, set by the advisor", count(turn));
        let meaning = "The kernel's advisor (advisor_mode=scan-time) chooses how much ksmd looks \
                       at, for a pass in advisor_target_scan_time seconds.";
        return RATE.finds(Severity::Ok, value, need, meaning);
    }
    // Without a sleep it goes as fast as it can.
    let rate = turn
        .saturating_mul(1000)
        .checked_div(sleep)
        .unwrap_or(KSMD_MAX)
        .min(KSMD_MAX);
    let late = pages > rate.saturating_mul(LATE_PASS) && fits_only_merged(host, want);
    let (severity, outcome) = if rate >= needed {
        (Severity::Ok, "")
    } else if late {
        let outcome = "; that many fit only merged, and memory ends before";
        (want.when_shared(Severity::Blocker), outcome)
    } else {
        (want.when_shared(Severity::Advice), "")
    };
    RATE.finds(
        severity,
        format!("{} pages a second", count(rate)),
        need,
        format!(
            "A pass over {} guests takes {} s; a page is merged when a second pass finds it \
             unchanged, and until then each guest costs its full memory{outcome}.",
            count(guests),
            count(pages / rate.max(1))
        ),
    )
    .with_fix(Fix::Settings(vec![
        Setting::of(Knob::KsmPagesToScan, PAGES_TO_SCAN),
        Setting::of(Knob::KsmSleepMillisecs, SLEEP_MILLISECS),
    ]))
}

/// Whether the guests asked for are known to fit once they are merged, while KSM
/// runs, and not before.
fn fits_only_merged(host: &Host, want: &Want) -> bool {
    want.guests.is_some()
        && want.cost.basis == Basis::Measured
        && !memory::fits_unshared(host, want)
        && memory::allowed(host, want).is_some_and(|allowed| allowed >= want.wanted())
}

fn smart_scan(want: &Want, ksm: &Ksm) -> Finding {
    let need = "smart_scan=0";
    let meaning = "With it, pages that did not merge at first are passed over for up to 8 passes, \
                   so guests shrink later.";
    match ksm.smart_scan {
        None => SMART_SCAN.finds(Severity::Ok, "not in this kernel", need, meaning),
        Some(0) => SMART_SCAN.finds(Severity::Ok, "smart_scan=0", need, meaning),
        Some(value) => SMART_SCAN
            .finds(
                want.when_shared(Severity::Advice),
                format!("smart_scan={value}"),
                need,
                meaning,
            )
            .with_fix(Fix::setting(Knob::KsmSmartScan, 0)),
    }
}

/// What sets a knob that can change only while nothing is merged.
fn while_empty(ksm: &Ksm, knob: Knob, value: u64) -> Fix {
    if is_empty(ksm) {
        return Fix::setting(knob, value);
    }
    Fix::manual(
        Needs::Command,
        format!(
            "end what has merged pages, or give up its merging (echo 2 > \
             /sys/kernel/mm/ksm/run); then echo {value} > {knob}"
        ),
    )
}

fn max_page_sharing(want: &Want, ksm: &Ksm) -> Finding {
    let need = format!("max_page_sharing={MAX_PAGE_SHARING}");
    let Some(value) = ksm.max_page_sharing else {
        return MAX_SHARING.not_seen(need, "It is not known how many guests share one page.");
    };
    let severity = if value < MAX_PAGE_SHARING {
        want.when_shared(Severity::Advice)
    } else {
        Severity::Ok
    };
    let meaning = format!(
        "A page that all guests have alike is kept once for every {} of them.",
        count(value)
    );
    MAX_SHARING
        .finds(severity, format!("max_page_sharing={value}"), need, meaning)
        .with_fix(while_empty(ksm, Knob::KsmMaxPageSharing, MAX_PAGE_SHARING))
}

fn zero_pages(want: &Want, ksm: &Ksm) -> Finding {
    let need = "use_zero_pages=1";
    let meaning = "Pages of a guest that are all zeros take no memory if they become the kernel's \
                   own zero page.";
    match ksm.use_zero_pages {
        None => ZERO_PAGES.not_seen(need, meaning),
        Some(0) => ZERO_PAGES
            .finds(
                want.when_shared(Severity::Advice),
                "use_zero_pages=0",
                need,
                meaning,
            )
            .with_fix(Fix::setting(Knob::KsmUseZeroPages, 1)),
        Some(value) => {
            let value = format!("use_zero_pages={value}");
            ZERO_PAGES.finds(Severity::Ok, value, need, meaning)
        }
    }
}

fn across_nodes(host: &Host, want: &Want, ksm: &Ksm) -> Finding {
    let need = "merge_across_nodes=1, or one node";
    match ksm.merge_across_nodes {
        Some(0) if host.nodes.len() > 1 => ACROSS_NODES
            .finds(
                want.when_shared(Severity::Advice),
                "merge_across_nodes=0",
                need,
                format!(
                    "Each of {} nodes keeps a copy of its own of pages that are equal in all \
                     guests.",
                    host.nodes.len()
                ),
            )
            .with_fix(while_empty(ksm, Knob::KsmMergeAcrossNodes, 1)),
        value => {
            let value = value.map_or_else(
                || "not in this kernel".to_owned(),
                |value| format!("merge_across_nodes={value}"),
            );
            let meaning = "The host keeps equal pages once for all guests.";
            ACROSS_NODES.finds(Severity::Ok, value, need, meaning)
        }
    }
}

/// Without `--sharing all` for information: QEMU asks for the merging of its guest's
/// RAM by madvise(2).
fn memory_merge(host: &Host, want: &Want) -> Finding {
    let is_needed = want.machine.sharing == Sharing::All;
    let need = "kept at execve(2), for --sharing all";
    let meaning = "The kernel merges all memory of a program that asks for it before it starts.";
    let (value, is_there) = match host.memory_merge {
        None => return MEMORY_MERGE.not_seen(need, meaning),
        Some(MemoryMerge::Kept) => ("kept at execve(2)", true),
        Some(MemoryMerge::Lost) => ("lost at execve(2)", false),
        Some(MemoryMerge::Unsupported) => ("not in this kernel, or refused", false),
    };
    if is_there || !is_needed {
        return MEMORY_MERGE.finds(Severity::Ok, value, need, meaning);
    }
    let meaning = "Guests with --sharing all cannot be started.";
    MEMORY_MERGE
        .finds(Severity::Blocker, value, need, meaning)
        .with_fix(Fix::manual(
            Needs::Reboot,
            "use --sharing guest, or boot Linux 6.7 or later with CONFIG_KSM=y",
        ))
}

/// Whether QEMUs can have heaps that are alike.
fn allocator(host: &Host, want: &Want) -> Finding {
    let need = "libjemalloc.so.2, for --sharing all";
    let meaning = "QEMUs' heaps are laid out alike, so that KSM merges them.";
    match &host.allocator {
        Some(path) => ALLOCATOR.finds(Severity::Ok, path.clone(), need, meaning),
        None if want.machine.sharing != Sharing::All => {
            ALLOCATOR.finds(Severity::Ok, "absent", need, "Other guests do not use it.")
        }
        None => {
            let meaning = "QEMUs' heaps differ, by a mebibyte a guest and more.";
            ALLOCATOR
                .finds(Severity::Advice, "absent", need, meaning)
                .with_fix(Fix::manual(
                    Needs::Package,
                    "install jemalloc, such as Debian's package libjemalloc2",
                ))
        }
    }
}
