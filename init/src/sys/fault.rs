//! Faults of PID 1 itself. Without a handler the kernel would panic, and print only
//! an exit code.

use core::cell::UnsafeCell;

use super::syscall;

const RT_SIGACTION: usize = 13;
const SIGALTSTACK: usize = 131;
const SA_RESTORER: u64 = 0x0400_0000;
const SA_ONSTACK: u64 = 0x0800_0000;
/// SIGILL, SIGBUS, SIGFPE and SIGSEGV.
const FAULTS: [usize; 4] = [4, 7, 8, 11];

/// A stack for the handler, as an overflow of the main one is a fault too. Its
/// pages cost nothing before that; a signal frame alone can take 10 KiB, on a
/// CPU with AMX.
const STACK: usize = 32 * 1024;

/// The kernel's `struct sigaction`.
#[repr(C)]
struct Action {
    handler: extern "C" fn(i32) -> !,
    flags: u64,
    restorer: extern "C" fn(i32) -> !,
    mask: u64,
}

/// `stack_t`.
#[repr(C)]
struct AlternateStack {
    base: *mut [u8; STACK],
    flags: i32,
    size: usize,
}

#[repr(align(16))]
struct Stack(UnsafeCell<[u8; STACK]>);

// SAFETY: only the kernel uses it, for one handler of one thread.
unsafe impl Sync for Stack {}

static HANDLER_STACK: Stack = Stack(UnsafeCell::new([0; STACK]));

/// Has `handler` called with the signal's number when the process faults.
///
/// On failure the kernel's own answer stands.
pub(crate) fn handle(handler: extern "C" fn(i32) -> !) {
    let stack = AlternateStack {
        base: HANDLER_STACK.0.get(),
        flags: 0,
        size: STACK,
    };
    let stack = (&raw const stack).expose_provenance();
    // SAFETY: sigaltstack(2) reads a stack_t, which `AlternateStack` is, and
    // nobody else uses the memory that it names.
    let _ = unsafe { syscall(SIGALTSTACK, [stack, 0, 0, 0]) };
    let action = Action {
        handler,
        flags: SA_RESTORER | SA_ONSTACK,
        // The kernel asks for one; a handler that never returns needs none.
        restorer: handler,
        mask: 0,
    };
    let action = (&raw const action).expose_provenance();
    for signal in FAULTS {
        // SAFETY: rt_sigaction(2) reads a sigaction with a mask of eight bytes,
        // which `Action` is; the handler never returns into what faulted.
        let _ = unsafe { syscall(RT_SIGACTION, [signal, action, 0, size_of::<u64>()]) };
    }
}
