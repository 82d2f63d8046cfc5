//! Guests on trial: a fleet in a temporary folder, which is removed with its value.

use crate::artifact::opened::Artifacts;
use crate::directories::Directories;
use crate::fleet::site::Site;
use crate::fleet::supervisor::Supervisor;
use crate::guest::admission::{Admission, AdmissionSpec};
use crate::guest::{Backoff, BurnAt, GIVE_UP, OnTrouble, Policy, Restart, deadline};
use crate::interrupt::Interrupt;
use crate::placement::PlacementSpec;
use crate::store::folder::{Folder, FolderError, TRIAL_PREFIX, sweep};
use crate::store::spec::{FleetSpec, HostSettings};
use crate::system::{Doing as _, SystemError};
use crate::units::{Duty, GuestRange, Instance};
use crate::vmm::qemu::Emulator;
use crate::vmm::{Lifetime, Machine, Outbound};
use crate::{host, random};

pub(crate) mod boot;
pub(crate) mod canary;
mod error;
pub(crate) mod fix;
pub(crate) mod readiness;
mod rounds;
pub(crate) mod template;

pub use error::TrialError;

/// A key that nobody has the private half of.
const NOBODYS_KEY: [u8; 32] = [0x5a; 32];

/// How guests on trial are run.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The QEMU that they run on.
    pub qemu: &'a Emulator,
    /// What each of them runs on.
    pub machine: Machine,
    /// What for.
    pub purpose: Purpose,
}

/// What guests on trial are run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To see how such a guest does.
    Trial,
    /// To have others begin where this one stops (`tty.poise`).
    Template,
}

impl Purpose {
    /// What the kernel command line has for it.
    fn parameters(self) -> &'static str {
        match self {
            Self::Trial => "",
            Self::Template => " tty.poise",
        }
    }
}

/// Guests on trial, not yet started.
///
/// They die with this process, or when this value is dropped, and their folder
/// goes with them; one that is killed leaves it to [`sweep`].
#[derive(Debug)]
pub struct Trial {
    /// Its guests are planned.
    pub supervisor: Supervisor,
}

impl Trial {
    /// Writes what so many guests need.
    pub fn new(
        artifacts: &Artifacts,
        setup: &Setup<'_>,
        count: u32,
        directories: &Directories,
        interrupt: &Interrupt,
    ) -> Result<Self, TrialError> {
        artifacts.check_memory(setup.machine.memory)?;
        sweep(directories);
        let runtime = directories.open_runtime().map_err(FolderError::from)?;
        let name = name()?;
        let folder = Folder::on_trial(&name, runtime)?;
        let guests = GuestRange::first(count)?;
        let spec = setup.spec(&folder, directories, artifacts, guests);
        let admission = Admission::new(&spec.admission, count as usize);
        let policy = Policy {
            restart: spec.restart,
            boot_timeout: spec.boot_timeout,
            answer_within: deadline::scaled(count, host::cpus()),
            health: spec.health,
            backoff: Backoff::default(),
            give_up: GIVE_UP,
            on_trouble: OnTrouble::GiveUp,
        };
        let site = Site::new(folder, spec, artifacts, Lifetime::WithParent)?;
        site.prepare(guests, interrupt)?;
        let mut supervisor = Supervisor::new(site, policy, admission, interrupt.clone())?;
        supervisor.become_these(guests);
        Ok(Self { supervisor })
    }
}

/// A name that no other trial has, whatever this process runs at a time.
pub(crate) fn name() -> Result<String, SystemError> {
    let random = random::random().doing("read random bytes from the kernel")?;
    Ok(format!("{TRIAL_PREFIX}{}", hex::encode(&random[..4])))
}

impl Setup<'_> {
    /// A fleet of guests that are all started at once, and once only.
    pub fn spec(
        &self,
        folder: &Folder,
        directories: &Directories,
        artifacts: &Artifacts,
        guests: GuestRange,
    ) -> FleetSpec {
        FleetSpec {
            name: folder.name(),
            instance: Instance([0; 12]),
            host: directories.host.clone(),
            runtime: folder.runtime().to_path_buf(),
            out: artifacts.folder.clone(),
            artifacts: artifacts.digest,
            qemu: self.qemu.clone(),
            guests,
            at_most: 0,
            machine: self.machine,
            outbound: Outbound::Closed,
            // Their taps lead nowhere, and take no addresses from fleets.
            tap_subnet: None,
            command_line: artifacts.command_line() + self.purpose.parameters(),
            template: None,
            burn: Duty::NONE,
            burn_at: BurnAt::Start,
            restart: Restart::Never,
            health: None,
            boot_timeout: artifacts.manifest.recipe.boot_timeout(),
            // So that their SSH server runs as it does in a fleet; no port leads to it.
            authorized_key: Some(NOBODYS_KEY),
            identity_file: None,
            ssh_server: artifacts.manifest.recipe.ssh.server,
            ports: Vec::new(),
            admission: AdmissionSpec {
                keep_free: 0,
                rate: None,
                parallel: Some(guests.count() as usize),
                guest_memory: 0,
                merged_memory: None,
            },
            placement: PlacementSpec::default(),
            run_as_base: None,
            settings: HostSettings::Kept,
            metrics: None,
            keep: None,
            until: None,
            unfinished: false,
            forced: Vec::new(),
        }
    }
}
