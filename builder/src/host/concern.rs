//! The checks: for each concern, a pure function from a snapshot of the host and
//! the wanted fleet to findings.
//!
//! A check yields its finding even if all is well, so that a reader sees what was
//! checked. A check yields no finding only if it does not apply, such as the speed
//! of KVM on a host without KVM: one cause is reported once.

use super::canary::MergingNeed;
use super::finding::Finding;
use super::snapshot::Host;
use super::want::Want;

mod cgroup;
mod cpu;
mod facts;
mod files;
mod kernel;
mod ksm;
mod kvm;
mod kvm_costs;
mod memory;
mod nested;
mod network;
mod numa;
mod processes;
pub(crate) mod qemu;
mod storage;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod tuner;
mod unseen;
mod users;

/// All concerns, in the order in which findings that matter alike are listed.
const CONCERNS: [fn(&Host, &Want) -> Vec<Finding>; 17] = [
    kvm::judge,
    kvm_costs::judge,
    cpu::judge,
    nested::judge,
    qemu::judge_host,
    memory::judge,
    ksm::judge,
    tuner::judge,
    processes::judge,
    users::judge,
    files::judge,
    network::judge,
    storage::judge,
    cgroup::judge,
    numa::judge,
    kernel::judge,
    unseen::judge,
];

/// What a fleet needs merging for on this host.
pub(crate) fn merging_need(host: &Host, want: &Want) -> MergingNeed {
    if want.guests.is_none() || memory::fits_unshared(host, want) {
        MergingNeed::ToSpare
    } else {
        MergingNeed::ToFit
    }
}

/// Judges a host, the worst first.
pub(crate) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    let mut findings: Vec<_> = CONCERNS
        .iter()
        .flat_map(|concern| concern(host, want))
        .collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}
