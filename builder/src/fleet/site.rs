//! What the guests of a fleet run with: artifacts, files of their own, CPUs.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

use rustix::process::Pid;
use tty_init::identity::Identity;

use self::artifact::Artifact;
use crate::artifact::opened::Artifacts;
use crate::artifact::{BASE, INITRAMFS};
use crate::disk::overlay::{Overlay, write_overlays};
use crate::disk::qcow2::Backing;
use crate::fleet::site::socket::{connect, reach, socket};
use crate::guest::deadline;
use crate::host;
use crate::interrupt::Interrupt;
use crate::kernel::Format;
use crate::net::ports;
use crate::net::tap::{self, Subnet};
use crate::placement::cgroup::FleetCgroup;
use crate::placement::{self, Class, Placement};
use crate::sample::account::Charged;
use crate::sample::meminfo;
use crate::store::claims::{Claim, Register, Turn};
use crate::store::folder::Folder;
use crate::store::key::Key;
use crate::store::orphans::Living;
use crate::store::spec::FleetSpec;
use crate::store::{identity, ssh_config};
use crate::system::{Doing as _, SystemError};
use crate::units::{GuestIndex, GuestRange, Instance};
use crate::vmm::qemu::{EmulatorError, Standing, Watch};
use crate::vmm::running::Running;
use crate::vmm::{Accel, GuestSpec, Lifetime, Net, Part, kvm_for_users};

mod artifact;
mod error;
mod socket;
mod source;
mod start;

pub use error::{SiteError, SpawnError};
pub(crate) use source::Source;

/// What the guests of a fleet run from and within.
#[derive(Debug)]
pub struct Site {
    folder: Folder,
    spec: FleetSpec,
    qemu: Watch,
    kernel: Artifact,
    kernel_format: Format,
    initramfs: Artifact,
    base: Artifact,
    overlay: Overlay,
    placement: Option<Placement>,
    lifetime: Lifetime,
    source: Source,
    /// The QEMU is not the one that the source is of.
    qemu_is_another: AtomicBool,
}

impl Site {
    /// A place for the guests that `spec` describes; none is there yet.
    pub fn new(
        folder: Folder,
        spec: FleetSpec,
        artifacts: &Artifacts,
        lifetime: Lifetime,
    ) -> Result<Self, SiteError> {
        let manifest = &artifacts.manifest;
        let base = artifacts.folder.join(BASE);
        let backing = Backing::new(&base)?;
        Ok(Self {
            kernel: Artifact::open(artifacts.folder.join(&manifest.kernel.file))?
                .for_users(spec.run_as_base)?,
            kernel_format: manifest.kernel.format,
            initramfs: Artifact::open(artifacts.folder.join(INITRAMFS))?
                .for_users(spec.run_as_base)?,
            base: Artifact::open(base)?,
            overlay: Overlay::new(&backing, manifest.options.disk_size)?,
            folder,
            qemu: Watch::new(&spec.qemu),
            spec,
            placement: None,
            lifetime,
            source: Source::default(),
            qemu_is_another: AtomicBool::new(false),
        })
    }

    /// The fleet's folders.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The same, to change them.
    pub fn folder_mut(&mut self) -> &mut Folder {
        &mut self.folder
    }

    /// What the fleet is.
    pub fn spec(&self) -> &FleetSpec {
        &self.spec
    }

    /// The same, to change it.
    pub fn spec_mut(&mut self) -> &mut FleetSpec {
        &mut self.spec
    }

    /// Makes the folder of sockets again, elsewhere if need be, which the spec then
    /// says.
    pub fn renew_runtime(&mut self) -> Result<(), SiteError> {
        if self.folder.move_runtime()? {
            self.spec.runtime = self.folder.runtime().to_path_buf();
            self.folder.write_spec(&self.spec)?;
        }
        Ok(())
    }

