//! The guest that a user would put together from Debian's packages: busybox's
//! shell as init, and dropbear for SSH.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
pub fn initramfs(folder: &Path) -> PathBuf {
    let root = folder.join("distribution");
    add(&root, Path::new("/bin/busybox"));
    add(&root, Path::new("/usr/sbin/dropbear"));
    for library in libraries("/usr/sbin/dropbear") {
        add(&root, &library);
    }
    let key = root.join("etc/dropbear/key");
    for directory in ["dev", "proc", "sys", "disk", "root", "etc/dropbear"] {
        fs::create_dir_all(root.join(directory)).expect("the folder is ours");
    }
    let made = Command::new("dropbearkey")
        .args(["-t", "ed25519", "-f"])
        .arg(key)
        .output()
        .expect("dropbearkey runs: apt install dropbear-bin");
    assert!(made.status.success(), "{made:?}");
    let passwd = "root:x:0:0:root:/root:/bin/busybox\n";
    fs::write(root.join("etc/passwd"), passwd).expect("the folder is ours");
    script(&root.join("init"), INIT);
    pack(&root)
}

/// The shared libraries that a program loads, by their names.
fn libraries(program: &str) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Copies a file of this machine to the same place under `root`.
fn add(root: &Path, file: &Path) {
    let place = root.join(file.strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(place.parent().expect("a file")).expect("the folder is ours");
    fs::copy(file, place).unwrap_or_else(|error| {
        let packages = "busybox-static dropbear-bin";
        panic!("{}: {error}; apt install {packages}", file.display())
    });
}

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(path.parent().expect("a file")).expect("the folder is ours");
    fs::write(path, text).expect("the folder is ours");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
}

/// Packs a tree as a user would.
fn pack(root: &Path) -> PathBuf {
    let packed = root.with_extension("cpio.gz");
    let status = Command::new("sh")
        .args(["-c", "find . | cpio --quiet -o -H newc | gzip -9 >\"$0\""])
        .arg(&packed)
        .current_dir(root)
        .status()
        .expect("sh runs");
    assert!(status.success(), "packing: {status}");
    packed
}
