//! What the fuzz targets for SSH share: the guest's server over a stream in
//! memory, and a client for it. Nothing is random.

pub mod connect;
pub mod server;
