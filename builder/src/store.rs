//! A fleet on disk: its spec, its journal, and what its guests own.

pub mod claims;
pub(crate) mod find;
pub mod folder;
pub mod identity;
pub mod journal;
pub mod key;
pub(crate) mod logs;
pub mod orphans;
pub mod spec;
pub(crate) mod ssh_config;
pub(crate) mod users;
