//! Canaries: two guests from the built artifacts, started to find out whether guests
//! boot here, what one costs, and whether KSM merges what they have in common.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{Purpose, Setup, Trial, TrialError};
use crate::artifact::opened::Artifacts;
use crate::directories::Directories;
use crate::fleet::supervisor::Member;
use crate::fleet::view;
use crate::guest::Reason;
use crate::host::canary::{Canary, Fault, Merging, Outcome};
use crate::host::snapshot::Ksm;
use crate::host::want::{Basis, Cost, Want};
use crate::interrupt::Interrupt;
use crate::sample::footprint::{self, Extent, Footprint, PAGE};
use crate::sample::ksm;
use crate::system::{Doing as _, SystemError};
use crate::vmm::qemu::Emulator;
use crate::vmm::{Accel, Sharing};

pub(crate) mod kept;

/// How long ready guests are left alone before they are looked at.
const SETTLE: Duration = Duration::from_millis(300);
/// How long KSM is given to merge two guests, at least and at most. What it
/// scans besides decides how long it takes.
const MERGE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];
/// Passes over all memory until what two guests have alike is merged: the one
/// under way, and two that find it unchanged.
const PASSES: u64 = 3;
/// Pages that two guests add to what KSM scans.
const PAGES: u64 = 5_000;
/// How often KSM's counters are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Most that KVM's page tables for two guests take, in bytes: those of 512 MiB in
/// pages of 4 KiB.
const NESTED: u64 = 1 << 20;
/// Disk space of a guest's identity, in bytes: a block.
const IDENTITY: u64 = 4096;

/// What the kernel keeps for a guest besides its pages and page tables, in
/// bytes: thread stacks, tasks, mappings, sockets; under KVM its machine and
/// virtual CPU as well. A memory cgroup with 5 and with 15 guests under TCG
/// differed by 268 KiB a guest more than they did, and one with 2 and with 5 under
/// KVM by 543 KiB.
const KERNEL_TCG: u64 = 268 << 10;
const KERNEL_KVM: u64 = 543 << 10;

/// Starts two guests on `qemu` as `want` has them, looks at them, and ends them; `None`
/// when the user interrupts.
///
/// What cannot be measured here costs what `want` assumes.
pub(crate) fn run(
    artifacts: &Artifacts,
    qemu: &Emulator,
    want: &Want,
    ksm: Option<&Ksm>,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Option<Outcome>, TrialError> {
    let setup = Setup {
        qemu,
        machine: want.machine,
        purpose: Purpose::Trial,
    };
    let tables = footprint::nested_tables();
    let mut trial = Trial::new(artifacts, &setup, 2, directories, interrupt)?;
    trial.start_all(&mut |_, _| {})?;
    trial.listen(Some(Instant::now() + SETTLE), &mut |_, _| {})?;
    if interrupt.requested() {
        return Ok(None);
    }
    let living = trial.supervisor.members().iter().filter_map(Member::pid);
    let measured = match living.collect::<Vec<_>>()[..] {
        [first, second] => measure(&mut trial, [first, second], want, ksm, tables),
        _ => Err(Errno::SRCH).doing("find the processes of the canaries"),
    };
    let members = trial.supervisor.members();
    if interrupt.requested() {
        return Ok(None);
    }
    if let Some(member) = members.iter().find(|member| !member.is_ready()) {
        return Ok(Some(down(member)));
    }
    let (cost, merging) = measured.unwrap_or_else(|error| {
        tracing::warn!("cannot measure what a guest costs, so its cost is assumed: {error}");
        (want.cost, Merging::NotSeen)
    });
    let ready = members
        .iter()
        .filter_map(|member| member.guest().ready_after());
    Ok(Some(Outcome::Up(Canary {
        ready_after: ready.max().unwrap_or_default().as_secs_f64(),
        cost,
        merging,
    })))
}

/// What one of two guests costs, before which KVM had so many bytes of `tables` for
/// all of the host's, and what KSM did with them.
fn measure(
    trial: &mut Trial,
    [first, second]: [u32; 2],
    want: &Want,
    ksm: Option<&Ksm>,
    tables: Option<u64>,
) -> Result<(Cost, Merging), SystemError> {
    let member = trial.supervisor.members().iter().nth(1);
    let member = member.ok_or(Errno::SRCH).doing("find the second canary")?;
    let overlay = trial.supervisor.site().folder().overlay(member.index());
    let file = fs::metadata(&overlay).doing(format!("look at {}", overlay.display()))?;
    let disk = file.blocks() * 512 + IDENTITY;
    let footprints = [unmerged(first)?, unmerged(second)?];
    let most = |part: fn(&Footprint) -> u64| footprints.iter().map(part).max().unwrap_or(0);
    let kernel_threads = [first, second].map(footprint::kernel_threads);
    let cost = Cost {
        basis: Basis::Measured,
        memory: most(|footprint| footprint.private)
            + kernel(want.machine.accel)
            + nested(want.machine.accel, [tables, footprint::nested_tables()]),
        memory_merged: None,
        memory_once: most(|footprint| footprint.shared),
        threads: most(|footprint| footprint.threads),
        kernel_threads: (kernel_threads.into_iter().flatten().max())
            .unwrap_or(want.cost.kernel_threads),
        files: most(|footprint| footprint.files),
        disk,
    };
    if want.machine.sharing == Sharing::None {
        return Ok((cost, Merging::NotAskedFor));
    }
    let extent = match want.machine.sharing {
        Sharing::None | Sharing::Guest => Extent::Ram(want.machine.memory.bytes()),
        Sharing::All => Extent::Process,
    };
    let (pages, others) = match [second, first]
        .map(|pid| footprint::pages(pid, extent))
        .into()
    {
        (Ok(pages), Ok(others)) => (pages, others),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!("cannot compare guests' memory: {error}");
            return Ok((cost, Merging::NotSeen));
        }
    };
    let alike = footprint::mergeable(&pages, &others);
    let merged = cost.memory.saturating_sub(alike * PAGE as u64) + pages.len() as u64 * ksm::ITEM;
    let cost = Cost {
        memory_merged: Some(merged),
        ..cost
    };
    let merging = match ksm {
        Some(ksm) if ksm.runs() => watch(trial, second, alike, ksm)?,
        _ => Merging::KsmStopped,
    };
    Ok((cost, merging))
}

