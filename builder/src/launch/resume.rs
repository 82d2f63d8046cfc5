//! `launch --resume`, and what every supervisor does from its first guest to its
//! last.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Signal, pidfd_send_signal};

use super::{LaunchError, LaunchEvent, Launched, Milestone, Summary, detach, raise};
use crate::artifact::opened::Artifacts;
use crate::control::types::Event;
use crate::directories::Directories;
use crate::fleet::changes::STOP_GRACE;
use crate::fleet::site::{Site, Source};
use crate::fleet::supervise::{Attachment, Fleet};
use crate::fleet::supervisor::{Member, Supervisor};
use crate::guest::admission::Admission;
use crate::guest::{
    Backoff, Desired, Event as GuestEvent, GIVE_UP, OnTrouble, Phase, Policy, deadline,
};
use crate::host;
use crate::host_id::Relation;
use crate::interrupt::Interrupt;
use crate::store::folder::{Folder, Paths};
use crate::store::journal::{History, Journal};
use crate::store::orphans::{self, Living, Mark};
use crate::system::Doing as _;
use crate::template::{Fingerprint, Template};
use crate::trial::fix::Lease;
use crate::trial::template::{TemplateError, template};
use crate::units::counted;
use crate::vmm::qemu::{Emulator, Standing};
use crate::vmm::{Lifetime, StartMethod};

/// Goes on with a fleet whose supervisor died.
pub(crate) fn resume(
    name: &str,
    attachment: Attachment,
    directories: &Directories,
    interrupt: &Interrupt,
    emit: &mut dyn FnMut(LaunchEvent),
) -> Result<Launched, LaunchError> {
    let folder = Folder::open(name, directories)?;
    let spec = folder.spec()?;
    if attachment == Attachment::Detached {
        let paths = Paths::clone(&folder);
        drop(folder);
        detach(name, &paths, interrupt, emit)?;
        return Ok(Launched::Detached);
    }
    if directories.host.relation(&spec.host) != Relation::ThisBoot {
        return Err(LaunchError::Rebooted {
            name: name.to_owned(),
        });
    }
    let artifacts = Artifacts::open(&spec.out)?;
    if artifacts.digest != spec.artifacts {
        return Err(LaunchError::Changed {
            name: name.to_owned(),
            out: spec.out,
        });
    }
    folder.make_folders()?;
    warn_of_qemu(name, &spec.qemu);
    raise(Resource::Nproc)?;
    // Settings that the fleet was launched with stay in force for it.
    let _settings = Lease::of_others(name, spec.settings);
    let journal = Journal::open(&folder.journal())?;
    let mut site = Site::new(folder, spec, &artifacts, Lifetime::Own)?;
    site.renew_runtime()?;
    supervise(site, journal, attachment, directories, interrupt, emit)
}

/// Tells what became of a fleet's QEMU. Guests that live go on whatever that is:
/// they have it open.
fn warn_of_qemu(name: &str, qemu: &Emulator) {
    match qemu.standing() {
        Ok(Standing::Same) => {}
        Ok(Standing::Replaced) => tracing::warn!("{name}: {}", qemu.replaced()),
        Err(error) => tracing::warn!("{name}: {error}"),
    }
}

/// Supervises a fleet to its end; guests of it that live are adopted.
pub(crate) fn supervise(
    mut site: Site,
    journal: Journal,
    attachment: Attachment,
    directories: &Directories,
    interrupt: &Interrupt,
    emit: &mut dyn FnMut(LaunchEvent),
) -> Result<Launched, LaunchError> {
    let spec = site.spec().clone();
    raise(Resource::Nofile)?;
    site.place()?;
    let patience = deadline::scaled(spec.guests.count(), host::cpus());
    let policy = Policy {
        restart: spec.restart,
        boot_timeout: spec.boot_timeout,
        answer_within: patience,
        health: spec.health,
        backoff: Backoff::default(),
        give_up: GIVE_UP,
        on_trouble: OnTrouble::TryOn,
    };
    let admission = Admission::new(&spec.admission, host::cpus());
    let cpu = site.describe_cpu();
    let mut supervisor = Supervisor::new(site, policy, admission, interrupt.clone())?;
    supervisor.become_these(spec.guests);
    adopt(&mut supervisor, journal.history(), interrupt)?;
    if let Some(known) = spec.template {
        begin_with_template(&mut supervisor, known, directories, interrupt)?;
    }
    let mut forward = |event: &Event| emit(LaunchEvent::Fleet(event.clone()));
    let fleet = Fleet::new(supervisor, journal, &mut forward)?;
    let (ending, tally) = fleet.run(attachment)?;
    let summary = Box::new(Summary {
        fleet: spec.name,
        tally,
        machine: spec.machine,
        cpu,
        ending,
        forced: spec.forced,
    });
    emit(LaunchEvent::Launch(Milestone::Summary(summary.clone())));
    Ok(Launched::Over(summary))
}

