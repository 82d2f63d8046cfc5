//! `launch`: a fleet from an output folder; and `launch --resume`: a fleet whose
//! supervisor died.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_send_signal, setrlimit, setsid,
};
use serde::Serialize;

use super::admission::Admission;
use super::api::client::Client;
use super::api::types::{Desired, Event};
use super::cpu::CpuError;
use super::folder::{Folder, FolderError, Paths};
use super::guest::{Backoff, Event as GuestEvent, GIVE_UP, Policy};
use super::journal::{History, Journal, JournalError};
use super::key::{self, Key, KeyError};
use super::mend::Hold;
use super::orphans::{self, Living};
use super::plan::Artifacts;
use super::ports::{self, TooFewPorts};
use super::readiness::{self, Canaries, Question, Report};
use super::remove::{Survivors, remove};
use super::site::Site;
use super::spec::{
    AdmissionSpec, BurnAt, FleetSpec, Instance, PlacementSpec, Restart, SPEC_VERSION, Subnet,
};
use super::ssh_config::SshConfigError;
use super::supervise::{Ending, Fleet, STOP_GRACE, Tally};
use super::supervisor::{Member, Supervisor};
use super::tap::{self, SubnetError, TapError};
use super::users::{self, Users, UsersError};
use super::{deadline, identity, logs};
use crate::artifact::ManifestError;
use crate::directories::Directories;
use crate::disk::overlay::OverlayError;
use crate::disk::qcow2::Qcow2Error;
use crate::host;
use crate::host::settings::SettingsError;
use crate::host::snapshot::{KvmProbe, Places};
use crate::interrupt::Interrupt;
use crate::process::ProcessError;
use crate::units::{ByteSize, GuestIndexError, GuestRange, counted};
use crate::vmm::{Accel, KvmClosed, Lifetime, Net, Sharing, Unreadable};

/// Who supervises a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// This process, which ends once none of its guests is to be up any more.
    Foreground,
    /// A process of its own, which outlives this one.
    Detached,
    /// This process, which is such a one, and stays.
    Background,
}

/// What to launch.
#[derive(Debug, Clone)]
pub struct LaunchOptions {
    /// The output folder.
    pub out: PathBuf,
    /// Number of guests.
    pub count: u32,
    /// Name of the fleet; the recipe's by default.
    pub name: Option<String>,
    /// How long to keep the fleet after its start; until the interrupt by
    /// default.
    pub keep: Option<Duration>,
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
    /// The taps' addresses, with `Net::Tap`.
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

/// What a launch tells as it goes.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum LaunchEvent {
    /// What happens before the first guest is started, and in the end.
    Launch(Milestone),
    /// A guest's state changed, or the fleet's stage.
    Fleet(Event),
}

/// A step of a launch.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Milestone {
    /// The host was checked.
    Check(Box<Report>),
    /// The fleet's folder is written; guests are about to start.
    Fleet {
        /// The fleet.
        fleet: String,
        /// Its folder.
        folder: PathBuf,
        /// Its configuration of ssh(1), if its guests have a network.
        #[serde(skip_serializing_if = "Option::is_none")]
        ssh_config: Option<PathBuf>,
    },
    /// A supervisor of its own goes on with the fleet.
    Detached {
        /// The fleet.
        fleet: String,
        /// The supervisor's process id.
        pid: u32,
        /// Its messages.
        log: PathBuf,
    },
    /// The fleet is over.
    Summary(Box<Summary>),
}

/// How a fleet ended.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
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
    pub forced: Vec<&'static str>,
}

