//! Facts about a host that several concerns need.

pub(crate) mod config;
pub(crate) mod link;
pub(crate) mod processor;
