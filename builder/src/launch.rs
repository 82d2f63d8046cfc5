//! `launch`: a fleet from an output folder; and `launch --resume`: a fleet whose
//! supervisor died.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::artifact::opened::Artifacts;
use crate::control::types::Event;
use crate::digest::memo::Memo;
use crate::directories::Directories;
use crate::fleet::remove::{Survivors, remove};
use crate::fleet::site::Site;
use crate::fleet::supervise::{Attachment, Ending, Tally};
use crate::guest::admission::AdmissionSpec;
use crate::guest::{BurnAt, Restart};
use crate::host::kvm::Prober;
use crate::host::snapshot::{KvmProbe, Places, Qemu};
use crate::host::user_ids::IdRange;
use crate::host::want::GuestUsers;
use crate::interrupt::Interrupt;
use crate::net::ports;
use crate::net::tap::{self, Subnet};
use crate::placement::PlacementSpec;
use crate::store::claims::{Claim, Others, Register};
use crate::store::folder::{Folder, FolderError, Paths, sweep};
use crate::store::journal::Journal;
use crate::store::key::{self, Key, Pair};
use crate::store::spec::{FleetSpec, SPEC_VERSION};
use crate::store::users::{self, Users};
use crate::trial::mend::Hold;
use crate::trial::readiness::{self, Canaries, Question, Report};
use crate::units::{ByteSize, GuestRange, Instance};
use crate::vmm::qemu::{Emulator, Program};
use crate::vmm::{Accel, Lifetime, Net, Sharing};
use crate::{any_path, host, random};
use detach::detach;
use error::obstacles;
use resume::supervise;

mod detach;
mod error;
mod resume;

pub(crate) use error::LaunchError;
pub(crate) use resume::resume;

#[derive(Debug, Clone)]
pub(crate) struct LaunchOptions {
    /// The output folder.
    pub out: PathBuf,
    /// Number of guests.
    pub count: u32,
    /// Name of the fleet; the recipe's by default.
    pub name: Option<String>,
    /// How long to keep the fleet after its start; until the interrupt by
    /// default.
    pub keep: Option<Duration>,
    /// The QEMU that guests run on; `None` where there is none.
    pub qemu: Option<Program>,
    /// What runs the guests' code.
    pub accel: Accel,
    /// What KSM may merge.
    pub sharing: Sharing,
    /// How guests are connected.
    pub net: Net,
    /// RAM of a guest; the recipe's by default.
    pub memory: Option<ByteSize>,
    /// The user's key to log in with; one of the fleet's own by default.
    pub ssh_key: Option<PathBuf>,
    /// Whether guests reach what is outside, with `Net::User`.
    pub outbound: bool,
    /// The taps' addresses, with `Net::Tap`; by default those of a network that
    /// is free.
    pub tap_subnet: Option<Subnet>,
    /// Which guests are started again once they ended.
    pub restart: Restart,
    /// When guests begin to burn.
    pub burn_at: BurnAt,
    /// How often a quiet guest is asked for a sign of life; never without.
    pub health: Option<Duration>,
    /// Memory of the host that stays free, in bytes;
    /// [`host::memory::keep_free`] by default.
    pub keep_free: Option<u64>,
    /// Most starts a second.
    pub rate: Option<f64>,
    /// Most guests that boot at a time; by the number of CPUs by default.
    pub parallel: Option<usize>,
    /// On which CPUs guests run, and with what share of them.
    pub placement: PlacementSpec,
    /// Under which user ids guests run.
    pub users: Users,
    /// Where Prometheus may ask.
    pub metrics: Option<SocketAddr>,
    /// Whether guests are tried first.
    pub canaries: Canaries,
    /// Whether host settings are changed for as long as the fleet lives.
    pub fix: bool,
    /// Whether to launch on a host that is not ready.
    pub force: bool,
}

impl LaunchOptions {
    /// The taps' addresses, of which nobody has any now; `None` without taps.
    fn tap_subnet(&self, others: &Others) -> Result<Option<Subnet>, LaunchError> {
        let guests = self.count.into();
        Ok(match (self.net, self.tap_subnet) {
            (Net::User | Net::None, _) => None,
            (Net::Tap, Some(subnet)) => {
                tap::check_among(others.taps(), subnet, guests)?;
                Some(subnet)
            }
            (Net::Tap, None) => Some(tap::choose(others.taps(), guests)?),
        })
    }
}

