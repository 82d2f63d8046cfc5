//! Canaries: two guests from the built artifacts, started to see whether
//! guests come up here, what one costs, and whether KSM merges what they have
//! in common.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};
use std::{fs, io};

use super::guest::State;
use super::launch::{LaunchError, why};
use super::plan::Artifacts;
use super::supervisor::{Member, Supervisor};
use super::trial::{Setup, Trial};
use crate::host::canary::{Canary, Merging, Outcome};
use crate::host::footprint::{self, Footprint, PAGE};
use crate::host::want::{Basis, Cost, Want};
use crate::interrupt::Interrupt;
use crate::vmm::Sharing;

pub mod kept;

/// How long ready guests are left alone before they are looked at.
const SETTLE: Duration = Duration::from_millis(300);
/// How long KSM is given to merge two guests. At the kernel's own rate, 5,000
/// pages a second, it passes over both several times.
const MERGE: Duration = Duration::from_secs(20);
/// How often KSM's counters are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// What KSM keeps for a page that it looks at, in bytes (`struct
/// ksm_rmap_item`).
const RMAP_ITEM: u64 = 64;
/// Disk space of a guest's identity, in bytes: a block.
const IDENTITY: u64 = 4096;

/// Starts two guests as `want` has them, looks at them, and ends them; `None`
/// when the user interrupts.
pub fn run(
    artifacts: &Artifacts,
    want: &Want,
    ksm: Ksmd,
    interrupt: &Interrupt,
) -> Result<Option<Outcome>, LaunchError> {
    let setup = Setup {
        accel: want.accel,
        sharing: want.sharing,
        net: want.net,
        memory: want.memory,
        parameters: "tty.burn=0",
    };
    let mut trial = Trial::new(artifacts, &setup, 2, interrupt)?;
    let supervisor = &mut trial.supervisor;
    supervisor.start_all(&mut |_, _| {})?;
    supervisor.hold(Some(Instant::now() + SETTLE), &mut |_, _| {})?;
    if interrupt.requested() {
        return Ok(None);
    }
    if let Some(reason) = supervisor.members().iter().find_map(fate) {
        return Ok(Some(Outcome::Down { reason }));
    }
    let pids: Vec<_> = supervisor
        .members()
        .iter()
        .filter_map(Member::pid)
        .collect();
    let &[first, second] = pids.as_slice() else {
        return Ok(None);
    };
    let index = supervisor.members()[1].index();
    let disk = fs::metadata(trial.folder.overlay(index))?.blocks() * 512 + IDENTITY;
    let footprints = [unmerged(first)?, unmerged(second)?];
    let most = |part: fn(&Footprint) -> u64| footprints.iter().map(part).max().unwrap_or(0);
    let mut cost = Cost {
        basis: Basis::Measured,
        memory: most(|footprint| footprint.private),
        memory_merged: None,
        memory_once: most(|footprint| footprint.shared),
        threads: most(|footprint| footprint.threads),
        files: most(|footprint| footprint.files),
        disk,
    };
    let mut merging = Merging::NotAskedFor;
    if want.sharing == Sharing::Guest {
        let ram = want.memory.bytes();
        let pages = footprint::pages(second, ram)?;
        let alike = footprint::mergeable(&pages, &footprint::pages(first, ram)?);
        let merged =
            cost.memory.saturating_sub(alike * PAGE as u64) + pages.len() as u64 * RMAP_ITEM;
        cost.memory_merged = Some(merged);
        merging = match ksm {
            Ksmd::Runs => watch(supervisor, second, alike)?,
            Ksmd::Stopped => Merging::KsmStopped,
        };
    }
    let ready = supervisor.members().iter().filter_map(Member::ready_after);
    let canary = Canary {
        ready_after: ready.max().unwrap_or_default().as_secs_f64(),
        cost,
        merging,
    };
    Ok((!interrupt.requested()).then_some(Outcome::Up(canary)))
}

/// Whether KSM scans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ksmd {
    /// It does.
    Runs,
    /// It does not, or there is none.
    Stopped,
}

/// What a guest costs while nothing of it is merged, however fast KSM was.
fn unmerged(pid: u32) -> io::Result<Footprint> {
    let merged = footprint::merged(pid).unwrap_or(0) * PAGE as u64;
    let footprint = Footprint::of(pid)?;
    Ok(Footprint {
        private: footprint.private + merged,
        ..footprint
    })
}

/// Why a guest is not ready, with what it said last.
fn fate(member: &Member) -> Option<String> {
    match member.guest().state() {
        State::Ready => None,
        State::Failed(failure) => Some(why(failure, member.guest())),
        State::Planned | State::Booting | State::Exited => {
            Some("it ended after it had been ready".to_owned())
        }
    }
}

/// Watches KSM merge a guest with another, of which it has `alike` pages.
fn watch(supervisor: &mut Supervisor, pid: u32, alike: u64) -> io::Result<Merging> {
    let began = Instant::now();
    loop {
        let seen = Merging::Watched {
            merged: footprint::merged(pid).unwrap_or(0),
            alike,
            seconds: began.elapsed().as_secs(),
        };
        if seen.works() || began.elapsed() >= MERGE {
            return Ok(seen);
        }
        let next = Instant::now() + LOOK;
        supervisor.hold(Some(next), &mut |_, _| {})?;
        // Interrupted, or both guests are gone.
        if Instant::now() < next {
            return Ok(seen);
        }
    }
}
