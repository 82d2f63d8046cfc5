//! QEMU's monitor protocol (QEMU's docs/interop/qmp-spec): what a guest's VMM
//! says of itself, asked for one thing at a time.
//!
//! Without input or output of its own: bytes in, bytes out. Whoever has broken
//! out of a guest answers here, so nothing is believed and everything is
//! bounded. [`connection`] has the protocol, [`command`] what can be asked for,
//! and [`inquiry`] a question of several commands.

mod command;
mod connection;
mod error;
mod inquiry;

pub(crate) use error::QmpError;
pub(crate) use inquiry::Inquiry;
