//! Is this host ready, for how many guests, and what stops more?
//!
//! Joins the host's own checks with canaries from the artifacts.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::canary::kept::Key;
use super::{TrialError, canary};
use crate::artifact::opened::Artifacts;
use crate::digest::memo::Memo;
use crate::directories::Directories;
use crate::host::canary::{Canary, Outcome};
use crate::host::ceiling::{self, Ceiling};
use crate::host::concern;
use crate::host::finding::{Finding, Fix, Severity};
use crate::host::kvm::{Prober, probe};
use crate::host::settings::Applied;
use crate::host::snapshot::{Host, KvmProbe, Places, Qemu, Taps, Unseen};
use crate::host::want::{Basis, Cost, GuestUsers, Want};
use crate::interrupt::Interrupt;
use crate::lock::Lock;
use crate::net::tap::{self, Subnet};
use crate::placement::TrialGroup;
use crate::store::folder::FolderError;
use crate::units::{ByteSize, counted, grouped};
use crate::vmm::qemu::Emulator;
use crate::vmm::{Accel, Choice};

/// The version of a report's JSON shape.
pub(crate) const SCHEMA: u32 = 1;

/// RAM of a guest without artifacts that say: the reference guest's.
const MEMORY: ByteSize = ByteSize::new(64 << 20).expect("not zero");

/// What is asked of a host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// What guests would run from.
    pub artifacts: Option<&'a Artifacts>,
    /// How many guests; how many fit, without.
    pub guests: Option<u32>,
    /// Number of the first one.
    pub first: u32,
    /// What a guest runs on.
    pub machine: Choice,
    /// Under which users guests run.
    pub users: GuestUsers,
    /// Whether guests are tried.
    pub canaries: Canaries,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Canaries {
    Fresh,
    /// They are, unless a result of this boot is kept.
    KeptOrFresh,
    /// They are not; a kept result counts.
    Kept,
    /// They are not, and no kept result counts.
    Never,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    /// Shape of this document; see [`SCHEMA`].
    pub schema: u32,
    /// Whether the host takes the guests asked for, or any.
    pub ready: bool,
    /// The answer in one sentence.
    pub verdict: String,
    /// The recipe of the artifacts.
    pub recipe: Option<String>,
    /// The QEMU that guests would run on.
    pub qemu: Qemu,
    /// What was asked for, and what a guest costs.
    pub want: Want,
    /// How many guests fit.
    pub ceiling: Ceiling,
    /// What canaries showed.
    pub canary: Option<Canary>,
    /// What was looked at, the worst first.
    pub findings: Vec<Finding>,
    /// What became of the settings that were to be changed before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<Applied>,
}

impl Report {
    /// The findings that keep the host from being ready.
    pub(crate) fn obstacles(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| is_obstacle(finding))
    }

    /// The fixes of all that is not as it should be.
    pub(crate) fn fixes(&self) -> impl Iterator<Item = &Fix> {
        let wrong = self
            .findings
            .iter()
            .filter(|finding| finding.severity != Severity::Ok);
        wrong.filter_map(|finding| finding.fix.as_ref())
    }
}

fn is_obstacle(finding: &Finding) -> bool {
    finding.severity <= Severity::Limit
}

/// Reads a host and, for guests on taps with addresses of `subnet`, sees whether
/// those are free, and tries whether it passes packets from one to another.
pub(crate) fn look(places: &Places, subnet: Option<Subnet>, interrupt: &Interrupt) -> Host {
    let mut host = Host::read(places, interrupt);
    if let KvmProbe::Run(prober) = &places.kvm {
        time_in_a_group(&mut host, prober, interrupt);
    }
    let Some(subnet) = subnet else {
        return host;
    };
    match tap::in_the_way(subnet) {
        Ok(overlaps) => {
            host.network.taps = Some(Taps {
                subnet: subnet.to_string(),
                links: subnet.links(),
                overlaps,
            });
        }
        Err(error) => host.unseen.push(Unseen {
            what: "routes".to_owned(),
            why: error.to_string(),
        }),
    }
    let is_free = |taps: &Taps| taps.overlaps.is_none();
    // A single guest has none to reach.
    if subnet.links() > 1
        && host.network.taps.as_ref().is_some_and(is_free)
        && host.network.tun
        && host.privileged
    {
        match tap::forwards(subnet) {
            Ok(passes) => host.network.forwards = Some(passes),
            Err(error) => host.unseen.push(Unseen {
                what: "forwarding between taps".to_owned(),
                why: error.to_string(),
            }),
        }
    }
    host
}

