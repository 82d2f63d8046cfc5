//! A fleet's control interface: JSON over HTTP/1.1 on the Unix socket `control`
//! in its runtime folder. `types` is what goes over the wire, `bridge` what the
//! supervisor is handed.

pub mod bridge;
pub mod types;
