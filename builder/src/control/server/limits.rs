//! How much of the server one client may use.

use std::time::Duration;

/// Most connections at a time on each listener; more wait to be accepted.
pub(crate) const CONNECTIONS_MAX: usize = 256;
/// Most of them that attend guests, one for each log-in: the rest is for those
/// who ask for something.
pub(crate) const ATTENDING_MAX: usize = 192;
/// Most bytes of a request's head.
pub(crate) const HEAD_MAX: usize = 16 << 10;
/// Most bytes of a request's body.
pub(crate) const BODY_MAX: usize = 1 << 20;
/// How long a request's head may take, and its body.
pub(crate) const READ_TIME: Duration = Duration::from_secs(10);