/// Times how long KVM takes to make a machine in a group as fleets have, where it
/// runs a guest's kernel at all and this process may make such a group.
fn time_in_a_group(host: &mut Host, prober: &Prober, interrupt: &Interrupt) {
    let works = matches!(&host.kvm.probe, Some(probe::Outcome::Ran(probe)) if !probe.emulates());
    let Some(group) = works.then(|| TrialGroup::make(Path::new("/"))).flatten() else {
        return;
    };
    match prober.vm_create_in(group.folder(), interrupt) {
        Ok(times) => host.kvm.vm_create_in_fleet = Some(times),
        Err(why) => host.unseen.push(Unseen {
            what: "KVM_CREATE_VM in a control group".to_owned(),
            why,
        }),
    }
}

/// Answers a question about a host; `None` when the user interrupts.
pub(crate) fn check(
    host: &Host,
    question: &Question<'_>,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Option<Report>, TrialError> {
    let recipe = question
        .artifacts
        .map(|artifacts| &artifacts.manifest.recipe);
    let memory = recipe.map_or(MEMORY, |recipe| recipe.memory);
    let mut want = Want {
        guests: question.guests,
        first: question.first,
        machine: question.machine.machine(memory),
        users: question.users,
        cost: assumed(question.machine.accel),
    };
    let outcome = match question.artifacts {
        Some(artifacts) => tried(
            host,
            artifacts,
            &want,
            question.canaries,
            directories,
            interrupt,
        )?,
        None => None,
    };
    if interrupt.requested() {
        return Ok(None);
    }
    let mut findings = Vec::new();
    if let Some(outcome) = &outcome {
        if let Outcome::Up(canary) = outcome {
            want.cost = canary.cost;
        }
        let need = concern::merging_need(host, &want);
        findings.extend(crate::host::canary::judge(outcome, &want, need));
    }
    findings.extend(concern::judge(host, &want));
    findings.sort_by_key(|finding| finding.severity);
    let ceiling = ceiling::ceiling(host, &want);
    let enough = ceiling.with(want.machine.sharing).guests >= want.wanted();
    let ready = enough && !findings.iter().any(is_obstacle);
    let recipe = recipe.map(|recipe| recipe.name.clone());
    let mut report = Report {
        schema: SCHEMA,
        ready,
        verdict: String::new(),
        recipe,
        qemu: host.qemu.clone(),
        want,
        ceiling,
        canary: match outcome {
            Some(Outcome::Up(canary)) => Some(canary),
            _ => None,
        },
        findings,
        applied: Vec::new(),
    };
    report.verdict = verdict(&report);
    Ok(Some(report))
}

