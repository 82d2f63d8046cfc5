//! QEMU's monitor protocol (QEMU's docs/interop/qmp-spec): what a guest's VMM
//! says of itself, asked for one thing at a time.
//!
//! It does no input or output: it takes bytes and gives bytes. A guest that has
//! broken out may answer here, so nothing is trusted and everything is bounded.
//! [`connection`] has the protocol, [`command`] the commands, and [`inquiry`] a
//! question that takes several commands.

mod command;
mod connection;
mod error;
mod inquiry;

pub(crate) use error::QmpError;
pub(crate) use inquiry::Inquiry;
