//! Takes the identity and applies it.

use rustix::fs::{Mode, OFlags};
use tty_init::identity::{Identity, LENGTH};
use tty_init::protocol::IdentityState;
use zeroize::Zeroizing;

use crate::console::{self, Console};
use crate::failure::{Context, Failure};
use crate::fw_cfg;
use crate::sys::random;

/// Reads the identity and makes it the kernel's and the console's.
///
/// `None` without one that is sound; the guest goes on all the same.
pub(crate) fn take(console: &mut Console) -> (Option<Identity>, IdentityState) {
    // One byte more than the blob, to tell a longer one.
    let mut blob = Zeroizing::new([0; LENGTH + 1]);
    let Some(length) = fw_cfg::read_identity(&mut blob[..]) else {
        return (None, IdentityState::Missing);
    };
    let identity = match Identity::decode(&blob[..length]) {
        Ok(identity) => identity,
        Err(error) => {
            console.log(format_args!("identity: {error}"));
            return (None, error.into());
        }
    };
    console::set_id(identity.id);
    let mut state = IdentityState::Applied;
    if let Err(failure) = credit(&identity.entropy) {
        console.log(format_args!("/dev/urandom: {failure}"));
        state = IdentityState::Failed;
    }
    let name = identity.id.as_str().as_bytes();
    if let Err(failure) = rustix::system::sethostname(name).context("sethostname") {
        console.log(format_args!("{failure}"));
    }
    (Some(identity), state)
}

/// Makes the kernel's random numbers this guest's own, and ready at once.
fn credit(entropy: &[u8; 32]) -> Result<(), Failure> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let device = rustix::fs::open(c"/dev/urandom", flags, Mode::empty()).context("open")?;
    random::credit(&device, entropy).context("RNDADDENTROPY")?;
    random::reseed(&device).context("RNDRESEEDCRNG")
}