/// What canaries from `artifacts` showed, now or before; `None` where none ran.
fn tried(
    host: &Host,
    artifacts: &Artifacts,
    want: &Want,
    canaries: Canaries,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Option<Outcome>, TrialError> {
    let cache = &directories.cache;
    match directories.open_cache() {
        Err(error) if error.is_refusal() => return Err(FolderError::from(error).into()),
        // What cannot be made or read keeps no results, and is in nobody's way.
        Ok(_) | Err(_) => {}
    }
    let ksm = host.ksm.as_ref();
    let (
        Qemu::Found {
            path: Some(path),
            version,
            ..
        },
        false,
    ) = (&host.qemu, canaries == Canaries::Never)
    else {
        return Ok(None);
    };
    let qemu = Emulator::of(path, Some(version), &Memo::in_cache(cache))?;
    let key = host
        .boot_id
        .as_ref()
        .map(|boot_id| Key::new(boot_id, artifacts.digest, &qemu, want, ksm));
    let load = |key: &Key| key.load(cache).map(Outcome::Up);
    let kept = match canaries {
        Canaries::Never | Canaries::Fresh => None,
        Canaries::Kept | Canaries::KeptOrFresh => key.as_ref().and_then(load),
    };
    // A single guest is enough to be stopped by what stops all.
    let single = Want {
        guests: None,
        ..*want
    };
    let hopeless = concern::judge(host, &single).iter().any(is_obstacle);
    if kept.is_some() || canaries == Canaries::Kept || hopeless {
        return Ok(kept);
    }
    let _lock = key.as_ref().and_then(|key| {
        let path = key.lock(cache);
        let unlocked = |error| {
            let path = path.display();
            tracing::warn!("{path}: {error}; another launch may start the same canaries");
            None
        };
        Lock::acquire(&path, "the same canaries", interrupt).unwrap_or_else(unlocked)
    });
    if canaries == Canaries::KeptOrFresh
        && let Some(kept) = key.as_ref().and_then(load)
    {
        return Ok(Some(kept));
    }
    tracing::info!(
        "starting two guests of {} under {} to measure them",
        artifacts.manifest.recipe.name,
        want.machine.accel.name()
    );
    let outcome = canary::run(artifacts, &qemu, want, ksm, directories, interrupt)?;
    if let (Some(key), Some(Outcome::Up(canary))) = (key, &outcome)
        && canary.cost.basis == Basis::Measured
        && let Err(error) = key.store(cache, canary.clone())
    {
        tracing::warn!("cannot keep the canaries' result: {error}");
    }
    Ok(outcome)
}

/// What the reference guest cost on one host under TCG, and on another under KVM,
/// by memory cgroup; an assumption anywhere else.
fn assumed(accel: Accel) -> Cost {
    // Only under TCG has a guest 8 MiB of translated code, and only under KVM are
    // its machine, its vCPU and their counters and events open files, and has it
    // threads of the kernel: for its PIT, and to join its huge pages.
    let (memory, kernel_threads, files) = match accel {
        Accel::Kvm => (19 << 20, 2, 27),
        Accel::Tcg => (29 << 20, 0, 19),
    };
    Cost {
        basis: Basis::Assumed,
        memory,
        memory_merged: Some(memory - (6 << 20)),
        memory_once: 26 << 20,
        threads: 5,
        kernel_threads,
        files,
        disk: 20 << 10,
    }
}

/// The answer in one sentence.
fn verdict(report: &Report) -> String {
    let (ceiling, want) = (&report.ceiling, &report.want);
    let worst = report.findings.first();
    if let Some(blocker) = worst.filter(|finding| finding.severity == Severity::Blocker) {
        return format!("not ready: {}: {}", blocker.id, blocker.meaning);
    }
    let count = ceiling.with(want.machine.sharing);
    let mut text = String::new();
    if let Some(guests) = want.guests {
        text.push_str(if report.ready { "ready" } else { "not ready" });
        let _ = write!(text, " for {}: ", counted(guests.into(), "guest"));
    }
    let _ = write!(text, "this host takes {}", counted(count.guests, "guest"));
    if let Some(recipe) = &report.recipe {
        let _ = write!(text, " of {recipe}");
    }
    match count.first {
        Some(first) => {
            let _ = write!(
                text,
                "; the limit is {} ({first})",
                ceiling::in_words(first)
            );
        }
        None => text.push_str(", as many as a fleet may have"),
    }
    if ceiling.fixed.guests > count.guests {
        let fixed = grouped(ceiling.fixed.guests);
        let _ = write!(text, "; `imgbuild check --fix` makes it {fixed}");
    }
    if ceiling.basis == Basis::Assumed {
        text.push_str("; what a guest costs is assumed, `imgbuild check --canary` measures it");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_under_kvm_has_more_open_files_and_less_memory() {
        let [kvm, tcg] = [Accel::Kvm, Accel::Tcg].map(assumed);
        assert_eq!([kvm.files, tcg.files], [27, 19]);
        assert!(kvm.memory < tcg.memory);
    }
}
