//! A fleet on disk: what it is, what was started, and what its guests own.

pub mod claims;
pub mod find;
pub mod folder;
pub mod identity;
pub mod journal;
pub mod key;
pub mod logs;
pub mod orphans;
pub mod spec;
pub mod ssh_config;
pub mod users;
