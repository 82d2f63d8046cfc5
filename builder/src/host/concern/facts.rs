//! What several concerns have to know of a host.

pub(crate) mod config;
pub(crate) mod link;
pub(crate) mod processor;