/// What a launch tells as it goes.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum LaunchEvent {
    /// What happens before the first guest is started, and in the end.
    Launch(Milestone),
    /// A guest's state changed, or the fleet's stage.
    Fleet(Event),
}

/// A step of a launch.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Milestone {
    Check(Box<Report>),
    /// The fleet's folder is written; guests are about to start.
    Fleet {
        fleet: String,
        #[serde(serialize_with = "any_path::lossy")]
        folder: PathBuf,
        /// Its configuration of ssh(1), if its guests have a network.
        #[serde(
            serialize_with = "any_path::option::lossy",
            skip_serializing_if = "Option::is_none"
        )]
        ssh_config: Option<PathBuf>,
    },
    /// A supervisor of its own goes on with the fleet.
    Detached {
        fleet: String,
        pid: u32,
        #[serde(serialize_with = "any_path::lossy")]
        log: PathBuf,
    },
    Summary(Box<Summary>),
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// The fleet.
    pub fleet: String,
    /// How it stood before its guests were stopped.
    #[serde(flatten)]
    pub tally: Tally,
    /// What ran the guests' code.
    pub accel: Accel,
    /// What KSM might merge.
    pub sharing: Sharing,
    /// How guests were connected.
    pub net: Net,
    /// RAM of a guest.
    pub memory: ByteSize,
    /// How guests got their share of the CPU.
    pub cpu: String,
    /// Why it ended.
    pub ending: Ending,
    /// What made the host not ready, where the launch was forced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Launched {
    Over(Box<Summary>),
    /// A supervisor of its own goes on with it.
    Detached,
}

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
    let name = options.name.as_ref().unwrap_or(&recipe.name);
    let users_key = options.ssh_key.as_deref().map(key::read).transpose()?;
    sweep(directories);
    let folder = create(name, directories)?;
    // What cannot be had is told before guests are tried; another fleet may have
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
        if !options.force {
            return Err(LaunchError::NotReady(Box::new(report)));
        }
        tracing::warn!("forced: not ready for {}", obstacles(&report));
    }
    let qemu = emulator(options.qemu.as_ref(), &report.qemu, directories)?;
    tracing::info!("guests run on {}", qemu.name());
    let (login, pair) = match (options.net, users_key) {
        (Net::None, _) => (None, None),
        (Net::User | Net::Tap, Some(key)) => (Some(key), None),
        (Net::User | Net::Tap, None) => {
            let pair = key::generate(name, &folder)?;
            (Some(pair.key.clone()), Some(pair))
        }
    };
    let turn = register
        .turn(folder.path(), || !interrupt.requested())?
        .ok_or(LaunchError::Interrupted)?;
    let chosen = Chosen::now(options, qemu, folder.path(), turn.others())?;
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
    turn.take(Claim::of(&spec, folder.path(), users))?;
    let mut site = Site::new(folder, spec, &artifacts, Lifetime::Own)?;
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
    let launched = supervise(site, journal, attachment, interrupt, emit);
    cleared(name, directories, launched)
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
    site.prepare(GuestRange::first(site.spec().count)?, interrupt)?;
    let ssh_config = site.write_ssh_config()?;
    emit(LaunchEvent::Launch(Milestone::Fleet {
        fleet: site.spec().name.clone(),
        folder: site.folder().path().to_path_buf(),
        ssh_config,
    }));
    if interrupt.requested() {
        return Err(LaunchError::Interrupted);
    }
    // What cannot be had is told before a supervisor of its own is started.
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
    if launched.is_err()
        && let Err(error) = remove(name, directories, Survivors::Spare)
    {
        tracing::warn!("{error}");
    }
    launched
}

/// The QEMU that was chosen, as it was seen by the checks.
fn emulator(
    program: Option<&Program>,
    seen: &Qemu,
    directories: &Directories,
) -> Result<Emulator, LaunchError> {
    let program = program.ok_or_else(Program::missing)?;
    let version = match seen {
        Qemu::Found { version, .. } => Some(version.as_str()),
        Qemu::Missing | Qemu::Broken { .. } | Qemu::Overdue { .. } => None,
    };
    let memo = Memo::in_cache(&directories.cache);
    Ok(Emulator::of(program.path(), version, &memo)?)
}

/// What was chosen for a fleet: its QEMU, and what no other fleet may have.
struct Chosen {
    qemu: Emulator,
    ports: Vec<u16>,
    users: Option<IdRange>,
    tap_subnet: Option<Subnet>,
}

