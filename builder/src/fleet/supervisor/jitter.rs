//! Random numbers that spread restarts over time.

use std::io;

use crate::random::random;

/// Numbers from 0 to 1, so that guests that end together do not all start
/// together: Marsaglia's xorshift64, which is cheap enough for every event.
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(super) fn new() -> io::Result<Self> {
        let mut seed = [0; 8];
        seed.copy_from_slice(&random()?[..8]);
        Ok(Self(u64::from_le_bytes(seed) | 1))
    }

    pub(super) fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from((self.0 >> 32) as u32) / f64::from(u32::MAX)
    }
}
