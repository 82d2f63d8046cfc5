//! A fleet's control interface: JSON over HTTP/1.1 on the Unix socket `control`
//! in its runtime folder. `types` is what goes over the wire, `bridge` what the
//! supervisor is handed; `docs/api.md` is what users are told.

pub mod bridge;
pub mod client;
pub mod metrics;
pub mod schema;
pub mod select;
pub mod server;
pub mod types;
pub mod unsupervised;
pub mod waiting;