    /// Takes the fleet's place on the CPUs, its cgroup included; taken over if
    /// it is there.
    pub fn place(&mut self) -> Result<(), SiteError> {
        if self.placement.is_some() {
            return Ok(());
        }
        let name = placement::cgroup::group_name(&self.spec.name, self.spec.instance);
        self.placement = Some(Placement::of(&self.spec.placement, &name)?);
        Ok(())
    }

    /// How guests get their share of the CPU, for people.
    pub fn describe_cpu(&self) -> String {
        let placement = self.placement.as_ref();
        placement.map_or_else(String::new, |placement| placement.classes().describe())
    }

    /// Memory that the control groups of guests still allow, in bytes; `None`
    /// without a limit.
    pub fn memory_room(&self) -> Option<u64> {
        self.placement.as_ref()?.memory_room()
    }

    /// Bytes of the files in memory that guests are handed: copies of artifacts, and a
    /// template.
    pub(crate) fn handed(&self) -> u64 {
        let copies = [&self.kernel, &self.initramfs].map(Artifact::in_memory);
        copies.iter().sum::<u64>() + self.source.in_memory()
    }

    /// The control group that guests' memory is charged to, where it is theirs alone.
    pub(crate) fn accounted(&self) -> Option<Charged> {
        self.placement.as_ref()?.classes().cgroup()?.accounted()
    }

    /// How many processes the kernel has killed for want of memory: in the fleet's
    /// cgroup, or on the host where that does not count them.
    pub(crate) fn oom_kills(&self) -> u64 {
        let placement = self.placement.as_ref();
        let cgroup = placement.and_then(|placement| placement.classes().cgroup());
        cgroup
            .and_then(FleetCgroup::oom_kills)
            .unwrap_or_else(|| meminfo::oom_kills(Path::new("/")))
    }

    /// Sees that guests can run at all, and makes what each needs.
    pub fn prepare(&self, guests: GuestRange, interrupt: &Interrupt) -> Result<(), SiteError> {
        let spec = &self.spec;
        self.look_at_qemu()?;
        if let Some(uid) = spec.run_as_base {
            spec.qemu.runs_as(uid, interrupt)?;
            if spec.machine.accel == Accel::Kvm {
                kvm_for_users()?;
            }
        }
        self.furnish(guests, interrupt)
    }

    /// Writes the overlays and identities of guests that are new, and makes
    /// their taps.
    pub(crate) fn furnish(
        &self,
        guests: GuestRange,
        interrupt: &Interrupt,
    ) -> Result<(), SiteError> {
        let spec = &self.spec;
        write_overlays(
            &self.folder.overlays(),
            guests,
            &self.overlay,
            interrupt,
            || {},
        )?;
        let all = spec.guests.count().max(spec.at_most);
        let deadline = deadline::scaled(all, host::cpus());
        for guest in guests.iter() {
            let address = identity::address(
                spec.machine.net,
                spec.tap_subnet.unwrap_or(Subnet::FOR_TAPS),
                guest,
            )?;
            let identity = identity::create(guest, address, spec.authorized_key, deadline)
                .doing(format!("make an identity for {guest}"))?;
            self.folder
                .write_identity(guest, identity.encode().as_slice())?;
        }
        if let Some(subnet) = spec.tap_subnet {
            tap::create(spec.instance, subnet, guests)?;
        }
        Ok(())
    }

    /// Writes what ssh(1) is to know of the guests, and gives the path of its
    /// configuration; `None` where nobody may log in.
    pub fn write_ssh_config(&self) -> Result<Option<PathBuf>, SiteError> {
        let spec = &self.spec;
        let (Some(public), Some(file)) = (spec.authorized_key, spec.identity_file.clone()) else {
            return Ok(None);
        };
        let hosts = spec.guests.iter().map(|guest| {
            let address = spec.ssh_address(guest).ok_or(io::ErrorKind::NotFound);
            let identity = self.identity(guest);
            Ok(ssh_config::Host {
                guest,
                address: address.doing(format!("find the address of {guest} in the spec"))?,
                key: identity::host_key(&identity.doing(format!("read the key of {guest}"))?),
            })
        });
        let hosts = hosts.collect::<Result<Vec<_>, SystemError>>()?;
        let patience = deadline::greeting(spec.guests.count(), host::cpus(), spec.ssh_server);
        let key = Key { public, file };
        Ok(Some(ssh_config::write(
            &self.folder,
            &hosts,
            spec.ssh_server,
            &key,
            patience,
        )?))
    }