/// What the kernel keeps for a guest besides what a [`Footprint`] shows, in bytes.
fn kernel(accel: Accel) -> u64 {
    match accel {
        Accel::Kvm => KERNEL_KVM,
        Accel::Tcg => KERNEL_TCG,
    }
}

/// Page tables that KVM has for one of two guests, in bytes, where it had so many for
/// all before they came and since; others may have come or gone meanwhile.
fn nested(accel: Accel, tables: [Option<u64>; 2]) -> u64 {
    match (accel, tables) {
        (Accel::Kvm, [Some(before), Some(now)]) => now.saturating_sub(before).min(NESTED) / 2,
        _ => 0,
    }
}

/// What a guest costs while nothing of it is merged, however fast KSM was.
fn unmerged(pid: u32) -> Result<Footprint, SystemError> {
    let merged = footprint::merged(pid).unwrap_or(0) * PAGE as u64;
    let footprint = Footprint::of(pid).doing(format!("measure the memory of process {pid}"))?;
    Ok(Footprint {
        private: footprint.private + merged,
        ..footprint
    })
}

/// Why a guest is not ready, with what it said last.
fn down(member: &Member) -> Outcome {
    let guest = member.guest();
    let is_of_the_host = guest.reason().is_some_and(Reason::is_of_the_host);
    Outcome::Down {
        reason: view::reason(guest).unwrap_or_default(),
        fault: if is_of_the_host {
            Fault::Host
        } else {
            Fault::Guest
        },
    }
}

/// Watches KSM merge a guest with another, of which it has `alike` pages.
fn watch(trial: &mut Trial, pid: u32, alike: u64, ksm: &Ksm) -> Result<Merging, SystemError> {
    let began = Instant::now();
    let patience = patience(ksm);
    loop {
        let Some(merged) = footprint::merged(pid) else {
            return Ok(Merging::NotSeen);
        };
        let seen = Merging::Watched {
            merged,
            alike,
            seconds: began.elapsed().as_secs(),
        };
        if seen.works() || began.elapsed() >= patience {
            return Ok(seen);
        }
        let next = Instant::now() + LOOK;
        trial.listen(Some(next), &mut |_, _| {})?;
        // Interrupted, or both guests are gone.
        if Instant::now() < next {
            return Ok(seen);
        }
    }
}

/// How long KSM may take to merge two guests, by its pace and by what else it
/// scans.
fn patience(ksm: &Ksm) -> Duration {
    let scanned = [
        ksm.pages_shared,
        ksm.pages_sharing,
        ksm.pages_unshared,
        ksm.pages_volatile,
    ];
    let pages = scanned
        .into_iter()
        .flatten()
        .fold(PAGES, u64::saturating_add);
    let turn = Duration::from_millis(ksm.sleep_millisecs.unwrap_or(0));
    let turns = pages
        .saturating_mul(PASSES)
        .div_ceil(ksm.pages_to_scan.unwrap_or(1).max(1));
    let [least, most] = MERGE;
    turn.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
        .clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_half_of_the_page_tables_that_came_with_two() {
        let of = |before, now| nested(Accel::Kvm, [Some(before), Some(now)]);
        assert_eq!(of(4096, 110_592), 53_248);
        // Others went meanwhile, or came.
        assert_eq!((of(110_592, 4096), of(0, 1 << 30)), (0, NESTED / 2));
        assert_eq!(nested(Accel::Kvm, [None, Some(4096)]), 0);
        assert_eq!(nested(Accel::Tcg, [Some(0), Some(110_592)]), 0);
    }

    #[test]
    fn ksm_is_given_the_time_that_its_pace_takes() {
        let ksm = |pages_to_scan, unshared| Ksm {
            run: Some(1),
            pages_to_scan: Some(pages_to_scan),
            sleep_millisecs: Some(20),
            pages_unshared: Some(unshared),
            ..Ksm::default()
        };
        let seconds = |ksm: &Ksm| patience(ksm).as_secs();
        assert_eq!(seconds(&ksm(20_000, 0)), 10);
        // A machine of 256 MiB that others share, at the kernel's own pace.
        assert_eq!(seconds(&ksm(100, 65_536)), 42);
        assert_eq!(seconds(&ksm(100, 10_000_000)), 60);
        assert_eq!(seconds(&ksm(0, u64::MAX)), 60);
        assert_eq!(seconds(&Ksm::default()), 10);
    }
}