/// Has guests that are started from now on be restored from the fleet's template: from
/// that of a clone that lives, or else the one that is kept, or else another one.
fn begin_with_template(
    supervisor: &mut Supervisor,
    known: Fingerprint,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<(), LaunchError> {
    let site = supervisor.site();
    if site.start_method() == StartMethod::Clone {
        return Ok(());
    }
    if let Ok(Standing::Replaced) = site.spec().qemu.standing() {
        tracing::warn!("guests that are started again boot: their template is the former QEMU's");
        return Ok(());
    }
    let living = supervisor.members().iter().filter_map(Member::pid);
    let mut held = living.filter_map(|pid| Template::of_clone(known, pid).ok());
    let template = if let Some(held) = held.next() {
        held
    } else {
        let artifacts = Artifacts::open(&site.spec().out)?;
        let (machine, qemu) = (site.spec().machine, &site.spec().qemu);
        match template(&artifacts, machine, qemu, directories, interrupt) {
            Ok(template) => template,
            Err(TemplateError::Interrupted) => return Err(LaunchError::Interrupted),
            Err(error) => {
                tracing::warn!(
                    "guests that are started again boot, because there is no template: {error}"
                );
                return Ok(());
            }
        }
    };
    drop(held);
    let site = supervisor.site_mut();
    if template.fingerprint() != known {
        site.spec_mut().template = Some(template.fingerprint());
        // Guests that live are to be heard even if the disk is full.
        if let Err(error) = site.folder().write_spec(site.spec()) {
            tracing::warn!("the next supervisor takes another template: {error}");
        }
    }
    site.begin_with(Source::Template(template));
    Ok(())
}

/// How long guests that are ending may take before they are started again.
const END_WAIT: Duration = Duration::from_secs(10);

/// Takes charge of the guests that live, and notes those that are gone.
fn adopt(
    supervisor: &mut Supervisor,
    past: &History,
    interrupt: &Interrupt,
) -> Result<(), LaunchError> {
    let site = supervisor.site();
    let folder = site.folder().path();
    let mark = Mark::of(site.spec(), folder);
    let mark = mark.doing(format!("look at {}", folder.display()))?;
    let mut adopted = 0_u64;
    let found = orphans::living(Path::new("/"), mark);
    let mut found = found.doing("look for the fleet's guests in /proc")?;
    // Any process of the guests' user may have a guest's UUID in its command line;
    // those that the journal tells of come first.
    found.sort_by_key(|living| {
        let last = past.guests.get(&living.guest).and_then(|past| past.last);
        last.is_none_or(|run| (run.pid, run.start_time) != (living.pid, living.start_time))
    });
    for living in found {
        let Some(pidfd) = orphans::open(living.pid, living.start_time, mark, living.guest) else {
            continue;
        };
        let is_extra = supervisor
            .members()
            .get(living.guest)
            .is_none_or(Member::lives);
        let why = if is_extra {
            "its number is not wanted, or taken".to_owned()
        } else {
            let shared = pidfd.try_clone();
            let shared = shared.doing(format!("hold {} (process {})", living.guest, living.pid))?;
            match supervisor.adopt(&living, shared) {
                Ok(()) => {
                    adopted += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let Living { guest, pid, .. } = living;
        tracing::warn!("{guest} (process {pid}) is killed: {why}");
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    let until = Instant::now() + END_WAIT;
    for (guest, past) in &past.guests {
        let guest = *guest;
        let Some(member) = supervisor.members().get(guest) else {
            continue;
        };
        let lives = member.lives();
        if let Some(run) = past.last.filter(|_| !lives) {
            let ended = orphans::wait_for_end(run.pid, run.start_time, until, interrupt);
            if !ended.doing(format!("wait for the end of {guest} (process {})", run.pid))? {
                tracing::warn!(
                    "process {} of {guest} is still ending, and has its port and disk until then",
                    run.pid
                );
            }
        }
        supervisor.remember(guest, past.restarts, past.duty, past.over);
        if past.desired == Desired::Down {
            supervisor.request(guest, &GuestEvent::Stop(STOP_GRACE));
        } else if !lives && past.over == Some(Phase::Restarting) {
            // Its next start was waited for.
            supervisor.request(guest, &GuestEvent::Restart(STOP_GRACE));
        } else if !lives && past.last.is_some() {
            supervisor.request(guest, &GuestEvent::Gone);
        }
    }
    if adopted > 0 {
        tracing::info!("adopted {}", counted(adopted, "guest"));
    }
    Ok(())
}
