//! The reference experiment's way of running many guests, for comparison: a
//! distribution's kernel on the machine `pc`, with BusyBox and dropbear, a shell's loop
//! that burns, and KSM on the guests' RAM. It is put together from Debian's packages
//! and measured here, by the same readers as a fleet.

use std::time::Duration;

use crate::artifact::opened::Artifacts;
use crate::bundle::types::{Baseline, MemoryFigures};
use crate::directories::Directories;
use crate::interrupt::Interrupt;
use crate::store::folder::{Folder, FolderError, sweep};
use crate::trial;
use crate::units::GuestRange;
use crate::vmm::Accel;
use crate::vmm::qemu::Emulator;

mod apt;
mod error;
mod growth;
mod guests;
mod image;
mod keys;
mod libraries;
mod login;
mod meter;
mod modules;
mod packages;

pub use error::ReferenceError;
pub use packages::PackagesError;

use growth::Growth;
use guests::{Guests, Program};
use meter::Meter;

/// How such guests are measured.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// How many of them.
    pub guests: u32,
    /// The base of their disks, of which each has an overlay, is this folder's.
    pub artifacts: &'a Artifacts,
    /// The QEMU that they run on.
    pub qemu: &'a Emulator,
    /// What runs their code.
    pub accel: Accel,
    /// Memory of the host that is to stay free, in bytes: no guest is started that
    /// could take from it.
    pub keep_free: u64,
    /// How long KSM may take to settle, once all are up.
    pub settle: Duration,
    /// Where the cache of packages is, and the guests' folder, which is removed.
    pub directories: &'a Directories,
    /// Asks to stop, which is heeded at each wait.
    pub interrupt: &'a Interrupt,
}

/// Starts such guests, measures what they cost once KSM has settled, logs in to each,
/// and ends them.
///
/// KSM's settings are whatever they are. Of a host without memory for all of them, it
/// measures as many as fit: see [`Baseline::guests`].
///
/// # Errors
/// If they cannot be put together or do not start, or the user interrupts. No guest is
/// left in any case.
pub fn measure(options: &Options<'_>) -> Result<Baseline, ReferenceError> {
    let guests = GuestRange::first(options.guests)?;
    let growth = Growth::new(options);
    growth.see_room()?;
    let packages = packages::fetch(options.directories, options.interrupt)?;
    sweep(options.directories);
    let runtime = options.directories.open_runtime();
    let folder = Folder::on_trial(&trial::name()?, runtime.map_err(FolderError::from)?)?;
    let made_of = packages.made_of();
    let access = keys::prepare(&folder, guests, options.directories)?;
    image::write(&folder, &packages, &access, options.interrupt)?;
    // Their files are in the guests' folder now.
    drop(packages);
    image::write_disks(&folder, options.artifacts, guests, options.interrupt)?;

    let program = Program {
        path: &options.qemu.path,
        accel: options.accel,
    };
    let mut population = Guests::new(program, folder.path(), &access.ports);
    let mut meter = Meter::default();
    let growing = growth.run(&mut population, &mut meter)?;
    let ready = population.ready();
    population.go_on()?;
    let (memory, ksm_state) = meter.settle(&mut population, options.settle, options.interrupt)?;
    let logins = login::all(&access, &population, options.interrupt)?;
    Ok(Baseline {
        guests: population.count(),
        ready,
        growing: growing.as_secs_f64(),
        made_of,
        argv: population.argv(),
        memory: MemoryFigures::of(&memory),
        ksm_state,
        peak: meter.peak(),
        logins,
    })
}
