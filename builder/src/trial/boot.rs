//! Boot verification: one guest from the built artifacts must boot.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tty_init::host;
use tty_init::protocol::{DeviceState, Status};

use super::{Purpose, Setup, Trial, TrialError};
use crate::artifact::Part;
use crate::artifact::opened::Artifacts;
use crate::digest::memo::Memo;
use crate::directories::Directories;
use crate::fleet::supervisor::Observation;
use crate::guest::Reason;
use crate::host::finding::Severity;
use crate::host::snapshot::Qemu;
use crate::host::{concern, kvm};
use crate::interrupt::Interrupt;
use crate::process::ProcessError;
use crate::recipe::SshServer;
use crate::sample::schedule::Schedule;
use crate::system::SystemError;
use crate::text::{self, printable_bytes};
use crate::units::Duty;
use crate::vmm::qemu::{Emulator, Program};
use crate::vmm::{Accel, Machine, Net, Sharing};

/// How long the guest burns between two looks at its counter.
const BURN: Duration = Duration::from_millis(300);
/// Most lines of text that are kept of what it says.
const WORDS_MAX: usize = 64;
/// How long its counter may stand still, and how long it may take to answer once;
/// what it waited for a CPU is not counted ([`Schedule::had`]).
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to power off.
const GRACE: Duration = Duration::from_secs(5);

/// What a verified guest showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    /// The QEMU that it ran on.
    pub qemu: Emulator,
    /// What ran its code.
    pub accel: Accel,
    /// Why KVM did not, if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvm_unusable: Option<String>,
    /// Seconds from start to ready.
    pub ready_after: f64,
    /// Its burn counter, looked at twice.
    pub rounds: [u64; 2],
    /// What it does without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<Part>,
    /// The lines it said on the way.
    pub words: Vec<String>,
}

/// A guest that did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error(
        "the guest does not boot under {}: {reason}; {}\n\
         give it more memory (--memory), or fix the recipe or kernel; --no-boot keeps the artifacts \
         unverified",
        accel.name(),
        last_words(console)
    )]
    Failed {
        accel: Accel,
        reason: String,
        console: String,
    },
    /// The host had it, and not the guest.
    #[error(
        "this host does not let a guest start under {}, whatever it is built of: {reason}; \
         --no-boot keeps the artifacts unverified",
        accel.name()
    )]
    Host { accel: Accel, reason: String },
    /// It is ready, but does not burn.
    #[error(
        "the guest is ready, but does not burn: its counter does not advance ({rounds} rounds); \
         fix the recipe's [burn] or the kernel; --no-boot keeps the artifacts unverified"
    )]
    NotBurning { rounds: u64 },
    /// It is ready, but cannot use its disk.
    #[error(
        "the guest is ready, but cannot use its disk; it said:\n{words}\n\
         fix the recipe or kernel; --no-boot keeps the artifacts unverified"
    )]
    Disk { words: String },
    /// It is ready, but the image's SSH server does not serve.
    #[error(
        "the guest is ready, but the image's SSH server does not listen; it said:\n{words}\n\
         fix the image or its configuration, or build with --ssh-server imgbuild; --no-boot keeps \
         the artifacts unverified"
    )]
    Ssh { words: String },
    /// Its kernel has no driver for the disk, which holds its root file system.
    #[error(
        "the guest is ready, but finds no disk, and the recipe's root file system is on it: the \
         kernel needs CONFIG_VIRTIO_BLK, CONFIG_VIRTIO_MMIO, CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES \
         and CONFIG_EXT4_FS built in (=y, not =m); give another kernel, or put the root file system \
         into the initramfs (--rootfs-place initramfs); --no-boot keeps the artifacts unverified"
    )]
    NoDisk,
    #[error("interrupted during boot verification")]
    Interrupted,
    /// It could not be started.
    #[error(transparent)]
    Launch(#[from] TrialError),
}

