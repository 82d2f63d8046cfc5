//! How guests are reached: routed taps and loopback ports.

pub mod ports;
pub mod tap;