/// A fleet that could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The host cannot run the fleet.
    #[error("this host is not ready for {}", obstacles(.0))]
    NotReady(Box<Report>),
    /// The user ended it before it began.
    #[error("interrupted while the host was checked")]
    Interrupted,
    /// Host settings could not be changed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The output folder's manifest is not usable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An artifact is not what the manifest says.
    #[error("{}: {reason}; `imgbuild verify` tells more, and building again mends it", path.display())]
    Artifact {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The fleet's folders could not be made.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The key given is not one to log in with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not every guest can have a port.
    #[error("this host is not ready: {0}")]
    Ports(#[from] TooFewPorts),
    /// Guests cannot have user ids of their own.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The files for ssh(1) could not be written.
    #[error(transparent)]
    SshConfig(#[from] SshConfigError),
    /// More guests than can be numbered.
    #[error(transparent)]
    Count(#[from] GuestIndexError),
    /// The overlays cannot be laid out.
    #[error(transparent)]
    Layout(#[from] Qcow2Error),
    /// The overlays could not be written.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// QEMU cannot be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No folder for guests on trial.
    #[error("cannot make a temporary folder: {0}; set TMPDIR to one that takes files")]
    Temporary(io::Error),
    /// A guest's user cannot read an artifact.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Guests' users cannot use KVM.
    #[error(transparent)]
    Kvm(#[from] KvmClosed),
    /// Guests cannot be placed as asked.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// Guests cannot be connected by taps.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Guests have no addresses.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Prometheus cannot be answered where it was to be.
    #[error("cannot listen on {address} for --metrics: {source}; choose another address")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The supervisor of a fleet ended before it was one.
    #[error("the supervisor ended ({status}): {last}")]
    Supervisor {
        /// How it ended.
        status: ExitStatus,
        /// The last thing it said.
        last: String,
    },
    /// The host was restarted, and no guest of the fleet can live.
    #[error(
        "{name} was lost when the host was restarted: `imgbuild rm {name}` clears it, and `imgbuild \
         launch` starts one anew"
    )]
    Rebooted {
        /// The fleet.
        name: String,
    },
    /// Its artifacts are not those that its guests run from.
    #[error(
        "{} was built again since {name} was launched, and guests of two kinds would be mixed; \
         `imgbuild rm --force {name}` ends its guests, and `imgbuild launch` starts it anew",
        out.display()
    )]
    Changed {
        /// The fleet.
        name: String,
        /// The output folder.
        out: PathBuf,
    },
    /// The system refused what a supervisor needs.
    #[error("cannot supervise the fleet: {0}")]
    System(#[from] io::Error),
}

/// How a launch went.
#[derive(Debug)]
pub enum Launched {
    /// The fleet is over.
    Over(Box<Summary>),
    /// A supervisor of its own goes on with it.
    Detached,
}

/// Launches a fleet, and supervises it to its end, or has a process of its own
/// do that.
pub fn launch(
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
    let folder = Folder::create(name, directories)?;
    raise(Resource::Nproc)?;
    // Dropped once the guests are gone, it puts settings back.
    let (report, settings) = prepare(options, name, &artifacts, directories, interrupt)?;
    emit(LaunchEvent::Launch(Milestone::Check(Box::new(
        report.clone(),
    ))));
    let forced: Vec<_> = report.obstacles().map(|finding| finding.id).collect();
    if !forced.is_empty() {
        if !options.force {
            return Err(LaunchError::NotReady(Box::new(report)));
        }
        tracing::warn!("forced: not ready for {}", obstacles(&report));
    }
    let login = match options.net {
        Net::None => None,
        Net::User | Net::Tap => Some(match users_key {
            Some(key) => key,
            None => key::generate(name, &folder)?,
        }),
    };
    let ports = match options.net {
        Net::User => ports::choose(folder.path(), options.count)?,
        Net::Tap | Net::None => Vec::new(),
    };
    let base = users::base(folder.path(), options.users)?;
    let spec = spec(options, name, &artifacts, &report, login, ports, base)?;
    if let Some(subnet) = spec.tap_subnet {
        tap::check(subnet, options.count.into())?;
    }
    let mut site = Site::new(folder, spec, &artifacts, Lifetime::Own)?;
    let prepared = site
        .prepare(GuestRange::first(options.count)?, interrupt)
        .and_then(|()| site.write_ssh_config());
    if let Err(error) = prepared {
        site.remove();
        return Err(error);
    }
    emit(LaunchEvent::Launch(Milestone::Fleet {
        fleet: name.clone(),
        folder: site.folder().path().to_path_buf(),
        ssh_config: prepared?,
    }));
    if interrupt.requested() {
        site.remove();
        return Err(LaunchError::Interrupted);
    }
    // What cannot be had is told before a supervisor of its own is started.
    let placed = site
        .place()
        .and_then(|()| Ok(site.folder().write_spec(site.spec())?));
    if let Err(error) = placed {
        site.remove();
        return Err(error);
    }
    if attachment == Attachment::Detached {
        // The supervisor takes the lock, and joins those who hold settings.
        drop(site);
        let detached = detach(name, directories, interrupt, emit);
        drop(settings);
        return cleared(name, directories, detached.map(|()| Launched::Detached));
    }
    let journal = Journal::open(&site.folder().journal())?;
    let launched = supervise(site, journal, attachment, forced, interrupt, emit);
    cleared(name, directories, launched)
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

/// Goes on with a fleet whose supervisor died.
pub fn resume(
    name: &str,
    attachment: Attachment,
    directories: &Directories,
    interrupt: &Interrupt,
    emit: &mut dyn FnMut(LaunchEvent),
) -> Result<Launched, LaunchError> {
    let folder = Folder::open(name, directories)?;
    let spec = folder.spec()?;
    if attachment == Attachment::Detached {
        drop(folder);
        detach(name, directories, interrupt, emit)?;
        return Ok(Launched::Detached);
    }
    if spec.boot_id != host::boot_id()? {
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
    raise(Resource::Nproc)?;
    // Settings that the fleet was launched with stay in force for it.
    let _settings = Hold::of_others(name);
    let journal = Journal::open(&folder.journal())?;
    let site = Site::new(folder, spec, &artifacts, Lifetime::Own)?;
    supervise(site, journal, attachment, Vec::new(), interrupt, emit)
}

/// Supervises a fleet to its end; guests of it that live are adopted.
fn supervise(
    mut site: Site,
    journal: Journal,
    attachment: Attachment,
    forced: Vec<&'static str>,
    interrupt: &Interrupt,
    emit: &mut dyn FnMut(LaunchEvent),
) -> Result<Launched, LaunchError> {
    let spec = site.spec().clone();
    raise(Resource::Nofile)?;
    site.place()?;
    let patience = deadline::scaled(spec.count, host::cpus());
    let policy = Policy {
        restart: spec.restart,
        boot_timeout: deadline::boot(spec.accel, spec.boot_timeout),
        answer_within: patience,
        health: spec.health,
        backoff: Backoff::default(),
        give_up: GIVE_UP,
    };
    let admission = Admission::new(&spec.admission, host::cpus());
    let cpu = site.describe_cpu();
    let mut supervisor = Supervisor::new(site, policy, admission, interrupt.clone())?;
    supervisor.extend(GuestRange::first(spec.count)?.iter());
    adopt(&mut supervisor, journal.history())?;
    let mut tell = |event: &Event| emit(LaunchEvent::Fleet(event.clone()));
    let fleet = Fleet::new(supervisor, journal, &mut tell)?;
    let (ending, tally) = fleet.run(attachment)?;
    let summary = Box::new(Summary {
        fleet: spec.name,
        tally,
        accel: spec.accel,
        sharing: spec.sharing,
        net: spec.net,
        memory: spec.memory,
        cpu,
        ending,
        forced,
    });
    emit(LaunchEvent::Launch(Milestone::Summary(summary.clone())));
    Ok(Launched::Over(summary))
}

/// Takes charge of the guests that live, and notes those that are gone.
fn adopt(supervisor: &mut Supervisor, past: &History) -> Result<(), LaunchError> {
    let instance = supervisor.site().spec().instance;
    let root = Path::new("/");
    let mut adopted = 0_u64;
    let mut found = orphans::living(root, instance)?;
    // Anybody's process may have a guest's UUID in its command line; those that
    // the journal tells of come first.
    found.sort_by_key(|living| {
        let last = past.guests.get(&living.guest).and_then(|past| past.last);
        last.is_none_or(|run| (run.pid, run.start_time) != (living.pid, living.start_time))
    });
    for living in found {
        let which = living.guest.get() as usize;
        let Some(pidfd) = orphans::open(living.pid, living.start_time, instance, living.guest)
        else {
            continue;
        };
        let is_extra = supervisor.members().get(which).is_none_or(Member::lives);
        let why = if is_extra {
            "its number is not wanted, or taken".to_owned()
        } else {
            match supervisor.adopt(which, &living, pidfd.try_clone()?, past.up) {
                Ok(()) => {
                    adopted += 1;
                    continue;
                }
                // Nobody can talk to it ever again.
                Err(error) if is_out_of_reach(&error) => {
                    format!("its console is out of reach: {error}")
                }
                Err(error) => return Err(error.into()),
            }
        };
        let Living { guest, pid, .. } = living;
        tracing::warn!("{guest} (process {pid}) is killed: {why}");
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    for (guest, past) in &past.guests {
        let which = guest.get() as usize;
        let Some(member) = supervisor.members().get(which) else {
            continue;
        };
        let lives = member.lives();
        if let Some(last) = past.last {
            supervisor.remember(which, last.restarts, past.over);
        }
        if past.desired == Desired::Down {
            supervisor.wish(which, &GuestEvent::Stop(STOP_GRACE));
        } else if !lives && past.last.is_some() {
            supervisor.wish(which, &GuestEvent::Gone);
        }
    }
    if adopted > 0 {
        tracing::info!("adopted {}", counted(adopted, "guest"));
    }
    Ok(())
}

/// Whether a console that could not be connected to never can be.
fn is_out_of_reach(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
    )
}

/// Starts a process that supervises the fleet, and waits until it does.
fn detach(
    name: &str,
    directories: &Directories,
    interrupt: &Interrupt,
    emit: &mut dyn FnMut(LaunchEvent),
) -> Result<(), LaunchError> {
    let paths = Paths::of(name, directories);
    let client = Client::new(name, directories, interrupt);
    let log = paths.supervisor_log();
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([
            "--verbose",
            "--log-format",
            "json",
            "launch",
            "--background",
            "--resume",
            name,
        ])
        // What a user sets for every launch is in the spec.
        .env_remove("IMGBUILD_COUNT")
        .env_remove("IMGBUILD_NAME")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(opened);
    // SAFETY: the closure runs between fork and exec and makes one system call;
    // it takes no lock and allocates nothing.
    unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
    let mut child = command.spawn()?;
    let pid = child.id();
    loop {
        if client.fleet(false).is_ok() {
            break;
        }
        if let Some(status) = child.try_wait()? {
            return Err(LaunchError::Supervisor {
                status,
                last: last_words(&log)?,
            });
        }
        if interrupt.requested() {
            // It stops the fleet, as Ctrl-C does for one in the foreground.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            child.wait()?;
            return Err(LaunchError::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    emit(LaunchEvent::Launch(Milestone::Detached {
        fleet: name.to_owned(),
        pid,
        log,
    }));
    Ok(())
}

/// The last message in a supervisor's log, whose lines are JSON.
fn last_words(log: &Path) -> io::Result<String> {
    let line = logs::tail(log, 1)?.pop().unwrap_or_default();
    let event = serde_json::from_str::<serde_json::Value>(&line).unwrap_or_default();
    let message = event["fields"]["message"].as_str().map(str::to_owned);
    Ok(message.unwrap_or(line))
}

/// What the fleet is, as its folder will say.
fn spec(
    options: &LaunchOptions,
    name: &str,
    artifacts: &Artifacts,
    report: &Report,
    login: Option<Key>,
    ports: Vec<u16>,
    run_as_base: Option<u32>,
) -> Result<FleetSpec, LaunchError> {
    let recipe = &artifacts.manifest.recipe;
    let total = host::memory::read(Path::new("/"), &mut Vec::new()).total;
    let mut instance = [0; 12];
    instance.copy_from_slice(&identity::random().map_err(io::Error::from)?[..12]);
    let cost = report.want.cost;
    Ok(FleetSpec {
        spec_version: SPEC_VERSION,
        name: name.to_owned(),
        instance: Instance(instance),
        boot_id: host::boot_id()?,
        out: artifacts.folder.clone(),
        artifacts: artifacts.digest,
        count: options.count,
        accel: options.accel,
        sharing: options.sharing,
        net: options.net,
        outbound: options.outbound,
        tap_subnet: match options.net {
            Net::Tap => Some(options.tap_subnet.unwrap_or(Subnet::FOR_TAPS)),
            Net::User | Net::None => None,
        },
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
        ports,
        admission: AdmissionSpec {
            keep_free: options
                .keep_free
                .unwrap_or_else(|| host::memory::keep_free(total)),
            rate: options.rate,
            parallel: options.parallel,
            guest_memory: cost.memory,
        },
        placement: options.placement.clone(),
        run_as_base,
        metrics: options.metrics,
        keep: options.keep,
        until: None,
    })
}

/// Checks the host, and changes its settings first where that was asked for.
fn prepare(
    options: &LaunchOptions,
    fleet: &str,
    artifacts: &Artifacts,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<(Report, Option<Hold>), LaunchError> {
    let probe = match options.accel {
        Accel::Kvm => KvmProbe::Run,
        // What KVM does with a guest's kernel is of no matter, and takes time.
        Accel::Tcg => KvmProbe::Skip,
    };
    let places = Places::of(directories, probe);
    let question = Question {
        artifacts: Some(artifacts),
        guests: Some(options.count),
        accel: options.accel,
        sharing: options.sharing,
        net: options.net,
        memory: options.memory,
        canaries: options.canaries,
    };
    let ask = |canaries| {
        let question = Question {
            canaries,
            ..question
        };
        let host = readiness::look(&places, options.net, options.tap_subnet, interrupt);
        readiness::check(&host, &question, directories, interrupt)?.ok_or(LaunchError::Interrupted)
    };
    if !options.fix {
        let hold = Hold::of_others(fleet);
        return Ok((ask(options.canaries)?, hold));
    }
    let hold = Hold::new(&ask(Canaries::Kept)?, fleet, interrupt)?;
    Ok((ask(options.canaries)?, Some(hold)))
}

/// What makes a host not ready, for a message.
fn obstacles(report: &Report) -> String {
    let mut text = format!(
        "{} under --accel {}:",
        counted(report.want.wanted(), "guest"),
        report.want.accel.name()
    );
    for finding in report.obstacles() {
        let _ = write!(
            text,
            "\n  {}: {} (need: {}): {}",
            finding.id, finding.value, finding.need, finding.meaning
        );
        if let Some(guests) = finding.guests {
            let _ = write!(text, "; allows {}", counted(guests, "guest"));
        }
        if let Some(fix) = &finding.fix {
            let _ = write!(text, "; {fix}");
        }
    }
    text.push_str("\n`imgbuild check` tells more; --force launches all the same");
    text
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
