//! `launch`: a fleet from an output folder; and `launch --resume`: a fleet whose
//! supervisor died.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::artifact::opened::Artifacts;
use crate::directories::Directories;
use crate::fleet::remove::{Survivors, remove};
use crate::fleet::site::{Site, SiteError, Source};
use crate::fleet::supervise::Attachment;
use crate::interrupt::Interrupt;
use crate::launch::plan::{Chosen, emulator, spec};
use crate::launch::prepare::prepare;
use crate::store::claims::{Claim, Register};
use crate::store::folder::{Folder, FolderError, Paths, is_private, sweep};
use crate::store::journal::Journal;
use crate::store::key::{self, Pair};
use crate::store::spec::HostSettings;
use crate::system::{Doing as _, SystemError};
use crate::template::Template;
use crate::text::printable;
use crate::trial::readiness::{Canaries, Report};
use crate::vmm::{Lifetime, Net};
use detach::detach;
use error::obstacles;
use resume::supervise;

mod detach;
mod error;
mod event;
mod method;
mod options;
mod plan;
mod prepare;
mod resume;

pub(crate) use error::LaunchError;
pub(crate) use event::{LaunchEvent, Launched, Milestone, Summary};
pub(crate) use options::{Begin, LaunchOptions, OnUnready};
pub(crate) use resume::resume;

/// Launches a fleet, and supervises it to its end, or has a process of its own
/// do that.
pub(crate) fn launch(
    options: &LaunchOptions,
    attachment: Attachment,
    directories: &Directories,
    interrupt: &Interrupt,
    emit: &mut dyn FnMut(LaunchEvent),
) -> Result<Launched, LaunchError> {
    let artifacts = Artifacts::open(&options.out)?;
    let recipe = &artifacts.manifest.recipe;
    artifacts.check_memory(options.machine.memory.unwrap_or(recipe.memory))?;
    let kernel = &artifacts.manifest.kernel;
    if let Some(shortfall) = kernel.shortfall() {
        tracing::warn!("{shortfall}");
    }
    let serves_ssh = options.machine.net != Net::None && kernel.serves_ssh();
    if options.ssh_key.is_some() && !serves_ssh {
        tracing::warn!("--ssh-key is unused: nobody can log in to guests without a network");
    }
    let name = options.name.as_ref().unwrap_or(&recipe.name);
    refuse_reserved(name, options.lifetime)?;
    let users_key = options.ssh_key.as_deref().map(key::read).transpose()?;
    sweep(directories);
    let folder = create(name, directories)?;
    // What cannot be had is reported before guests are started; another fleet may have
    // it by then.
    let register = Register::of(directories);
    let likely = options.tap_subnet(&register.look())?;
    raise(Resource::Nproc)?;
    // Dropped once the guests are gone, it puts settings back.
    let (report, settings) = prepare(options, name, likely, &artifacts, directories, interrupt)?;
    emit(LaunchEvent::Launch(Milestone::Check(Box::new(
        report.clone(),
    ))));
    if report.obstacles().next().is_some() {
        if options.unready == OnUnready::Refuse {
            return Err(LaunchError::NotReady(Box::new(report)));
        }
        tracing::warn!("forced: not ready for {}", obstacles(&report));
    }
    let qemu = emulator(options.qemu.as_ref(), &report.qemu, directories)?;
    tracing::info!("guests run on {}", qemu.name());
    if let Some(server) = &artifacts.manifest.ssh_server {
        tracing::info!(
            "guests run the image's own SSH server, {}; init's commands, such as status and burn, \
             go by the console: `imgbuild console GUEST`",
            printable(server)
        );
    }
    let template = method::chosen(options, &artifacts, &qemu, directories, interrupt)?;
    let (login, pair) = match users_key {
        _ if !serves_ssh => (None, None),
        Some(key) => (Some(key), None),
        None => {
            let pair = key::generate(name, &folder).doing("make a key for the fleet")?;
            (Some(pair.key.clone()), Some(pair))
        }
    };
    let turn = register
        .turn(folder.path(), || !interrupt.requested())
        .map_err(SiteError::from)?
        .ok_or(LaunchError::Interrupted)?;
    let fingerprint = template.as_ref().map(Template::fingerprint);
    let chosen = Chosen::now(options, qemu, fingerprint, folder.path(), turn.others())?;
    let users = chosen.users;
    let spec = spec(
        options,
        &folder,
        directories,
        &artifacts,
        &report,
        login,
        chosen,
    )?;
    let claim = Claim::of(&spec, folder.path(), users);
    turn.take(claim).map_err(SiteError::from)?;
    let mut site = Site::new(folder, spec, &artifacts, options.lifetime)?;
    if let Some(template) = template {
        site.begin_with(Source::Template(template));
    }
    // By this the rest is found again, whenever this process dies.
    site.folder().write_spec(site.spec())?;
    let journal = match prepared(&mut site, pair.as_ref(), interrupt, emit) {
        Ok(journal) => journal,
        Err(error) => {
            site.remove();
            return Err(error);
        }
    };
    if attachment == Attachment::Detached {
        let paths = Paths::clone(site.folder());
        // The supervisor takes the lock, and joins those who hold settings.
        drop(site);
        let detached = detach(name, &paths, interrupt, emit);
        drop(settings);
        return cleared(name, directories, detached.map(|()| Launched::Detached));
    }
    let launched = supervise(site, journal, attachment, directories, interrupt, emit);
    cleared(name, directories, launched)
}

