//! Guests without a supervisor: the test has a fleet's folder and starts them
//! by itself.

use std::os::unix::net::UnixStream;
use std::process::Child;

use imgbuild::artifact::opened::Artifacts;
use imgbuild::digest::memo::Memo;
use imgbuild::directories::Directories;
use imgbuild::fleet::site::Site;
use imgbuild::interrupt::Interrupt;
use imgbuild::net::ports;
use imgbuild::store::claims::Register;
use imgbuild::store::folder::Folder;
use imgbuild::store::key;
use imgbuild::trial::{Purpose, Setup};
use imgbuild::units::{GuestIndex, GuestRange};
use imgbuild::vmm::qemu::{Emulator, Program};
use imgbuild::vmm::{Accel, Confinement, Files, GuestSpec, Lifetime, Machine, Net, Sharing, qemu};

/// The folders of a fleet of `count` guests under TCG, none of which runs: with
/// these parameters on the kernel's command line, and each under a user of its
/// own, counted from `run_as_base`.
#[must_use]
pub fn site(
    artifacts: &Artifacts,
    directories: &Directories,
    net: Net,
    parameters: &str,
    run_as_base: Option<u32>,
    count: u32,
) -> Site {
    const NAME: &str = "alone";
    let program = Program::installed().expect("bootstrap installs QEMU");
    let memo = Memo::in_cache(&directories.cache);
    let setup = Setup {
        qemu: &Emulator::of(program.path(), None, &memo).expect("it can be read"),
        machine: Machine {
            accel: Accel::Tcg,
            sharing: Sharing::None,
            net,
            memory: artifacts.manifest.recipe.memory,
        },
        purpose: Purpose::Trial,
    };
    let mut folder = Folder::create(NAME, directories).expect("the folder is ours");
    folder.make_folders().expect("the folder is ours");
    folder.make_new_runtime().expect("the folder is ours");
    let guests = GuestRange::first(count).expect("few guests");
    let mut spec = setup.spec(&folder, directories, artifacts, guests);
    if !parameters.is_empty() {
        spec.command_line = format!("{} {parameters}", spec.command_line);
    }
    spec.run_as_base = run_as_base;
    if net == Net::User {
        let pair = key::generate(NAME, &folder).expect("the kernel has random bytes");
        pair.write(&folder).expect("the folder is ours");
        let key = pair.key;
        spec.authorized_key = Some(key.public);
        spec.identity_file = Some(key.file);
        let others = Register::of(directories).look();
        spec.ports = ports::choose(folder.path(), &others.ports(), count).expect("few guests");
    }
    let site = Site::new(folder, spec, artifacts, Lifetime::WithParent).expect("built for this");
    let interrupt = Interrupt::never().expect("two descriptors");
    site.prepare(guests, &interrupt)
        .expect("the folder is ours");
    site
}

/// The guest of this number.
#[must_use]
pub fn guest(index: u32) -> GuestIndex {
    GuestIndex::new(index).expect("a small number")
}

/// Starts QEMU as a supervisor does, but for what `change` changes, and connects
/// to the guest's console.
pub fn start(
    site: &Site,
    guest: GuestIndex,
    lifetime: Lifetime,
    change: impl FnOnce(&mut GuestSpec, &mut Files),
) -> (Child, UnixStream) {
    let mut spec = site.guest_spec(guest);
    let mut files = site.files(guest).expect("the folder is ours");
    change(&mut spec, &mut files);
    let console = UnixStream::connect(site.folder().console(guest)).expect("it listens");
    let base = site.spec().run_as_base;
    let confinement = Confinement {
        lifetime,
        uid: base.map(|base| base + guest.get()),
        extra: None,
    };
    let program = &site.spec().qemu.path;
    let child = qemu::spawn(program, &spec, files, &confinement).expect("QEMU starts");
    (child, console)
}
