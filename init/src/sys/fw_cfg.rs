//! The ports of QEMU's `fw_cfg` device (QEMU's `docs/specs/fw_cfg`).

use core::arch::asm;

use rustix::io::Errno;

use super::syscall;

const IOPERM: usize = 173;
const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;

/// The right to use the device's two ports, given back when dropped.
pub(crate) struct Ports(());

#[expect(clippy::unused_self, reason = "having it is the right to the ports")]
impl Ports {
    /// Asks the kernel for the ports.
    pub(crate) fn open() -> Result<Self, Errno> {
        permit(1).map(Self)
    }

    /// Selects the item with this key, from its first byte.
    pub(crate) fn select(&mut self, key: u16) {
        // SAFETY: the ports are ours; the selector touches no memory.
        unsafe {
            asm!("out dx, ax", in("dx") SELECTOR, in("ax") key, options(nomem, nostack));
        }
    }

    /// Reads the selected item's next bytes; past its end come zeros, and with
    /// no device there, ones.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) {
        // A string instruction, because a hypervisor takes it in one exit where
        // single bytes would cost one each.
        //
        // SAFETY: the ports are ours, and `bytes` is as long as the count says.
        unsafe {
            asm!(
                "rep insb",
                in("dx") DATA,
                inout("rdi") bytes.as_mut_ptr() => _,
                inout("rcx") bytes.len() => _,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        // Frees the kernel's permission bitmap. Nothing to do if it fails.
        let _ = permit(0);
    }
}

fn permit(on: usize) -> Result<(), Errno> {
    // SAFETY: ioperm(2) takes a port, a count and a switch, and no pointer.
    unsafe { syscall(IOPERM, [usize::from(SELECTOR), 2, on, 0]) }.map(drop)
}
