//! Tests below a root of their own, and on harmless settings of this host.

mod apply;
mod death;
mod drive;
pub(crate) mod fake;
pub(crate) mod fuse;
mod guests;
mod ksm;
mod ksmd;
mod live;
mod restore;
mod script;
mod tamper;
