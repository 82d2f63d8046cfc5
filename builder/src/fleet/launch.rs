//! `launch`: a fleet from an output folder, in the foreground.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tty_init::protocol::Burn;

use super::deadline;
use super::folder::{Folder, FolderError};
use super::guest::{Failure, Guest, State};
use super::key::{self, KeyError};
use super::mend::Hold;
use super::plan::{Artifacts, Common, Login};
use super::ports::{self, TooFewPorts};
use super::readiness::{self, Canaries, Question, Report};
use super::ssh_config::{self, SshConfigError};
use super::supervisor::{Member, Observation, Pace, Supervisor};
use crate::artifact::ManifestError;
use crate::directories::Directories;
use crate::disk::overlay::OverlayError;
use crate::disk::qcow2::Qcow2Error;
use crate::host;
use crate::host::settings::SettingsError;
use crate::host::snapshot::{Host, KvmProbe, Places};
use crate::host::want::{LAUNCHER_FILES_A_GUEST, LAUNCHER_FILES_BESIDE};
use crate::interrupt::Interrupt;
use crate::process::ProcessError;
use crate::units::{ByteSize, GuestIndexError, counted};
use crate::vmm::{Accel, Net, Sharing};

/// How long guests may take to power off before they are ended by force. Their
/// disks are thrown away, so nothing is lost by force.
const STOP_GRACE: Duration = Duration::from_secs(10);

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
    /// Whether guests are tried first.
    pub canaries: Canaries,
    /// Whether host settings are changed for as long as the fleet lives.
    pub fix: bool,
    /// Whether to launch on a host that is not ready.
    pub force: bool,
}

/// What a launch tells as it goes.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum LaunchEvent {
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
    /// A guest's state changed, or it was asked how it does.
    Guest {
        /// Its id.
        id: String,
        /// Its state.
        state: &'static str,
        /// Process id of its VMM.
        pid: Option<u32>,
        /// Port of 127.0.0.1 that leads to its SSH server.
        #[serde(skip_serializing_if = "Option::is_none")]
        ssh_port: Option<u16>,
        /// Seconds from its start to ready, when it just got there.
        #[serde(skip_serializing_if = "Option::is_none")]
        ready_after: Option<f64>,
        /// What it said of its burn.
        #[serde(skip_serializing_if = "Option::is_none")]
        burn: Option<Burn>,
        /// Why it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The launch is over.
    Summary(Summary),
}

/// How a launch went.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The fleet.
    pub fleet: String,
    /// Guests asked for.
    pub count: usize,
    /// Guests that were ready until they were stopped.
    pub ready: usize,
    /// Guests whose burn counter advanced.
    pub burning: usize,
    /// Guests that never got ready.
    pub failed: usize,
    /// Guests that ended by themselves after they had been ready.
    pub exited: usize,
    /// Guests that were not started, since the first ones all failed or the
    /// user ended the launch.
    pub planned: usize,
    /// Guests that were ready, but did not answer in the end.
    pub silent: usize,
    /// Seconds until the last guest was ready or had failed.
    pub start_seconds: f64,
    /// What ran the guests' code.
    pub accel: Accel,
    /// What KSM might merge.
    pub sharing: Sharing,
    /// How guests were connected.
    pub net: Net,
    /// RAM of a guest.
    pub memory: ByteSize,
    /// Whether the user ended it.
    pub interrupted: bool,
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
    /// The system refused what a supervisor needs.
    #[error("cannot supervise the fleet: {0}")]
    System(#[from] io::Error),
}