/// The QEMU that `program` is, if it can run guests.
pub(crate) fn emulator(
    program: Option<&Program>,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Emulator, BootError> {
    let program = program
        .ok_or_else(Program::missing)
        .map_err(TrialError::from)?;
    // That it fails is reported as of any other tool.
    let failed = |error| match error {
        ProcessError::Interrupted { .. } => BootError::Interrupted,
        other => TrialError::from(other).into(),
    };
    let version = program.version(interrupt).map_err(failed)?;
    let microvm = program.has_microvm(interrupt).map_err(failed)?;
    let seen = Qemu::by_answers(program.path(), Ok(version.clone()), Ok(microvm));
    let mut findings = concern::qemu::judge(&seen).into_iter();
    if let Some(blocker) = findings.find(|finding| finding.severity == Severity::Blocker) {
        return Err(TrialError::Unfit(Box::new(blocker)).into());
    }
    let memo = Memo::in_cache(&directories.cache);
    let emulator = Emulator::of(program.path(), Some(&version), &memo);
    Ok(emulator.map_err(TrialError::from)?)
}

/// Boots one guest on `emulator` from the artifacts in `folder`: under KVM where
/// KVM runs it, else under TCG.
pub(crate) fn verify(
    folder: &Path,
    emulator: &Emulator,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Report, BootError> {
    let artifacts = Artifacts::open(folder).map_err(TrialError::from)?;
    let kvm_unusable = match kvm::access(Path::new("/")) {
        Ok(()) => match attempt(&artifacts, emulator, Accel::Kvm, directories, interrupt) {
            Err(BootError::Failed { reason, .. } | BootError::Host { reason, .. }) => {
                format!("/dev/kvm opens, but a guest does not boot under it: {reason}")
            }
            Err(error @ BootError::NotBurning { .. }) => {
                format!("/dev/kvm opens, but a guest does not work under it: {error}")
            }
            other => return other,
        },
        Err(error) => error.to_string(),
    };
    tracing::info!("not KVM: {kvm_unusable}; verifying under TCG");
    let report = attempt(&artifacts, emulator, Accel::Tcg, directories, interrupt)?;
    Ok(Report {
        kvm_unusable: Some(kvm_unusable),
        ..report
    })
}

fn attempt(
    artifacts: &Artifacts,
    emulator: &Emulator,
    accel: Accel,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Report, BootError> {
    let recipe = &artifacts.manifest.recipe;
    let setup = Setup {
        qemu: emulator,
        machine: Machine {
            accel,
            sharing: Sharing::None,
            net: Net::User,
            memory: recipe.memory,
        },
        purpose: Purpose::Trial,
    };
    let mut trial = Trial::new(artifacts, &setup, 1, directories, interrupt)?;
    let mut words = Vec::new();
    let mut listen = |_: &_, observation: &Observation| match observation {
        // One message in each phase, however much text a kernel writes between.
        Observation::Message(message) if words.len() < WORDS_MAX + 2 => {
            words.push(text::json(message).expect("a message is plain data"));
        }
        Observation::Line(line) if words.len() < WORDS_MAX => {
            let text = printable_bytes(line);
            if !text.is_empty() && host::parse(line).is_err() {
                words.push(text);
            }
        }
        _ => {}
    };
    trial.start_all(&mut listen).map_err(TrialError::from)?;
    let rounds = watch_burn(&mut trial, recipe.burn.duty, interrupt).map_err(TrialError::from)?;
    let member = trial.member();
    let failure = (!member.is_ready()).then(|| member.guest().reason().cloned());
    trial
        .stop_all(GRACE, &mut |_, _| {})
        .map_err(TrialError::from)?;
    if interrupt.requested() {
        return Err(BootError::Interrupted);
    }
    let member = trial.member();
    if let Some(why) = failure {
        let reason = why.as_ref().map(ToString::to_string).unwrap_or_default();
        if why.as_ref().is_some_and(Reason::is_of_the_host) {
            return Err(BootError::Host { accel, reason });
        }
        return Err(BootError::Failed {
            accel,
            reason,
            console: member.guest().tail().collect::<Vec<_>>().join("\n"),
        });
    }
    // A kernel given ready-made may lack the file system; a console is enough, unless
    // the recipe's root is on the disk.
    let built_here = artifacts.manifest.kernel.config_digest.is_some();
    let status = member.guest().status();
    match status.map(|status| status.disk) {
        Some(DeviceState::Failed) if built_here || recipe.root_on_disk() => {
            let words = for_people(&words).collect::<Vec<_>>().join("\n");
            return Err(BootError::Disk { words });
        }
        Some(DeviceState::Absent) if recipe.root_on_disk() => return Err(BootError::NoDisk),
        _ => {}
    }
    if status.is_some_and(|status| status.ssh == DeviceState::Failed)
        && recipe.ssh.server == SshServer::Image
    {
        let words = words.join("\n");
        return Err(BootError::Ssh { words });
    }
    if recipe.burn.duty.burns() && rounds[1] <= rounds[0] {
        return Err(BootError::NotBurning { rounds: rounds[1] });
    }
    Ok(Report {
        qemu: emulator.clone(),
        accel,
        kvm_unusable: None,
        ready_after: member
            .guest()
            .ready_after()
            .unwrap_or_default()
            .as_secs_f64(),
        rounds,
        lacks: member.guest().status().map(lacks).unwrap_or_default(),
        words,
    })
}

/// What a guest, which was given a disk and a network, found no driver for.
fn lacks(status: Status) -> Vec<Part> {
    let mut lacks = Vec::new();
    if status.disk == DeviceState::Absent {
        lacks.push(Part::Disk);
    }
    if status.net == DeviceState::Absent {
        lacks.extend([Part::Net, Part::Ssh]);
    }
    lacks
}

/// Those of a guest's lines that are text, and no message to programs.
pub(crate) fn for_people(words: &[String]) -> impl Iterator<Item = &str> {
    let words = words.iter().map(String::as_str);
    words.filter(|line| !line.starts_with('{'))
}

/// What the console shows of a guest that failed.
fn last_words(console: &str) -> String {
    if console.is_empty() {
        "its console shows nothing".to_owned()
    } else {
        format!("console:\n{console}")
    }
}

/// Has a guest burn for `duty` percent of the time, and reads its counter: twice,
/// and on until it has grown or the guest had its time for that.
fn watch_burn(
    trial: &mut Trial,
    duty: Duty,
    interrupt: &Interrupt,
) -> Result<[u64; 2], SystemError> {
    let member = trial.member();
    let Some(pid) = member.pid().filter(|_| member.is_ready()) else {
        return Ok([0; 2]);
    };
    let guest = member.index();
    trial.supervisor.burn(guest, duty);
    let (began, before) = (Instant::now(), Schedule::of(pid));
    let first = look(trial)?;
    loop {
        let rounds = [first, look(trial)?];
        let had = Schedule::of(pid).since(before).had(began.elapsed());
        let is_over = had >= ANSWER || !trial.member().is_ready();
        if rounds[1] > first || !duty.burns() || is_over || interrupt.requested() {
            return Ok(rounds);
        }
    }
}

/// What a guest's counter stands at, a while from now.
fn look(trial: &mut Trial) -> Result<u64, SystemError> {
    trial.listen(Some(Instant::now() + BURN), &mut |_, _| {})?;
    trial.ask_all(Instant::now() + ANSWER, &mut |_, _| {})?;
    let status = trial.member().guest().status();
    Ok(status.map_or(0, |status| status.burn.rounds))
}