    /// Removes what guests had that are not wanted any more.
    pub fn forget(&self, guests: &[GuestIndex]) {
        if self.spec.machine.net == Net::Tap
            && let Err(error) = tap::remove_of(self.spec.instance, guests.iter().copied())
        {
            tracing::warn!("{error}");
        }
        for &guest in guests {
            for path in [
                self.folder.overlay(guest),
                self.folder.identity(guest),
                self.folder.console(guest),
                self.folder.monitor(guest),
                self.folder.log(guest),
                self.folder.log(guest).with_extension("log.1"),
                self.folder.error(guest),
            ] {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// The guest's identity, as its folder has it.
    pub fn identity(&self, guest: GuestIndex) -> io::Result<Identity> {
        let path = self.folder.identity(guest);
        let wrong = |what: String| io::Error::other(format!("{}: {what}", path.display()));
        let blob = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        Identity::decode(&blob).map_err(|error| wrong(format!("{error:?}")))
    }

    /// What a guest is.
    pub fn guest_spec(&self, guest: GuestIndex) -> GuestSpec {
        let spec = &self.spec;
        GuestSpec {
            id: guest.to_string(),
            uuid: Some(spec.instance.uuid(guest.get())),
            machine: spec.machine,
            kernel_format: self.kernel_format,
            command_line: spec.command_line.clone(),
            ssh_port: spec.port(guest),
            outbound: spec.outbound,
        }
    }

    /// Gives a guest another port in the place of its own, if that is another's.
    /// What cannot be done now is tried at its next start.
    pub(crate) fn replace_port(&mut self, guest: GuestIndex) {
        let place = self.spec.guests.place_of(guest);
        let Some((place, lost)) = place.zip(self.spec.port(guest)) else {
            return;
        };
        if host::ports::is_free(lost) {
            return;
        }
        match self.choose_another_port(place) {
            Ok(port) => tracing::warn!("{guest}: its port {lost} is in use: it gets {port}"),
            Err(error) => tracing::warn!("{guest}: its port {lost} is in use: {error}"),
        }
    }

    /// The right to choose what no other fleet has, if none has that right now:
    /// guests that live are to be heard meanwhile, so nobody is waited for.
    pub(crate) fn turn(&self) -> Result<Turn, SiteError> {
        let turn = Register::beside(&self.folder).turn(self.folder.path(), || false)?;
        turn.ok_or(SiteError::Turn)
    }

    /// Gives the guest at this place of the ports another one.
    fn choose_another_port(&mut self, place: usize) -> Result<u16, SiteError> {
        let fleet = self.folder.path().to_path_buf();
        let turn = self.turn()?;
        let port = ports::another(&fleet, &turn.others().ports(), &self.spec.ports)?;
        let users = turn.own(self.spec.instance).and_then(|own| own.users);
        let lost = std::mem::replace(&mut self.spec.ports[place], port);
        let written = self
            .write_ssh_config()
            .and_then(|_| Ok(turn.take(Claim::of(&self.spec, &fleet, users))?))
            .and_then(|()| Ok(self.folder.write_spec(&self.spec)?));
        if written.is_err() {
            self.spec.ports[place] = lost;
            let _ = self.write_ssh_config();
        }
        written.map(|()| port)
    }

    /// Refuses a QEMU that is gone, and tells once of one that is another by now: what
    /// the former one left is none of its business.
    pub(crate) fn look_at_qemu(&self) -> Result<(), EmulatorError> {
        let qemu = &self.spec.qemu;
        if self.qemu.look(qemu)? == Standing::Replaced {
            tracing::warn!("{}: {}", self.spec.name, qemu.replaced());
            self.qemu_is_another.store(true, Ordering::Relaxed);
            if let Source::Template(_) = self.source {
                tracing::warn!("guests boot from now on: their template is the former QEMU's");
            }
        }
        Ok(())
    }

    /// Takes charge of a guest that another supervisor started, without its
    /// console.
    pub(crate) fn adopt(&self, living: &Living, pidfd: OwnedFd) -> io::Result<Running> {
        let pid = i32::try_from(living.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        let errors = self.folder.error(living.guest);
        let said = fs::metadata(errors).map_or(0, |file| file.len());
        Running::adopted(pid, pidfd, socket()?, said)
    }

    /// Connects to the console of an adopted guest; `false` if that takes nobody
    /// for now.
    pub(crate) fn connect_console(
        &self,
        guest: GuestIndex,
        running: &mut Running,
    ) -> io::Result<bool> {
        let by_vmm = Part::ConsoleFile.held_by(running.pid());
        reach(&self.folder.console(guest), &by_vmm, |path| {
            running.connect(path, self.uid(guest))
        })
    }

    /// Connects to the monitor of a guest whose VMM is the process `pid`, without
    /// waiting for it.
    pub(crate) fn connect_monitor(&self, guest: GuestIndex, pid: u32) -> io::Result<UnixStream> {
        let by_vmm = Part::MonitorFile.held_by(pid);
        reach(&self.folder.monitor(guest), &by_vmm, |path| {
            connect(path, self.uid(guest))
        })
    }

    /// Puts a guest's process into a CPU class, unless the kernel takes none for
    /// now: then it is `false`, and this is to be tried again (see [`Classes::set`]).
    ///
    /// [`Classes::set`]: crate::placement::Classes::set
    pub(crate) fn classify(&self, class: Class, pid: u32) -> bool {
        let Some(placement) = &self.placement else {
            return true;
        };
        match placement.classes().set(class, pid) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                // It may have ended in between.
                tracing::debug!("process {pid} is not in its CPU class: {error}");
                true
            }
        }
    }

    /// Removes what only a living guest has.
    pub(crate) fn clear_away(&self, guest: GuestIndex) {
        for socket in [self.folder.console(guest), self.folder.monitor(guest)] {
            let _ = fs::remove_file(socket);
        }
    }

    /// Removes everything; no guest lives any more.
    pub fn remove(self) {
        if let Some(placement) = self.placement
            && let Err(error) = placement.close()
        {
            tracing::warn!("cannot remove the fleet's cgroup: {error}");
        }
        if self.spec.machine.net == Net::Tap {
            remove_taps(self.spec.instance);
        }
        let (register, fleet) = (
            Register::beside(&self.folder),
            self.folder.path().to_path_buf(),
        );
        if let Err(error) = self.folder.remove() {
            tracing::warn!("{error}");
        }
        register.give_back(&fleet, self.spec.instance);
    }

    fn uid(&self, guest: GuestIndex) -> Option<u32> {
        Some(self.spec.run_as_base? + guest.get())
    }
}

/// Removes what a fleet has outside its folders, whose supervisor died and no
/// guest of which lives.
pub(crate) fn clear(name: &str, instance: Instance) {
    let group = placement::cgroup::group_name(name, instance);
    let removed = match FleetCgroup::open(Path::new("/"), &group) {
        Ok(Some(cgroup)) => cgroup.remove().map_err(|error| error.to_string()),
        Ok(None) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = removed {
        tracing::warn!("cannot remove the fleet's cgroup: {error}");
    }
    remove_taps(instance);
}

fn remove_taps(instance: Instance) {
    if let Err(error) = tap::remove(instance) {
        tracing::warn!("{error}");
    }
}
