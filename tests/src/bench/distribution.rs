//! The guest that a user would put together from Debian's packages: busybox's
//! shell as init, and dropbear for SSH.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Makes the initramfs of busybox and dropbear in `folder`.
pub(super) fn initramfs(folder: &Path) -> PathBuf {
    let root = Root::new(folder.join("distribution"));
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
    root.script("init", INIT);
    root.pack()
}