/// What the checks of a launch would say of this host, which stays as it is. No guest
/// is started.
pub(crate) fn foresee(
    options: &LaunchOptions,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Report, LaunchError> {
    let artifacts = Artifacts::open(&options.out)?;
    let options = LaunchOptions {
        settings: HostSettings::Kept,
        canaries: Canaries::Kept,
        ..options.clone()
    };
    let likely = options.tap_subnet(&Register::of(directories).look())?;
    let name = &artifacts.manifest.recipe.name;
    let (report, _) = prepare(&options, name, likely, &artifacts, directories, interrupt)?;
    Ok(report)
}

/// Refuses a name of throw-away fleets for one that is to outlive its process: the
/// next `run` would take it for a left-over, and remove it.
fn refuse_reserved(name: &str, lifetime: Lifetime) -> Result<(), LaunchError> {
    if lifetime == Lifetime::Own && is_private(name) {
        let name = name.to_owned();
        return Err(LaunchError::Reserved { name });
    }
    Ok(())
}

/// Makes the folder of a new fleet, clearing what a launch of that name left that
/// was killed before it started a guest.
fn create(name: &str, directories: &Directories) -> Result<Folder, LaunchError> {
    match Folder::create(name, directories) {
        Err(FolderError::Unfinished { .. }) => {
            remove(name, directories, Survivors::Kill)?;
            Ok(Folder::create(name, directories)?)
        }
        other => Ok(other?),
    }
}

/// Makes what the fleet of `site` needs besides its spec, which then tells that
/// it can be gone on with.
fn prepared(
    site: &mut Site,
    pair: Option<&Pair>,
    interrupt: &Interrupt,
    emit: &mut dyn FnMut(LaunchEvent),
) -> Result<Journal, LaunchError> {
    site.folder().make_folders()?;
    site.folder_mut().make_new_runtime()?;
    if let Some(pair) = pair {
        pair.write(site.folder())?;
    }
    site.prepare(site.spec().guests, interrupt)?;
    let ssh_config = site.write_ssh_config()?;
    emit(LaunchEvent::Launch(Milestone::Fleet {
        fleet: site.spec().name.clone(),
        folder: site.folder().path().to_path_buf(),
        ssh_config,
    }));
    if interrupt.requested() {
        return Err(LaunchError::Interrupted);
    }
    // What cannot be had is reported before a supervisor of its own is started.
    site.place()?;
    let journal = Journal::open(&site.folder().journal())?;
    site.spec_mut().unfinished = false;
    site.folder().write_spec(site.spec())?;
    Ok(journal)
}

/// Removes what a launch left that failed before the first guest was started.
fn cleared(
    name: &str,
    directories: &Directories,
    launched: Result<Launched, LaunchError>,
) -> Result<Launched, LaunchError> {
    launched.map_err(
        |error| match (error, remove(name, directories, Survivors::Spare)) {
            // Its log went with its folder.
            (LaunchError::Supervisor { status, last, .. }, Ok(_)) => LaunchError::Supervisor {
                status,
                last,
                log: None,
            },
            (error, Ok(_)) => error,
            (error, Err(remains)) => {
                tracing::warn!("{remains}");
                error
            }
        },
    )
}

/// Raises a limit of this process as far as it goes: checks judge the hard one.
/// Guests get limits of their own.
fn raise(resource: Resource) -> Result<(), SystemError> {
    let limits = getrlimit(resource);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    setrlimit(resource, raised).doing(format!("raise the limit {resource:?} of this process"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::folder::private_name;

    #[test]
    fn names_of_throw_away_fleets_are_theirs() {
        let private = private_name().unwrap();
        refuse_reserved(&private, Lifetime::WithParent).unwrap();
        for name in [private.as_str(), "run-20250101"] {
            let error = refuse_reserved(name, Lifetime::Own)
                .unwrap_err()
                .to_string();
            assert!(error.contains(name) && error.contains("--name"), "{error}");
        }
        for name in ["run-2025", "run-nightly0", "tty-burn"] {
            refuse_reserved(name, Lifetime::Own).unwrap();
        }
    }
}
