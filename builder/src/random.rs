//! The host's random pool.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// 32 bytes of it.
pub(crate) fn random() -> Result<[u8; 32], Errno> {
    let mut bytes = [0; 32];
    // Up to 256 bytes are never cut short (getrandom(2)).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}
