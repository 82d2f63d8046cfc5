//! The keys of the reference's guests, and where ssh(1) finds the guests.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tty_init::ssh_programs::{KeyFile, Server};
use zeroize::Zeroizing;

use super::error::ReferenceError;
use crate::directories::Directories;
use crate::host;
use crate::net::ports;
use crate::random::random;
use crate::recipe::SshServer;
use crate::store::claims::Register;
use crate::store::folder::Folder;
use crate::store::key;
use crate::store::ssh_config::{self, Host};
use crate::system::Doing as _;
use crate::units::GuestRange;

/// Least time for a log-in: as long as dropbear has patience for one.
const LEAST: Duration = Duration::from_secs(300);
/// A guest's CPU time within which a client is logged in and its command done: under TCG
/// that takes 3 s, and what burns in the guest has as much.
const CPU: Duration = Duration::from_secs(6);

/// How guests are logged in to.
pub(super) struct Access {
    /// Port of the loopback for each guest, in order.
    pub ports: Vec<u16>,
    /// ssh(1)'s configuration.
    pub config: PathBuf,
    /// How long a log-in may take.
    pub patience: Duration,
    /// The one host key of all, as dropbear reads it.
    pub host_key: Zeroizing<Vec<u8>>,
    /// The text of `authorized_keys`.
    pub authorized: Vec<u8>,
}

/// Makes the keys, and writes what ssh(1) needs into the guests' folder. The host key
/// is in the guests' initramfs, and so the same in all, as in the reference.
pub(super) fn prepare(
    folder: &Folder,
    guests: GuestRange,
    directories: &Directories,
) -> Result<Access, ReferenceError> {
    let others = Register::of(directories).look().ports();
    let ports = ports::choose(folder.path(), &others, guests.count())?;
    let secret = Zeroizing::new(random().doing("read random bytes from the kernel")?);
    let public = SigningKey::from_bytes(&secret).verifying_key().to_bytes();
    let user = key::generate("baseline", folder).doing("read random bytes from the kernel")?;
    user.write(folder)?;
    let hosts: Vec<_> = guests
        .iter()
        .zip(&ports)
        .map(|(guest, port)| Host {
            guest,
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, *port),
            key: public,
        })
        .collect();
    let patience = patience(guests.count(), host::cpus());
    let config = ssh_config::write(folder, &hosts, SshServer::Image, &user.key, patience)?;
    Ok(Access {
        ports,
        config,
        patience,
        host_key: Zeroizing::new(
            KeyFile::private(Server::Dropbear, &secret, &public)
                .as_bytes()
                .to_vec(),
        ),
        authorized: KeyFile::authorized(&user.key.public).as_bytes().to_vec(),
    })
}

/// How long a log-in to one of `guests` that burn on `cpus` CPUs may take.
fn patience(guests: u32, cpus: usize) -> Duration {
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX).max(1);
    LEAST.max(2 * CPU * guests / cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_may_take_longer_the_more_guests_burn() {
        assert_eq!(patience(2, 2), LEAST);
        assert_eq!(patience(100, 2), Duration::from_secs(600));
        assert_eq!(patience(100, 72), LEAST);
        assert_eq!(patience(0, 0), LEAST);
    }
}
