//! Guests on trial: a fleet in a temporary folder, gone with its value.

use tempfile::TempDir;

use super::admission::Admission;
use super::deadline;
use super::folder::Folder;
use super::guest::{Backoff, GIVE_UP, Policy};
use super::launch::LaunchError;
use super::plan::Artifacts;
use super::site::Site;
use super::spec::{
    AdmissionSpec, BurnAt, FleetSpec, Instance, PlacementSpec, Restart, SPEC_VERSION,
};
use super::supervisor::Supervisor;
use crate::directories::Directories;
use crate::host;
use crate::interrupt::Interrupt;
use crate::units::{ByteSize, GuestRange};
use crate::vmm::{Accel, Lifetime, Net, Sharing};

/// How guests on trial are run.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// What runs their code.
    pub accel: Accel,
    /// What KSM may merge.
    pub sharing: Sharing,
    /// How they are connected.
    pub net: Net,
    /// RAM of each.
    pub memory: ByteSize,
    /// Kernel parameters after the artifacts' own.
    pub parameters: &'static str,
}

/// Guests on trial, not yet started.
#[derive(Debug)]
///
/// Dropped in this order: guests are killed before what they use is removed.
pub struct Trial {
    /// Its guests are planned.
    pub supervisor: Supervisor,
    _temporary: TempDir,
}

impl Trial {
    /// Writes what so many guests need.
    pub fn new(
        artifacts: &Artifacts,
        setup: &Setup,
        count: u32,
        directories: &Directories,
        interrupt: &Interrupt,
    ) -> Result<Self, LaunchError> {
        let temporary = tempfile::Builder::new()
            .prefix("imgbuild-")
            .tempdir()
            .map_err(LaunchError::Temporary)?;
        let directories = Directories {
            state: temporary.path().to_path_buf(),
            // Where paths are short enough for sockets, as TMPDIR need not be.
            ..directories.clone()
        };
        let name = format!("trial-{}", std::process::id());
        let folder = Folder::create(&name, &directories)?;
        let spec = setup.spec(name, artifacts, count);
        let admission = Admission::new(&spec.admission, count as usize);
        let policy = Policy {
            restart: spec.restart,
            boot_timeout: deadline::boot(setup.accel, spec.boot_timeout),
            answer_within: deadline::scaled(count, host::cpus()),
            health: spec.health,
            backoff: Backoff::default(),
            give_up: GIVE_UP,
        };
        let site = Site::new(folder, spec, artifacts, Lifetime::WithParent)?;
        let guests = GuestRange::first(count)?;
        site.prepare(guests, interrupt)?;
        let mut supervisor = Supervisor::new(site, policy, admission, interrupt.clone())?;
        supervisor.extend(guests.iter());
        Ok(Self {
            supervisor,
            _temporary: temporary,
        })
    }
}

impl Setup {
    /// A fleet of guests that are all started at once, and once only.
    #[must_use]
    pub fn spec(&self, name: String, artifacts: &Artifacts, count: u32) -> FleetSpec {
        FleetSpec {
            spec_version: SPEC_VERSION,
            name,
            instance: Instance([0; 12]),
            boot_id: String::new(),
            out: artifacts.folder.clone(),
            artifacts: artifacts.digest,
            count,
            accel: self.accel,
            sharing: self.sharing,
            net: self.net,
            outbound: false,
            // Their taps lead nowhere, and take no addresses from fleets.
            tap_subnet: None,
            memory: self.memory,
            command_line: artifacts.command_line(self.parameters),
            burn: 0,
            burn_at: BurnAt::Start,
            restart: Restart::Never,
            health: None,
            boot_timeout: artifacts.manifest.recipe.boot_timeout(),
            authorized_key: None,
            identity_file: None,
            ports: Vec::new(),
            admission: AdmissionSpec {
                keep_free: 0,
                rate: None,
                parallel: Some(count as usize),
                guest_memory: 0,
            },
            placement: PlacementSpec::default(),
            run_as_base: None,
            metrics: None,
            keep: None,
            until: None,
            forced: Vec::new(),
        }
    }
}
