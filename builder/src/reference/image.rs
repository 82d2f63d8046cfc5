//! The files of the reference's guests: kernel, initramfs and disks.

use std::fs;
use std::path::Path;

use super::error::ReferenceError;
use super::keys::Access;
use super::libraries::{self, LOADER};
use super::modules::{self, Module};
use super::packages::Packages;
use crate::artifact::BASE;
use crate::artifact::opened::Artifacts;
use crate::disk::overlay::{Overlay, write_overlays};
use crate::disk::qcow2::Backing;
use crate::initramfs::pack;
use crate::interrupt::Interrupt;
use crate::store::folder::Folder;
use crate::system::{Doing as _, SystemError};
use crate::tree::Tree;
use crate::tree::error::TreeError;
use crate::tree::node::Attributes;
use crate::units::GuestRange;
use crate::vmm::qemu::reference::{INITRAMFS, KERNEL};

/// What a guest says once it is up.
pub(super) const READY: &str = "baseline: ready";

/// A guest's init: it brings up what imgbuild's init does, and then burns. Whatever
/// fails ends it, and so the guest.
const BEGIN: &str = "#!/bin/busybox sh
set -e
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
exec </dev/null >/dev/ttyS0 2>&1
";
const END: &str = "/bin/busybox ifconfig lo 127.0.0.1 up
/bin/busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
/bin/busybox route add default gw 10.0.2.2
/bin/busybox mount -t ext4 -o noatime,noinit_itable /dev/vda /disk
/usr/sbin/dropbear -r /etc/dropbear/key
";
const BURN: &str = "while :; do :; done\n";

/// Where a guest has its modules and libraries.
const MODULES: &str = "modules";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Writes kernel and initramfs into the guests' folder.
pub(super) fn write(
    folder: &Folder,
    packages: &Packages,
    access: &Access,
    interrupt: &Interrupt,
) -> Result<(), ReferenceError> {
    let release = packages.kernel_release();
    let kernel = packages.file(&[&format!("boot/vmlinuz-{release}")])?;
    folder.write(KERNEL, &read(&kernel)?)?;
    let modules = [
        format!("lib/modules/{release}"),
        format!("usr/lib/modules/{release}"),
    ];
    let modules = packages.file(&[&modules[0], &modules[1]])?;
    let modules = modules::to_load(&modules).doing("find the modules of the baseline's kernel")?;
    let mut tree = furnished(&modules, access)?;
    let busybox = packages.file(&["bin/busybox", "usr/bin/busybox"])?;
    tree.add_file("bin/busybox", 0o755, read(&busybox)?)?;
    let dropbear = "usr/sbin/dropbear";
    tree.add_file(dropbear, 0o755, read(&packages.file(&[dropbear])?)?)?;
    for (name, file) in libraries::of(packages.root(), dropbear, interrupt)? {
        let place = if name == LOADER {
            format!("lib64/{name}")
        } else {
            format!("{LIBRARIES}/{name}")
        };
        tree.add_file(place, 0o755, read(&file)?)?;
    }
    let mut packed = Vec::new();
    pack(&tree, 0, &mut packed)?;
    folder.write(INITRAMFS, &packed)?;
    Ok(())
}

/// What does not come from a package as it is.
fn furnished(modules: &[Module], access: &Access) -> Result<Tree, TreeError> {
    let mut tree = Tree::new();
    tree.add_folders()?;
    tree.add_directory("disk", Attributes::root(0o755))?;
    tree.add_directory("root", Attributes::root(0o700))?;
    tree.add_directory("root/.ssh", Attributes::root(0o700))?;
    let authorized = access.authorized.clone();
    tree.add_file("root/.ssh/authorized_keys", 0o600, authorized)?;
    tree.add_file("etc/dropbear/key", 0o600, access.host_key.to_vec())?;
    tree.add_file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\n".to_vec(),
    )?;
    for applet in ["bin/sh", "bin/cat"] {
        tree.add_symlink(applet, Attributes::root(0o777), "busybox")?;
    }
    for module in modules {
        let place = format!("{MODULES}/{}.ko", module.name);
        tree.add_file(place, 0o644, module.content.clone())?;
    }
    tree.add_file("init", 0o755, init(modules).into_bytes())?;
    Ok(tree)
}

fn init(modules: &[Module]) -> String {
    let load = modules
        .iter()
        .map(|module| format!("/bin/busybox insmod /{MODULES}/{}.ko\n", module.name));
    let load: String = load.collect();
    format!("{BEGIN}{load}{END}echo '{READY}'\n{BURN}")
}

fn read(path: &Path) -> Result<Vec<u8>, SystemError> {
    fs::read(path).doing(format!("read {}", path.display()))
}

/// Writes each guest's disk, an overlay of the base of `artifacts`.
pub(super) fn write_disks(
    folder: &Folder,
    artifacts: &Artifacts,
    guests: GuestRange,
    interrupt: &Interrupt,
) -> Result<(), ReferenceError> {
    let backing = Backing::new(artifacts.folder.join(BASE))?;
    let overlay = Overlay::new(&backing, artifacts.manifest.options.disk_size)?;
    Ok(write_overlays(
        folder.path(),
        guests,
        &overlay,
        interrupt,
        || {},
    )?)
}
