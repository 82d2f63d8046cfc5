//! The identity blob from QEMU's `fw_cfg` device (QEMU's `docs/specs/fw_cfg`).

use rustix::fs::{CWD, Mode, OFlags};
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

/// Reads the identity's file; gives its length, cut to that of `blob`.
pub(crate) fn read_identity(blob: &mut [u8]) -> Option<usize> {
    // A kernel of the user's own may lack the driver, and have CONFIG_X86_IOPL_IOPERM.
    read_by_sysfs(blob).or_else(|| read_by_ports(&mut Ports::open().ok()?, blob))
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

fn read_by_sysfs(blob: &mut [u8]) -> Option<usize> {
    let file = rustix::fs::openat(CWD, SYSFS, OFlags::RDONLY, Mode::empty()).ok()?;
    rustix::io::read(file, blob).ok()
}
