//! Takes the identity and applies it.

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use tty_init::identity::{Identity, LENGTH};
use tty_init::protocol::IdentityState;
use zeroize::Zeroizing;

use crate::console::{self, Console};
use crate::failure::{Context, Failure};
use crate::fw_cfg::IdentityFile;
use crate::sys::random;

/// What the identity comes from and goes to, opened.
pub(crate) struct Sources {
    identity: IdentityFile,
    random: Result<OwnedFd, Failure>,
}

impl Sources {
    /// Opens them; nothing is read yet.
    pub(crate) fn open() -> Self {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        Self {
            identity: IdentityFile::open(),
            random: open(c"/dev/urandom", flags, Mode::empty()).context("open"),
        }
    }
}

/// Reads the identity and makes it the kernel's and the console's.
///
/// `None` without one that is sound; the guest goes on all the same.
pub(crate) fn take(sources: &Sources, console: &mut Console) -> (Option<Identity>, IdentityState) {
    // One byte more than the blob, to tell a longer one.
    let mut blob = Zeroizing::new([0; LENGTH + 1]);
    let Some(length) = sources.identity.read(&mut blob[..]) else {
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
    if let Err(failure) = credit(&sources.random, &identity.entropy) {
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
fn credit(device: &Result<OwnedFd, Failure>, entropy: &[u8; 32]) -> Result<(), Failure> {
    let device = device.as_ref().map_err(|failure| *failure)?;
    random::credit(device, entropy).context("RNDADDENTROPY")?;
    random::reseed(device).context("RNDRESEEDCRNG")
}
