//! The random pool's ioctls (random(4)).

use core::ffi::c_int;

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Setter, ioctl};
use zeroize::Zeroize;

const RNDADDENTROPY: u32 = 0x4008_5203;
const RNDRESEEDCRNG: u32 = 0x5207;

/// `struct rand_pool_info` with its data.
#[repr(C)]
struct PoolInfo {
    entropy_bits: c_int,
    size: c_int,
    data: [u8; 32],
}

impl Drop for PoolInfo {
    fn drop(&mut self) {
        self.data.zeroize();
    }
}

/// Adds 32 secret bytes to the pool behind `device` and credits all of them.
pub(crate) fn credit(device: impl AsFd, secret: &[u8; 32]) -> Result<(), Errno> {
    let info = PoolInfo {
        entropy_bits: 256,
        size: 32,
        data: *secret,
    };
    // SAFETY: RNDADDENTROPY reads a rand_pool_info, which `PoolInfo` is.
    let request = unsafe { Setter::<RNDADDENTROPY, PoolInfo>::new(info) };
    // SAFETY: the kernel reads `request` alone, `size` bytes of data included.
    unsafe { ioctl(device, request) }
}

/// Makes the generator take the pool's new content at once.
pub(crate) fn reseed(device: impl AsFd) -> Result<(), Errno> {
    // SAFETY: RNDRESEEDCRNG takes no argument.
    let request = unsafe { NoArg::<RNDRESEEDCRNG>::new() };
    // SAFETY: it touches no memory of ours.
    unsafe { ioctl(device, request) }
}
