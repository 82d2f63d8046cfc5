//! QEMU as the reference experiment starts it: the machine `pc` with its firmware and
//! all devices that it has by default. Only what imgbuild's guests are compared with
//! is run so.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::disk::overlay;
use crate::process;
use crate::units::GuestIndex;
use crate::vmm::{Accel, SSH_PORT};

/// The kernel and the initramfs, in the folder that QEMU is started in.
pub(crate) const KERNEL: &str = "kernel";
pub(crate) const INITRAMFS: &str = "initramfs";
/// A guest's RAM.
const RAM: &str = "1G";
/// As the reference has it; and a guest whose init fails ends, which is noticed.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1";

/// A guest of the reference experiment's kind. Its files have no folder in their
/// names: QEMU is started in the one that they are in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReferenceGuest {
    pub index: GuestIndex,
    pub accel: Accel,
    /// Port of the host's loopback that leads to its SSH server.
    pub ssh_port: u16,
}

impl ReferenceGuest {
    /// The file that its console is written to.
    pub(crate) fn console(self) -> String {
        format!("{:05}.console", self.index.get())
    }

    /// The file that its QEMU complains into.
    pub(crate) fn errors(self) -> String {
        format!("{:05}.errors", self.index.get())
    }

    /// QEMU's arguments.
    pub(crate) fn argv(self) -> Vec<OsString> {
        let serial = format!("file:{}", self.console());
        let disk = format!("file={},if=virtio", overlay::name(self.index));
        let net = format!(
            "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{}-:{SSH_PORT}",
            self.ssh_port
        );
        [
            ["-machine", "pc,mem-merge=on"],
            ["-accel", self.accel.name()],
            ["-m", RAM],
            ["-display", "none"],
            ["-serial", &serial],
            ["-kernel", KERNEL],
            ["-initrd", INITRAMFS],
            ["-append", COMMAND_LINE],
            ["-drive", &disk],
            ["-netdev", &net],
            ["-device", "virtio-net-pci,netdev=net"],
        ]
        .into_iter()
        .flatten()
        .chain(["-no-reboot"])
        .map(OsString::from)
        .collect()
    }

    /// Starts it in `folder`, with a process group of its own; it is killed when the
    /// thread ends that does this.
    pub(crate) fn spawn(self, program: &Path, folder: &Path) -> io::Result<Child> {
        let errors = File::create(folder.join(self.errors()))?;
        let mut command = Command::new(program);
        process::close_inherited(&mut command);
        process::die_with_parent(&mut command, Signal::KILL);
        command
            .env_clear()
            .args(self.argv())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .process_group(0)
            .spawn()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(accel: Accel) -> String {
        let guest = ReferenceGuest {
            index: GuestIndex::new(7).unwrap(),
            accel,
            ssh_port: 20_007,
        };
        guest.argv().join(" ".as_ref()).into_string().unwrap()
    }

    #[test]
    fn it_has_what_the_machine_has_by_default() {
        assert_eq!(
            line(Accel::Tcg),
            "-machine pc,mem-merge=on -accel tcg -m 1G -display none -serial file:00007.console \
             -kernel kernel -initrd initramfs -append console=ttyS0 quiet panic=-1 \
             -drive file=00007.qcow2,if=virtio \
             -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:20007-:22 \
             -device virtio-net-pci,netdev=net -no-reboot"
        );
    }

    #[test]
    fn it_runs_on_what_the_fleet_runs_on() {
        assert!(line(Accel::Kvm).contains(" -accel kvm -m 1G "));
    }

    #[test]
    fn no_folder_is_named() {
        assert!(!line(Accel::Tcg).contains('/'));
    }
}
