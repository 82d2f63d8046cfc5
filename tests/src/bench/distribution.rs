//! The guest that a user would put together from Debian's packages: busybox's
//! shell as init, and dropbear for SSH.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::Release;
use crate::root::Root;

/// Brings up what tty-init does, and says so the same way.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
exec </dev/null >/dev/ttyS0 2>&1
/bin/busybox ifconfig lo 127.0.0.1 up
/bin/busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
/bin/busybox route add default gw 10.0.2.2
/bin/busybox mount -t ext4 -o noatime,noinit_itable /dev/vda /disk
/usr/sbin/dropbear -r /etc/dropbear/key
echo '"event":"ready"'
/bin/busybox grep Slab: /proc/meminfo
exec /bin/busybox sleep 2147483647
"#;

/// The modules by which that kernel reaches a disk and a network on the machine
/// `pc`, in the order in which they are loaded.
const MODULES: [&str; 9] = [
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
];

/// A guest of the reference experiment's kind.
pub(super) struct Cloud {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// The private key that root's SSH server takes.
    pub key: PathBuf,
}

/// Makes it in `folder`, with the kernel that Debian has for clouds.
pub(super) fn cloud(folder: &Path) -> Cloud {
    let root = furnished(folder.join("cloud"));
    Release::Own.add_modules(&root, &MODULES);
    let key = folder.join("cloud-key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "ssh-keygen runs");
    root.directory("root/.ssh");
    root.copy(&key.with_extension("pub"), "root/.ssh/authorized_keys");
    std::os::unix::fs::symlink("busybox", root.place("bin/sh")).expect("the folder is ours");
    std::os::unix::fs::symlink("busybox", root.place("bin/cat")).expect("the folder is ours");
    root.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    let load = MODULES.map(|module| {
        let name = module.rsplit('/').next().unwrap_or(module);
        format!("/bin/busybox modprobe {name}\n")
    });
    let (head, rest) = INIT.split_once("exec <").expect("a line of it");
    let (rest, _) = rest.split_once("exec /bin").expect("a line of it");
    let burn = "while :; do :; done\n";
    root.script(
        "init",
        &format!("{head}{}exec <{rest}{burn}", load.concat()),
    );
    Cloud {
        kernel: Release::Own.image(),
        initramfs: root.pack(),
        key,
    }
}

/// Makes the initramfs of busybox and dropbear in `folder`.
pub(super) fn initramfs(folder: &Path) -> PathBuf {
    let root = furnished(folder.join("distribution"));
    root.script("init", INIT);
    root.pack()
}

/// What both kinds have.
fn furnished(folder: PathBuf) -> Root {
    let root = Root::new(folder);
    root.program("/bin/busybox");
    root.program("/usr/sbin/dropbear");
    for directory in ["disk", "etc/dropbear"] {
        root.directory(directory);
    }
    let made = Command::new("dropbearkey")
        .args(["-t", "ed25519", "-f"])
        .arg(root.place("etc/dropbear/key"))
        .output()
        .expect("dropbearkey runs: apt install dropbear-bin");
    assert!(made.status.success(), "{made:?}");
    root.file("etc/passwd", "root:x:0:0:root:/root:/bin/busybox\n");
    root
}
