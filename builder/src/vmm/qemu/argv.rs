//! A guest's description → QEMU's arguments: a pure function.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use serde_json::json;
use tty_init::identity::FW_CFG_NAME;

use super::CONSOLE_FD;
use crate::vmm::{Accel, GuestSpec, Net, Sharing};

/// Where a guest's SSH server listens.
const SSH_PORT: u16 = 22;

/// QEMU's arguments for one guest.
///
/// The board is `microvm` without firmware tables (QEMU's
/// docs/system/i386/microvm): with ACPI on, a kernel without ACPI would not
/// find the virtio-mmio devices, which the board adds to the command line.
/// Without a clock chip the kernel waits for one in vain, for a second of CPU
/// under TCG.
#[must_use]
pub fn argv(guest: &GuestSpec) -> Vec<OsString> {
    let merge = match guest.sharing {
        Sharing::None => "off",
        Sharing::Guest => "on",
    };
    let mut argv = Argv::default();
    argv.option("-name", &guest.id);
    argv.option(
        "-machine",
        format!("microvm,acpi=off,rtc=on,mem-merge={merge}"),
    );
    match guest.accel {
        Accel::Kvm => {
            argv.option("-accel", "kvm");
            argv.option("-cpu", "host");
        }
        Accel::Tcg => {
            // MiB of translated code, every byte the guest's own. With 4 the
            // boot's code does not fit and is translated again: 0.76 s of CPU
            // to ready instead of 0.62; with 16 it is 0.72.
            argv.option("-accel", "tcg,tb-size=8");
            argv.option("-cpu", "qemu64");
        }
    }
    argv.option("-m", format!("{}M", guest.memory.bytes() >> 20));
    argv.flag("-nodefaults");
    argv.flag("-no-user-config");
    argv.flag("-no-reboot");
    argv.option("-display", "none");
    argv.option("-kernel", &guest.kernel);
    argv.option("-initrd", &guest.initramfs);
    argv.option("-append", &guest.command_line);
    argv.option(
        "-chardev",
        format!("socket,id=console,fd={CONSOLE_FD},server=on,wait=on"),
    );
    argv.option("-serial", "chardev:console");
    if let Some(identity) = &guest.identity {
        argv.option(
            "-fw_cfg",
            join(&format!("name={FW_CFG_NAME},file="), &escaped(identity)),
        );
    }
    if let Some(disk) = &guest.disk {
        argv.option(
            "-blockdev",
            json!({
                "node-name": "disk",
                "driver": "qcow2",
                // Overlays are thrown away with their fleet.
                "cache": { "no-flush": true },
                "discard": "unmap",
                "file": { "driver": "file", "filename": disk.to_string_lossy() },
            })
            .to_string(),
        );
        argv.option("-device", "virtio-blk-device,drive=disk");
        // Threads for I/O that may block come as they are needed, up to 64 of
        // them, and QEMU aborts where the host has none left: one, so that what
        // a guest takes can be counted.
        argv.option("-object", "main-loop,id=main-loop,thread-pool-max=1");
    }
    match guest.net {
        Net::User => {
            // Forwarding passes through `restrict` (qemu(1)).
            let forward = guest.ssh_port.map_or_else(String::new, |port| {
                format!(",hostfwd=tcp:127.0.0.1:{port}-:{SSH_PORT}")
            });
            argv.option("-netdev", format!("user,id=net,restrict=on{forward}"));
            argv.option("-device", "virtio-net-device,netdev=net");
        }
        Net::None => {}
    }
    argv.arguments
}

#[derive(Default)]
struct Argv {
    arguments: Vec<OsString>,
}

impl Argv {
    fn flag(&mut self, name: &str) {
        self.arguments.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.flag(name);
        self.arguments.push(value.as_ref().to_os_string());
    }
}

fn join(prefix: &str, value: &OsStr) -> OsString {
    let mut joined = OsString::from(prefix);
    joined.push(value);
    joined
}

/// Doubles commas, which separate suboptions in qemu(1).
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte == b',' {
            escaped.push(b',');
        }
        escaped.push(byte);
    }
    OsString::from_vec(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Format;

    fn guest() -> GuestSpec {
        GuestSpec {
            id: "g00007".to_owned(),
            memory: "64M".parse().unwrap(),
            kernel: "/out/vmlinux".into(),
            kernel_format: Format::Elf,
            initramfs: "/out/initramfs.cpio.gz".into(),
            command_line: "console=ttyS0 tty.burn=100".to_owned(),
            disk: Some("/fleet/overlays/00007.qcow2".into()),
            net: Net::User,
            ssh_port: Some(2207),
            identity: Some("/fleet/a,b/g00007".into()),
            accel: Accel::Tcg,
            sharing: Sharing::None,
        }
    }

    fn line(guest: &GuestSpec) -> String {
        let words: Vec<_> = argv(guest)
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn tcg_guest_with_everything() {
        assert_eq!(
            line(&guest()),
            "-name g00007 -machine microvm,acpi=off,rtc=on,mem-merge=off \
             -accel tcg,tb-size=8 -cpu qemu64 -m 64M -nodefaults -no-user-config -no-reboot \
             -display none -kernel /out/vmlinux -initrd /out/initramfs.cpio.gz \
             -append console=ttyS0 tty.burn=100 \
             -chardev socket,id=console,fd=3,server=on,wait=on -serial chardev:console \
             -fw_cfg name=opt/imgbuild/identity,file=/fleet/a,,b/g00007 \
             -blockdev {\"node-name\":\"disk\",\"driver\":\"qcow2\",\
             \"cache\":{\"no-flush\":true},\"discard\":\"unmap\",\
             \"file\":{\"driver\":\"file\",\"filename\":\"/fleet/overlays/00007.qcow2\"}} \
             -device virtio-blk-device,drive=disk \
             -object main-loop,id=main-loop,thread-pool-max=1 \
             -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:2207-:22 \
             -device virtio-net-device,netdev=net"
        );
    }

    #[test]
    fn kvm_guest_with_the_console_alone() {
        let guest = GuestSpec {
            disk: None,
            net: Net::None,
            ssh_port: None,
            identity: None,
            accel: Accel::Kvm,
            sharing: Sharing::Guest,
            ..guest()
        };
        assert_eq!(
            line(&guest),
            "-name g00007 -machine microvm,acpi=off,rtc=on,mem-merge=on \
             -accel kvm -cpu host -m 64M -nodefaults -no-user-config -no-reboot \
             -display none -kernel /out/vmlinux -initrd /out/initramfs.cpio.gz \
             -append console=ttyS0 tty.burn=100 \
             -chardev socket,id=console,fd=3,server=on,wait=on -serial chardev:console"
        );
    }

    #[test]
    fn the_command_line_holds_no_secret() {
        // The identity is named by its file, whose mode is 0600.
        assert!(!line(&guest()).contains("string="));
    }
}
