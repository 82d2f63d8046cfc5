//! A fleet's life: starting its guests, listening to them, and ending them.

mod ask;
pub(crate) mod changes;
pub(crate) mod copy;
pub(crate) mod each;
pub(crate) mod remove;
pub mod site;
pub(crate) mod ssh;
mod start_progress;
mod streams;
pub(crate) mod supervise;
pub(crate) mod supervisor;
pub(crate) mod view;
mod waits;
