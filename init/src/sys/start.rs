//! The entry point.

use core::arch::naked_asm;

// The kernel enters with rsp 16-byte aligned, the argument count on top; a
// call pushes the return address that the ABI expects below.
//
// SAFETY: the linker's entry symbol, and no other in this binary.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "xor ebp, ebp",
        "call {pid1}",
        "ud2",
        pid1 = sym crate::pid1,
    )
}

// The precompiled core names it in its unwind tables, which an aborting binary
// never reads.
//
// SAFETY: the name that rustc expects, and no other in this binary.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
