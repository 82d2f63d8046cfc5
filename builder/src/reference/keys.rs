//! The keys of the reference's guests, and where ssh(1) finds the guests.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use ed25519_dalek::SigningKey;
use tty_init::ssh_programs::{KeyFile, Server};
use zeroize::Zeroizing;

use super::error::ReferenceError;
use crate::directories::Directories;
use crate::guest::deadline;
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

/// How guests are logged in to.
pub(super) struct Access {
    /// Port of the loopback for each guest, in order.
    pub ports: Vec<u16>,
    /// ssh(1)'s configuration.
    pub config: PathBuf,
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
    let patience = deadline::command(guests.count(), host::cpus());
    let config = ssh_config::write(folder, &hosts, SshServer::Image, &user.key, patience)?;
    Ok(Access {
        ports,
        config,
        host_key: Zeroizing::new(
            KeyFile::private(Server::Dropbear, &secret, &public)
                .as_bytes()
                .to_vec(),
        ),
        authorized: KeyFile::authorized(&user.key.public).as_bytes().to_vec(),
    })
}
