//! A fleet's life: its guests are started, listened to and ended together.

mod ask;
mod headway;
pub mod remove;
pub mod site;
pub mod ssh;
mod streams;
pub mod supervise;
pub mod supervisor;
pub(crate) mod view;
mod wishes;
