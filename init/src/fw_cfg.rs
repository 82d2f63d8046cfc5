//! The identity blob from QEMU's `fw_cfg` device (QEMU's `docs/specs/fw_cfg`).

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use tty_init::identity::FW_CFG_NAME;

use crate::sys::fw_cfg::Ports;

const SIGNATURE: u16 = 0x00;
const DIRECTORY: u16 = 0x19;
/// Most entries that QEMU can be told to have (`x-file-slots`) would be 16,368;
/// a machine has some 20.
const MAX_ENTRIES: u32 = 512;

/// Where the kernel's own driver shows the file, given `qemu_fw_cfg.ioport=` on its
/// command line.
const SYSFS: &core::ffi::CStr = c"/sys/firmware/qemu_fw_cfg/by_name/opt/imgbuild/identity/raw";

/// The identity's file.
pub(crate) struct IdentityFile {
    /// `None` in a kernel of the user's own that lacks the driver: it may have
    /// CONFIG_X86_IOPL_IOPERM.
    sysfs: Option<OwnedFd>,
}

impl IdentityFile {
    /// Opens it; nothing is read yet.
    pub(crate) fn open() -> Self {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Self {
            sysfs: rustix::fs::open(SYSFS, flags, Mode::empty()).ok(),
        }
    }

    /// Reads it; gives its length, cut to that of `blob`.
    pub(crate) fn read(&self, blob: &mut [u8]) -> Option<usize> {
        match &self.sysfs {
            Some(file) => rustix::io::read(file, blob).ok(),
            None => read_by_ports(&mut Ports::open().ok()?, blob),
        }
    }
}

fn read_by_ports(ports: &mut Ports, blob: &mut [u8]) -> Option<usize> {
    let mut signature = [0; 4];
    ports.select(SIGNATURE);
    ports.read(&mut signature);
    if signature != *b"QEMU" {
        return None;
    }
    let mut count = [0; 4];
    ports.select(DIRECTORY);
    ports.read(&mut count);
    for _ in 0..u32::from_be_bytes(count).min(MAX_ENTRIES) {
        let mut entry = [0; 64];
        ports.read(&mut entry);
        let [s0, s1, s2, s3, k0, k1, _, _, name @ ..] = entry;
        if name.split(|&byte| byte == 0).next() == Some(FW_CFG_NAME.as_bytes()) {
            let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
            let length = size.min(blob.len());
            ports.select(u16::from_be_bytes([k0, k1]));
            ports.read(&mut blob[..length]);
            return Some(length);
        }
    }
    None
}
