//! A fleet's life: its guests are started, listened to and ended together.

mod ask;
mod headway;
pub(crate) mod remove;
pub mod site;
pub(crate) mod ssh;
mod streams;
pub(crate) mod supervise;
pub(crate) mod supervisor;
pub(crate) mod view;
pub(crate) mod wishes;
