//! QEMU's monitor protocol (QEMU's docs/interop/qmp-spec): what a guest's VMM
//! says of itself, asked for one thing at a time.
//!
//! It does no input or output: it takes bytes and gives bytes. A guest that has
//! broken out may answer here, so nothing is trusted and everything is bounded.
//! [`connection`] has the protocol, [`command`] the commands, and each [`Talk`] a
//! question or an order that takes several commands ([`inquiry`], [`restoration`],
//! [`capture`]).

mod capture;
mod command;
mod connection;
mod error;
mod inquiry;
mod restoration;
mod talk;

pub(crate) use capture::{Capture, Captured};
pub(crate) use error::QmpError;
pub(crate) use inquiry::Inquiry;
pub(crate) use restoration::{Restoration, Restored};
pub(crate) use talk::Talk;
