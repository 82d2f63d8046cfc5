//! Turns a guest's description into QEMU's arguments; pure.

use std::ffi::OsString;

use serde_json::json;
use tty_init::identity::FW_CFG_NAME;

use crate::digest::Sha256;
use crate::kernel::Format;
use crate::vmm::{Accel, GuestSpec, Machine, Net, Outbound, Part, SSH_PORT, Sharing};

/// Gives a machine the UUID by which its process is found again.
pub(super) const UUID: &str = "-uuid";

/// Gives a machine a file of its guest's, such as its identity.
pub(super) const FW_CFG: &str = "-fw_cfg";

/// What QEMU's process is kept from (qemu(1), `-sandbox`): system calls that
/// nobody should use, changing its user, starting programs, and changing its
/// priority or CPUs. It costs no memory, and no CPU that could be measured.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// QEMU's arguments for one guest that is handed `parts`.
///
/// The board is `microvm` without firmware tables (QEMU's
/// docs/system/i386/microvm): with ACPI on, a kernel without ACPI would not
/// find the virtio-mmio devices, which the board adds to the command line.
/// Without a clock chip the kernel waits for one in vain, for a second of CPU
/// under TCG.
pub(crate) fn argv(guest: &GuestSpec, parts: &[Part]) -> Vec<OsString> {
    let merge = match guest.machine.sharing {
        Sharing::None => "off",
        Sharing::Guest | Sharing::All => "on",
    };
    let mut argv = Argv::default();
    // Threads have names (`CPU 0/KVM`): who waits for a CPU is told by them.
    argv.option("-name", format!("{},debug-threads=on", guest.id));
    if let Some(uuid) = &guest.uuid {
        argv.option(UUID, uuid);
    }
    argv.option("-sandbox", SANDBOX);
    let memory = format!("{}M", guest.machine.memory.bytes() >> 20);
    let backend = argv.ram(parts, &memory, merge);
    argv.option(
        "-machine",
        // A core file would hold what the guest's RAM does.
        format!("microvm,acpi=off,rtc=on,dump-guest-core=off,mem-merge={merge}{backend}"),
    );
    match guest.machine.accel {
        Accel::Kvm => {
            argv.option("-accel", "kvm");
            argv.option("-cpu", "host");
        }
        Accel::Tcg => {
            // MiB of translated code, every byte the guest's own. With 4 the
            // boot's code does not fit and is translated again: 0.76 s of CPU
            // to ready instead of 0.62; with 16 it is 0.72. Where all else is
            // merged, it is most of what a guest costs.
            let translated = match guest.machine.sharing {
                Sharing::None | Sharing::Guest => 8,
                // A clone has no boot's code, and what it has is flushed and translated
                // again: 0.31 s of CPU to ready instead of 0.16 (docs/density.md).
                Sharing::All if parts.contains(&Part::State) => 1,
                Sharing::All => 4,
            };
            argv.option("-accel", format!("tcg,tb-size={translated}"));
            argv.option("-cpu", "qemu64");
        }
    }
    argv.option("-m", memory);
    argv.flag("-nodefaults");
    argv.flag("-no-user-config");
    argv.flag("-no-reboot");
    argv.option("-display", "none");
    // The files of fw_cfg are numbered in the order of their names, and a kernel brings
    // one (`genroms/pvh.bin`): without, a restored guest would read another one.
    argv.option("-kernel", opened_again(Part::Kernel));
    argv.option("-initrd", opened_again(Part::Initramfs));
    argv.option("-append", &guest.command_line);
    if parts.contains(&Part::State) {
        // The monitor is told from what.
        argv.option("-incoming", "defer");
    }
    argv.socket("console", Part::Console, "on");
    argv.option("-serial", "chardev:console");
    argv.socket("monitor", Part::Monitor, "off");
    argv.option("-mon", "chardev=monitor,mode=control");
    if parts.contains(&Part::Identity) {
        let file = opened_again(Part::Identity);
        argv.option(FW_CFG, format!("name={FW_CFG_NAME},file={file}"));
    }
    if parts.contains(&Part::Overlay) {
        let overlay = argv.descriptor_set(Part::Overlay);
        let base = argv.descriptor_set(Part::Base);
        argv.option(
            "-blockdev",
            json!({
                "node-name": "disk",
                "driver": "qcow2",
                // Overlays are thrown away with their fleet.
                "cache": { "no-flush": true },
                "discard": "unmap",
                "file": { "driver": "file", "filename": overlay },
                // Named here, so that no path is followed which a guest could
                // have written into its overlay.
                "backing": {
                    "driver": "qcow2",
                    "read-only": true,
                    "file": { "driver": "file", "filename": base, "read-only": true },
                },
            })
            .to_string(),
        );
        argv.option("-device", "virtio-blk-device,drive=disk");
        // Threads for I/O that may block come as they are needed, up to 64 of
        // them, and QEMU aborts where the host has none left: one, so that what
        // a guest takes can be counted.
        argv.option("-object", "main-loop,id=main-loop,thread-pool-max=1");
    }
    match guest.machine.net {
        Net::User => {
            // Forwarding passes through `restrict` (qemu(1)).
            let forward = guest.ssh_port.map_or_else(String::new, |port| {
                format!(",hostfwd=tcp:127.0.0.1:{port}-:{SSH_PORT}")
            });
            let restrict = match guest.outbound {
                Outbound::Closed => ",restrict=on",
                Outbound::Open => "",
            };
            argv.option("-netdev", format!("user,id=net{restrict}{forward}"));
        }
        Net::Tap => {
            let queue = Part::Tap.descriptor();
            argv.option("-netdev", format!("tap,id=net,fd={queue},vhost=off"));
        }
        Net::None => {}
    }
    if guest.machine.net != Net::None {
        // Its link has one neighbour: a clone need not announce itself by ARP after its
        // restoration (virtio 1.2, 5.1.6.5.4), which takes it 15 ms of CPU under TCG.
        argv.option("-device", "virtio-net-device,netdev=net,guest_announce=off");
    }
    argv.arguments
}

