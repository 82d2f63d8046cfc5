//! Sudden death: unwinds before the n-th effect on the host's state, as kill -9
//! would end the process there.

use std::cell::Cell;

thread_local! {
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// What the process that died unwinds with.
pub(crate) struct Died;

/// Called before each effect.
pub(crate) fn burn() {
    match LEFT.get() {
        Some(0) => std::panic::resume_unwind(Box::new(Died)),
        left => LEFT.set(left.map(|left| left - 1)),
    }
}

/// Runs `work` up to its effect number `effects`, counted from 0; whether it
/// came to its end instead.
pub(crate) fn survives(effects: u32, work: impl FnOnce()) -> bool {
    LEFT.set(Some(effects));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    LEFT.set(None);
    match result {
        Ok(()) => true,
        Err(cause) if cause.is::<Died>() => false,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}
