//! Plans a fleet: chooses what no other fleet has, and makes its spec.

use std::path::Path;

use super::error::LaunchError;
use super::options::LaunchOptions;
use crate::artifact::opened::Artifacts;
use crate::digest::memo::Memo;
use crate::directories::Directories;
use crate::fleet::site::SiteError;
use crate::guest::admission::AdmissionSpec;
use crate::host::snapshot::Qemu;
use crate::host::user_ids::IdRange;
use crate::net::ports;
use crate::net::tap::Subnet;
use crate::store::claims::Others;
use crate::store::folder::Folder;
use crate::store::key::Key;
use crate::store::spec::FleetSpec;
use crate::store::users;
use crate::system::Doing as _;
use crate::template::Fingerprint;
use crate::trial::readiness::Report;
use crate::units::Instance;
use crate::vmm::qemu::{Emulator, Program};
use crate::vmm::{Net, Sharing};
use crate::{host, random};

/// What was chosen for a fleet: its QEMU, and what no other fleet may have.
pub(super) struct Chosen {
    pub(super) qemu: Emulator,
    pub(super) template: Option<Fingerprint>,
    pub(super) ports: Vec<u16>,
    pub(super) users: Option<IdRange>,
    pub(super) tap_subnet: Option<Subnet>,
}

impl Chosen {
    pub(super) fn now(
        options: &LaunchOptions,
        qemu: Emulator,
        template: Option<Fingerprint>,
        fleet: &Path,
        others: &Others,
    ) -> Result<Self, SiteError> {
        Ok(Self {
            qemu,
            template,
            ports: match options.machine.net {
                Net::User => ports::choose(fleet, &others.ports(), options.first_guests().count())?,
                Net::Tap | Net::None => Vec::new(),
            },
            users: users::choose(options.users, options.guests.end(), others)?,
            tap_subnet: options.tap_subnet(others)?,
        })
    }
}

/// What the fleet is, as its folder will say.
pub(super) fn spec(
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
    instance.copy_from_slice(&random::random().doing("read random bytes from the kernel")?[..12]);
    let cost = report.want.cost;
    Ok(FleetSpec {
        name: folder.name(),
        instance: Instance(instance),
        host: directories.host.clone(),
        runtime: folder.runtime().to_path_buf(),
        out: artifacts.folder.clone(),
        artifacts: artifacts.digest,
        qemu: chosen.qemu,
        guests: options.first_guests(),
        at_most: options.at_most(),
        machine: options.machine.machine(recipe.memory),
        outbound: options.outbound,
        tap_subnet: chosen.tap_subnet,
        command_line: artifacts.command_line(),
        template: chosen.template,
        burn: recipe.burn.duty,
        burn_at: options.burn_at,
        restart: options.restart,
        health: options.health,
        boot_timeout: recipe.boot_timeout(),
        authorized_key: login.as_ref().map(|key| key.public),
        identity_file: login.map(|key| key.file),
        ssh_server: recipe.ssh.server,
        ports: chosen.ports,
        admission: AdmissionSpec {
            keep_free: options
                .keep_free
                .unwrap_or_else(|| host::memory::keep_free(total)),
            rate: options.rate,
            parallel: options.parallel,
            guest_memory: cost.memory,
            merged_memory: match options.machine.sharing {
                Sharing::None => None,
                Sharing::Guest | Sharing::All => cost.memory_merged,
            },
        },
        placement: options.placement.clone(),
        run_as_base: chosen.users.map(|users| users.first),
        settings: options.settings,
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

/// The QEMU that was chosen, as it was seen by the checks.
pub(super) fn emulator(
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