/// The digest of what QEMU is given for each such guest with these parts, but for what is
/// the guest's own: of another digest, its machine is another.
pub(crate) fn kind(machine: Machine, parts: &[Part]) -> Sha256 {
    let guest = GuestSpec {
        id: String::new(),
        uuid: None,
        machine,
        kernel_format: Format::Elf,
        command_line: String::new(),
        ssh_port: None,
        outbound: Outbound::Closed,
    };
    let words: Vec<_> = argv(&guest, parts)
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Sha256::of_bytes(words.join("\0"))
}

/// The name of a file that QEMU opens by itself; it opens a descriptor's again.
fn opened_again(part: Part) -> String {
    format!("/dev/fd/{}", part.descriptor())
}

#[derive(Default)]
struct Argv {
    arguments: Vec<OsString>,
}

impl Argv {
    fn flag(&mut self, name: &str) {
        self.arguments.push(name.into());
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.flag(name);
        self.arguments.push(value.into());
    }

    /// RAM that is a file, where it is one; gives what the machine is to be told of it.
    fn ram(&mut self, parts: &[Part], size: &str, merge: &str) -> &'static str {
        if !parts.contains(&Part::Memory) {
            return "";
        }
        // A template keeps what its guest writes.
        let share = if parts.contains(&Part::State) {
            "off"
        } else {
            "on"
        };
        let path = opened_again(Part::Memory);
        self.option(
            "-object",
            // What the machine says of its own RAM does not hold for this.
            format!(
                "memory-backend-file,id=ram,size={size},mem-path={path},share={share},\
                 merge={merge},dump=off"
            ),
        );
        ",memory-backend=ram"
    }

    /// A socket that listens already; `wait` tells whether QEMU waits for a client.
    fn socket(&mut self, id: &str, part: Part, wait: &str) {
        let fd = part.descriptor();
        self.option(
            "-chardev",
            format!("socket,id={id},fd={fd},server=on,wait={wait}"),
        );
    }

    /// The name of a descriptor as QEMU's disks use it: not opened again.
    fn descriptor_set(&mut self, part: Part) -> String {
        let number = part.descriptor();
        self.option("-add-fd", format!("fd={number},set={number}"));
        format!("/dev/fdset/{number}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE_ALONE: [Part; 3] = [Part::Console, Part::Kernel, Part::Initramfs];
    const ALL: [Part; 6] = [
        Part::Console,
        Part::Kernel,
        Part::Initramfs,
        Part::Identity,
        Part::Overlay,
        Part::Base,
    ];

    fn guest() -> GuestSpec {
        GuestSpec {
            id: "g00007".to_owned(),
            uuid: Some("abababab-abab-abab-abab-abab00000007".to_owned()),
            machine: Machine {
                accel: Accel::Tcg,
                sharing: Sharing::None,
                net: Net::User,
                memory: "64M".parse().unwrap(),
            },
            kernel_format: Format::Elf,
            command_line: "console=ttyS0 tty.burn=100".to_owned(),
            ssh_port: Some(2207),
            outbound: Outbound::Closed,
        }
    }

    fn line(guest: &GuestSpec, parts: &[Part]) -> String {
        let words: Vec<_> = argv(guest, parts)
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn tcg_guest_with_everything() {
        assert_eq!(
            line(&guest(), &ALL),
            "-name g00007,debug-threads=on -uuid abababab-abab-abab-abab-abab00000007 \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
             -machine microvm,acpi=off,rtc=on,dump-guest-core=off,mem-merge=off \
             -accel tcg,tb-size=8 -cpu qemu64 -m 64M -nodefaults -no-user-config -no-reboot \
             -display none -kernel /dev/fd/4 -initrd /dev/fd/5 \
             -append console=ttyS0 tty.burn=100 \
             -chardev socket,id=console,fd=3,server=on,wait=on -serial chardev:console \
             -chardev socket,id=monitor,fd=10,server=on,wait=off -mon chardev=monitor,mode=control \
             -fw_cfg name=opt/imgbuild/identity,file=/dev/fd/6 \
             -add-fd fd=7,set=7 -add-fd fd=8,set=8 \
             -blockdev {\"node-name\":\"disk\",\"driver\":\"qcow2\",\
             \"cache\":{\"no-flush\":true},\"discard\":\"unmap\",\
             \"file\":{\"driver\":\"file\",\"filename\":\"/dev/fdset/7\"},\
             \"backing\":{\"driver\":\"qcow2\",\"read-only\":true,\
             \"file\":{\"driver\":\"file\",\"filename\":\"/dev/fdset/8\",\"read-only\":true}}} \
             -device virtio-blk-device,drive=disk \
             -object main-loop,id=main-loop,thread-pool-max=1 \
             -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:2207-:22 \
             -device virtio-net-device,netdev=net,guest_announce=off"
        );
    }

    #[test]
    fn kvm_guest_with_the_console_alone() {
        let guest = GuestSpec {
            uuid: None,
            ssh_port: None,
            machine: Machine {
                accel: Accel::Kvm,
                sharing: Sharing::Guest,
                net: Net::None,
                ..guest().machine
            },
            ..guest()
        };
        assert_eq!(
            line(&guest, &CONSOLE_ALONE),
            "-name g00007,debug-threads=on \
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
             -machine microvm,acpi=off,rtc=on,dump-guest-core=off,mem-merge=on \
             -accel kvm -cpu host -m 64M -nodefaults -no-user-config -no-reboot \
             -display none -kernel /dev/fd/4 -initrd /dev/fd/5 \
             -append console=ttyS0 tty.burn=100 \
             -chardev socket,id=console,fd=3,server=on,wait=on -serial chardev:console \
             -chardev socket,id=monitor,fd=10,server=on,wait=off -mon chardev=monitor,mode=control"
        );
    }

    #[test]
    fn guests_that_share_all_have_room_for_less_translated_code() {
        let mut guest = guest();
        guest.machine.sharing = Sharing::All;
        let line = line(&guest, &CONSOLE_ALONE);
        assert!(
            line.contains("mem-merge=on -accel tcg,tb-size=4 "),
            "{line}"
        );
        let parts = [Part::Kernel, Part::Memory, Part::State];
        let clone = self::line(&guest, &parts);
        assert!(clone.contains("-accel tcg,tb-size=1 "), "{clone}");
    }

    #[test]
    fn a_template_keeps_what_it_writes_and_a_clone_does_not() {
        let mut guest = guest();
        guest.machine.sharing = Sharing::Guest;
        let template = line(&guest, &[Part::Kernel, Part::Memory]);
        let clone = line(&guest, &[Part::Kernel, Part::Memory, Part::State]);
        for (line, share) in [(&template, "on"), (&clone, "off")] {
            let ram = format!(
                "-object memory-backend-file,id=ram,size=64M,mem-path=/dev/fd/13,share={share},\
                 merge=on,dump=off -machine microvm"
            );
            assert!(line.contains(&ram), "{line}");
            assert!(line.contains("mem-merge=on,memory-backend=ram "), "{line}");
        }
        assert!(!template.contains("-incoming"));
        assert!(clone.contains("-incoming defer"));
    }

    #[test]
    fn networks_are_closed_open_or_the_host_s() {
        let end = |net, outbound| {
            let mut guest = guest();
            guest.machine.net = net;
            guest.outbound = outbound;
            let line = line(&guest, &CONSOLE_ALONE);
            line.split_once("-netdev ").unwrap().1.to_owned()
        };
        assert_eq!(
            end(Net::User, Outbound::Open),
            "user,id=net,hostfwd=tcp:127.0.0.1:2207-:22 -device virtio-net-device,netdev=net,guest_announce=off"
        );
        for outbound in [Outbound::Closed, Outbound::Open] {
            assert_eq!(
                end(Net::Tap, outbound),
                "tap,id=net,fd=9,vhost=off -device virtio-net-device,netdev=net,guest_announce=off"
            );
        }
    }

    #[test]
    fn the_command_line_holds_no_secret() {
        // The identity is named by its descriptor.
        assert!(!line(&guest(), &ALL).contains("string="));
    }
}
