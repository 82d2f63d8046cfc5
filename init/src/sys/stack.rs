//! Walks the stack after a panic, to print which functions had called which.

use core::arch::asm;
use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Words of the stack that are looked at, and addresses that are printed.
const WORDS_MAX: usize = 256;
const CALLERS_MAX: usize = 8;

/// The kernel's limit of the main stack (`_STK_LIM`).
const STACK_MAX: usize = 8 << 20;

unsafe extern "C" {
    /// The linker's: where the program begins, and where its code ends.
    static __executable_start: u8;
    static etext: u8;
}

/// A place in the outermost frame of the main stack.
static OUTERMOST: AtomicUsize = AtomicUsize::new(0);

/// Takes note of where the main stack begins; the outermost function calls it.
pub(crate) fn begins_here() {
    OUTERMOST.store(pointer(), Ordering::Relaxed);
}

/// Addresses of code on the main stack, the innermost first: where the
/// functions that led here would return to, and perhaps some that others left.
/// None on another stack.
///
/// The messages and places of panics would be a tenth of the binary;
/// `addr2line` makes places of these addresses, given the same build
/// unstripped.
pub(crate) struct Callers;

impl fmt::Display for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = (&raw const __executable_start).addr()..(&raw const etext).addr();
        let here = pointer();
        let used = OUTERMOST.load(Ordering::Relaxed).saturating_sub(here);
        // Another stack lies in .bss, far from the main one.
        let words = if used <= STACK_MAX {
            used / size_of::<usize>()
        } else {
            0
        };
        let mut printed = 0;
        for index in 0..words.min(WORDS_MAX) {
            let place = ptr::with_exposed_provenance::<usize>(here + index * size_of::<usize>());
            // SAFETY: what lies between the stack pointer and an outer frame of
            // the same stack is mapped, and aligned as the pointer is.
            let word = unsafe { place.read_volatile() };
            if code.contains(&word) && printed < CALLERS_MAX {
                write!(f, " {word:#x}")?;
                printed += 1;
            }
        }
        Ok(())
    }
}

/// The stack pointer.
fn pointer() -> usize {
    let pointer;
    // SAFETY: it reads one register.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}
