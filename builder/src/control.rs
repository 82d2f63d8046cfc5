//! A fleet's control interface: JSON over HTTP/1.1 on the Unix socket `control` in
//! its runtime folder. `types` has the documents, `bridge` the requests that the
//! supervisor receives; `docs/api.md` describes the interface to users.

pub(crate) mod bridge;
pub(crate) mod client;
pub(crate) mod ending;
pub(crate) mod follow;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod picture;
pub(crate) mod schema;
pub(crate) mod select;
pub(crate) mod server;
pub mod types;
pub(crate) mod unsupervised;
pub(crate) mod waiting;
