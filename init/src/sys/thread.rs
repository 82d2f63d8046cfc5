//! Threads that never end.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use tty_init::parameters::MAX_THREADS;

use super::check;

const CLONE: isize = 56;
/// VM, FS, FILES, SIGHAND, THREAD and SYSVSEM: all that makes a thread.
const FLAGS: usize = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;

const STACKS: usize = MAX_THREADS as usize;

/// A page is what the kernel gives a stack's first byte anyway, and the burn
/// needs a few hundred bytes of it.
#[repr(C, align(4096))]
struct Stack(UnsafeCell<[u8; 4096]>);

// SAFETY: `spawn` gives each stack to one thread only, and nobody else reads
// or writes it.
unsafe impl Sync for Stack {}

// In .bss: a stack that no thread was given costs no memory.
static ALL: [Stack; STACKS] = [const { Stack(UnsafeCell::new([0; 4096])) }; STACKS];
static USED: AtomicUsize = AtomicUsize::new(0);

/// Starts a thread that runs `body`, and tells it its number, from 0.
pub(crate) fn spawn(body: extern "C" fn(usize) -> !) -> Result<(), Errno> {
    let number = USED.load(Ordering::Relaxed);
    let stack = ALL.get(number).ok_or(Errno::AGAIN)?;
    // Aligned to 16 at its top; the child's `call` then keeps the ABI's rule.
    let top = stack.0.get().wrapping_add(1);
    let result: isize;
    // SAFETY: the child gets a stack that no other thread uses and never
    // returns from `body`, so it touches no frame of the parent; for the parent
    // this is a system call like any other.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") CLONE => result,
            in("rdi") FLAGS,
            in("rsi") top,
            in("rdx") 0,
            in("r10") 0,
            in("r8") 0,
            in("r12") body,
            in("r13") number,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    check(result)?;
    USED.store(number + 1, Ordering::Relaxed);
    Ok(())
}