impl Chosen {
    fn now(
        options: &LaunchOptions,
        qemu: Emulator,
        fleet: &Path,
        others: &Others,
    ) -> Result<Self, LaunchError> {
        Ok(Self {
            qemu,
            ports: match options.net {
                Net::User => ports::choose(fleet, &others.ports(), options.count)?,
                Net::Tap | Net::None => Vec::new(),
            },
            users: users::choose(options.users, options.count, others)?,
            tap_subnet: options.tap_subnet(others)?,
        })
    }
}

/// What the fleet is, as its folder will say.
fn spec(
    options: &LaunchOptions,
    folder: &Folder,
    directories: &Directories,
    artifacts: &Artifacts,
    report: &Report,
    login: Option<Key>,
    chosen: Chosen,
) -> Result<FleetSpec, LaunchError> {
    let recipe = &artifacts.manifest.recipe;
    let total = host::memory::read(Path::new("/"), &mut Vec::new()).total;
    let mut instance = [0; 12];
    instance.copy_from_slice(&random::random().map_err(io::Error::from)?[..12]);
    let cost = report.want.cost;
    Ok(FleetSpec {
        spec_version: SPEC_VERSION,
        name: folder.name(),
        instance: Instance(instance),
        host: directories.host.clone(),
        runtime: folder.runtime().to_path_buf(),
        out: artifacts.folder.clone(),
        artifacts: artifacts.digest,
        qemu: chosen.qemu,
        count: options.count,
        accel: options.accel,
        sharing: options.sharing,
        net: options.net,
        outbound: options.outbound,
        tap_subnet: chosen.tap_subnet,
        memory: options.memory.unwrap_or(recipe.memory),
        // Guests come up quiet, so that those who burn do not hold up the rest.
        command_line: artifacts.command_line("tty.burn=0"),
        burn: recipe.burn.duty,
        burn_at: options.burn_at,
        restart: options.restart,
        health: options.health,
        boot_timeout: recipe.boot_timeout(),
        authorized_key: login.as_ref().map(|key| key.public),
        identity_file: login.map(|key| key.file),
        ports: chosen.ports,
        admission: AdmissionSpec {
            keep_free: options
                .keep_free
                .unwrap_or_else(|| host::memory::keep_free(total)),
            rate: options.rate,
            parallel: options.parallel,
            guest_memory: cost.memory,
        },
        placement: options.placement.clone(),
        run_as_base: chosen.users.map(|users| users.first),
        metrics: options.metrics,
        keep: options.keep,
        until: None,
        unfinished: true,
        // No launch comes here with obstacles that was not.
        forced: report
            .obstacles()
            .map(|finding| finding.id.to_owned())
            .collect(),
    })
}

/// Checks the host, and changes its settings first where that was asked for.
fn prepare(
    options: &LaunchOptions,
    fleet: &str,
    taps: Option<Subnet>,
    artifacts: &Artifacts,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<(Report, Option<Hold>), LaunchError> {
    let probe = match options.accel {
        Accel::Kvm => KvmProbe::Run(Prober::this_program()),
        // What KVM does with a guest's kernel is of no matter, and takes time.
        Accel::Tcg => KvmProbe::Skip,
    };
    let places = Places::of(directories, probe, options.qemu.clone());
    let question = Question {
        artifacts: Some(artifacts),
        guests: Some(options.count),
        accel: options.accel,
        sharing: options.sharing,
        net: options.net,
        memory: options.memory,
        users: match options.users {
            Users::Own => GuestUsers::Own,
            Users::From(_) | Users::Apart => GuestUsers::Apart,
        },
        canaries: options.canaries,
    };
    let ask = |canaries| {
        let question = Question {
            canaries,
            ..question
        };
        let host = readiness::look(&places, taps, interrupt);
        readiness::check(&host, &question, directories, interrupt)?.ok_or(LaunchError::Interrupted)
    };
    if !options.fix {
        let hold = Hold::of_others(fleet);
        return Ok((ask(options.canaries)?, hold));
    }
    let hold = Hold::new(&ask(Canaries::Kept)?, fleet, interrupt)?;
    Ok((ask(options.canaries)?, Some(hold)))
}

/// Raises a limit of this process as far as it goes: checks judge the hard one.
/// Guests get limits of their own.
fn raise(resource: Resource) -> io::Result<()> {
    let limits = getrlimit(resource);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    Ok(setrlimit(resource, raised)?)
}