/// Launches a fleet, keeps it, ends it, and tells how it went.
pub fn launch(
    options: &LaunchOptions,
    directories: &Directories,
    interrupt: &Interrupt,
    emit: &mut impl FnMut(&LaunchEvent),
) -> Result<Summary, LaunchError> {
    let artifacts = Artifacts::open(&options.out)?;
    let recipe = &artifacts.manifest.recipe;
    let name = options.name.as_ref().unwrap_or(&recipe.name);
    let users_key = options.ssh_key.as_deref().map(key::read).transpose()?;
    let folder = Folder::create(name, directories)?;
    allow_threads()?;
    // Dropped once the guests are gone, it puts settings back.
    let (report, _settings) = prepare(options, name, &artifacts, directories, interrupt)?;
    emit(&LaunchEvent::Check(Box::new(report.clone())));
    let forced: Vec<_> = report.obstacles().map(|finding| finding.id).collect();
    if !forced.is_empty() {
        if !options.force {
            return Err(LaunchError::NotReady(Box::new(report)));
        }
        tracing::warn!("forced: not ready for {}", obstacles(&report));
    }
    allow_descriptors(options.count)?;
    let login = match options.net {
        Net::User => Some(Login {
            key: match users_key {
                Some(key) => key,
                None => key::generate(name, &folder)?,
            },
            ports: ports::choose(folder.path(), options.count)?,
        }),
        Net::None => None,
    };
    let memory = options.memory.unwrap_or(recipe.memory);
    let common = Common {
        artifacts: &artifacts,
        folder: &folder,
        accel: options.accel,
        sharing: options.sharing,
        net: options.net,
        memory,
        // Guests come up quiet, so that those who burn do not hold up the rest.
        parameters: "tty.burn=0",
        login: login.as_ref(),
    };
    let plans = common.plan(options.count, interrupt)?;
    let patience = deadline::scaled(options.count, host::cpus());
    emit(&LaunchEvent::Fleet {
        fleet: name.clone(),
        folder: folder.path().to_path_buf(),
        ssh_config: login
            .as_ref()
            .map(|login| ssh_config::write(&folder, &plans, &login.key, patience))
            .transpose()?,
    });
    let mut supervisor = Supervisor::new(
        plans,
        Pace {
            // Booting is work for a CPU, so more guests at a time than CPUs only
            // slow each other down; one more keeps the CPUs busy while another
            // is set up.
            parallel: host::cpus() + 1,
            boot_timeout: deadline::boot(options.accel, recipe.boot_timeout()),
        },
        interrupt.clone(),
    )?;
    let began = Instant::now();
    let mut tell = |member: &Member, observation: Observation<'_>| {
        if matches!(observation, Observation::State) {
            emit(&changed(member));
        }
    };
    supervisor.start_all(&mut tell)?;
    let start_seconds = began.elapsed().as_secs_f64();

    if recipe.burn.duty > 0 && !interrupt.requested() {
        supervisor.tell_all(&format!("burn {}", recipe.burn.duty));
    }
    // A time beyond what a clock holds is for ever.
    let until = options
        .keep
        .and_then(|keep| Instant::now().checked_add(keep));
    supervisor.hold(until, &mut tell)?;
    if !interrupt.requested() {
        supervisor.ask_all(Instant::now() + patience, &mut tell)?;
    }
    let summary = summarize(
        options,
        name,
        memory,
        &supervisor,
        start_seconds,
        interrupt.requested(),
        forced,
    );
    for member in supervisor
        .members()
        .iter()
        .filter(|member| *member.guest().state() == State::Ready)
    {
        emit(&asked(member));
    }
    // From here on an exit is what was asked for, not news.
    supervisor.stop_all(STOP_GRACE, &mut |_, _| {})?;
    emit(&LaunchEvent::Summary(summary.clone()));
    Ok(summary)
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
        let host = Host::read(&places, interrupt);
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

/// Raises the limit of this user's threads as far as it goes: checks judge the
/// hard one.
fn allow_threads() -> io::Result<()> {
    let limits = getrlimit(Resource::Nproc);
    let raised = Rlimit {
        current: limits.maximum,
        ..limits
    };
    Ok(setrlimit(Resource::Nproc, raised)?)
}

/// Raises the limit of open files as far as `guests` need it, or as it goes.
fn allow_descriptors(guests: u32) -> io::Result<()> {
    let needed = u64::from(guests) * LAUNCHER_FILES_A_GUEST + LAUNCHER_FILES_BESIDE;
    let limits = getrlimit(Resource::Nofile);
    if limits.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let current = limits.maximum.map_or(needed, |most| most.min(needed));
    Ok(setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(current),
            maximum: limits.maximum,
        },
    )?)
}

/// A guest whose state just changed.
fn changed(member: &Member) -> LaunchEvent {
    guest_event(
        member,
        match member.guest().state() {
            State::Ready => member.ready_after(),
            _ => None,
        },
    )
}

/// A guest that was asked how it does.
fn asked(member: &Member) -> LaunchEvent {
    guest_event(member, None)
}

fn guest_event(member: &Member, ready_after: Option<Duration>) -> LaunchEvent {
    let guest = member.guest();
    LaunchEvent::Guest {
        id: member.index().to_string(),
        state: guest.state().name(),
        pid: member.pid(),
        ssh_port: member.ssh_port(),
        ready_after: ready_after.map(|time| time.as_secs_f64()),
        burn: guest.status().map(|status| status.burn),
        reason: match guest.state() {
            State::Failed(failure) => Some(why(failure, guest)),
            _ => None,
        },
    }
}

/// Why a guest failed, with what it said last.
pub(super) fn why(failure: &Failure, guest: &Guest) -> String {
    let reason = failure.to_string();
    match guest.tail().last() {
        Some(line) if !reason.contains(line) => format!("{reason}; last line: {line}"),
        _ => reason,
    }
}

fn summarize(
    options: &LaunchOptions,
    name: &str,
    memory: ByteSize,
    supervisor: &Supervisor,
    start_seconds: f64,
    interrupted: bool,
    forced: Vec<&'static str>,
) -> Summary {
    let count = |wanted: fn(&Member) -> bool| {
        supervisor
            .members()
            .iter()
            .filter(|member| wanted(member))
            .count()
    };
    Summary {
        fleet: name.to_owned(),
        count: supervisor.members().len(),
        ready: count(|member| *member.guest().state() == State::Ready),
        burning: count(|member| {
            member
                .guest()
                .status()
                .is_some_and(|status| status.burn.rounds > 0)
        }),
        failed: count(|member| matches!(member.guest().state(), State::Failed(_))),
        exited: count(|member| *member.guest().state() == State::Exited),
        planned: count(|member| *member.guest().state() == State::Planned),
        silent: count(Member::owes_an_answer),
        start_seconds,
        accel: options.accel,
        sharing: options.sharing,
        net: options.net,
        memory,
        interrupted,
        forced,
    }
}
