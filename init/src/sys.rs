//! What needs `unsafe`: the entry point, C's memory functions, and the system
//! calls and port instructions that rustix lacks. Each module offers a safe
//! interface; nothing outside this folder is unsafe.
#![allow(unsafe_code)]

mod memory;
mod start;

pub(crate) mod clock;
pub(crate) mod fault;
pub(crate) mod fw_cfg;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod serial;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod stack;
pub(crate) mod thread;

use core::arch::asm;

use rustix::io::Errno;

/// A system call of up to four arguments (x86-64 System V ABI, appendix A.2.1).
///
/// # Safety
/// The arguments must be what the call with this number takes, and what it
/// then does must be sound.
unsafe fn syscall(number: usize, arguments: [usize; 4]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the caller vouches for the call; the kernel keeps all registers
    // but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number.cast_signed() => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    check(result)
}

/// The kernel's answer, where -4095 to -1 is an error number.
fn check(result: isize) -> Result<usize, Errno> {
    match i32::try_from(result) {
        Ok(error @ -4095..=-1) => Err(Errno::from_raw_os_error(-error)),
        _ => Ok(result.cast_unsigned()),
    }
}
