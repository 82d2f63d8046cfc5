//! A fleet's guests for ssh(1): the address of each, its host key, and the key to
//! log in with. The files are written before the first guest starts, so that strict
//! checking of host keys passes at the first log-in.

use std::io;
use std::net::SocketAddrV4;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ssh_key::PublicKey;
use ssh_key::public::{Ed25519PublicKey, KeyData};

use super::folder::{self, Folder, FolderError};
use super::key::Key;
use crate::recipe::SshServer;
use crate::units::GuestIndex;

/// A guest that can be logged in to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    /// Its number.
    pub guest: GuestIndex,
    /// Where its SSH server is reached.
    pub address: SocketAddrV4,
    /// The public half of its host key, ed25519.
    pub key: [u8; 32],
}

/// A path that ssh(1) would misread.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write the path {} into the fleet's ssh_config: ssh reads a line break in a path as its \
     end, and `${{` as the beginning of a variable; use a path without them for --ssh-key and \
     XDG_STATE_HOME",
    path.display()
)]
pub struct UnspeakablePath {
    path: PathBuf,
}

/// The fleet's files for ssh(1) could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SshConfigError {
    /// A path has no place in them.
    #[error(transparent)]
    Path(#[from] UnspeakablePath),
    /// The folder does not take them.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Writes `known_hosts` and `ssh_config` into the fleet's folder and returns the
/// latter's path. `key` is what logs in, to guests that `server` serves, and may
/// take as long as `patience`.
pub(crate) fn write(
    folder: &Folder,
    hosts: &[Host],
    server: SshServer,
    key: &Key,
    patience: Duration,
) -> Result<PathBuf, SshConfigError> {
    let known_hosts = folder::known_hosts(folder.path());
    let config = config(hosts, server, &key.file, &known_hosts, patience)?;
    folder.write(folder::KNOWN_HOSTS, known_hosts_text(hosts).as_bytes())?;
    Ok(folder.write(folder::SSH_CONFIG, &config)?)
}

/// The configuration file, for `ssh -F`; the words are those of ssh_config(5).
///
/// The first value given for a word holds, so what all guests have in common
/// comes first. `HostKeyAlias` takes no token in the clients of today's
/// distributions, and stands with each guest.
fn config(
    hosts: &[Host],
    server: SshServer,
    identity: &Path,
    known_hosts: &Path,
    patience: Duration,
) -> Result<Vec<u8>, UnspeakablePath> {
    let mut text = Vec::from(
        "# Clients from OpenSSH 10.1 on warn of a key exchange that is not post-quantum.\n\
         IgnoreUnknown WarnWeakCrypto\n\
         WarnWeakCrypto no\n\
         User root\n\
         IdentitiesOnly yes\n\
         PreferredAuthentications publickey\n\
         StrictHostKeyChecking yes\n\
         GlobalKnownHostsFile /dev/null\n\
         UpdateHostKeys no\n\
         CheckHostIP no\n\
         ForwardAgent no\n\
         ForwardX11 no\n\
         ControlMaster no\n\
         ControlPath none\n",
    );
    let terminal = match server {
        SshServer::Imgbuild => "no",
        SshServer::Image => "auto",
    };
    text.extend(format!("RequestTTY {terminal}\n").bytes());
    text.extend(format!("ConnectTimeout {}\n", patience.as_secs()).bytes());
    for (word, path) in [
        ("IdentityFile", identity),
        ("UserKnownHostsFile", known_hosts),
    ] {
        text.extend(word.bytes());
        text.push(b' ');
        text.extend(quoted(path)?);
        text.push(b'\n');
    }
    for Host { guest, address, .. } in hosts {
        let host = format!(
            "\nHost {guest}\n    HostName {}\n    Port {}\n    HostKeyAlias {guest}\n",
            address.ip(),
            address.port()
        );
        text.extend(host.bytes());
    }
    Ok(text)
}

/// A path as one word, with nothing in it that ssh(1) would expand.
fn quoted(path: &Path) -> Result<Vec<u8>, UnspeakablePath> {
    let bytes = path.as_os_str().as_bytes();
    let variable = bytes.windows(2).any(|pair| pair == b"${");
    if variable || bytes.contains(&b'\n') || bytes.contains(&b'\r') {
        return Err(UnspeakablePath {
            path: path.to_path_buf(),
        });
    }
    let mut word = vec![b'"'];
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => word.extend([b'\\', byte]),
            b'%' => word.extend(b"%%"),
            _ => word.push(byte),
        }
    }
    word.push(b'"');
    Ok(word)
}

/// One line a guest: its name, which `HostKeyAlias` has ssh(1) look for, and
/// its key (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
fn known_hosts_text(hosts: &[Host]) -> String {
    let mut text = String::new();
    for host in hosts {
        let key = PublicKey::from(KeyData::Ed25519(Ed25519PublicKey(host.key)))
            .to_openssh()
            .expect("a public key of constant length can be encoded");
        text.extend([&host.guest.to_string(), " ", &key, "\n"]);
    }
    text
}

/// The guests that a fleet's `known_hosts` names, in order.
pub(crate) fn guests(known_hosts: &Path) -> io::Result<Vec<GuestIndex>> {
    Ok(std::fs::read_to_string(known_hosts)?
        .lines()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::process::Command;

    use super::*;

    fn hosts(count: u16) -> Vec<Host> {
        (0..count)
            .map(|index| Host {
                guest: GuestIndex::new(index.into()).unwrap(),
                address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2000 + index),
                key: [7; 32],
            })
            .collect()
    }

    /// What the real client makes of a configuration.
    fn client(config: &[u8], guest: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ssh_config");
        std::fs::write(&path, config).unwrap();
        let output = Command::new("ssh")
            .arg("-F")
            .arg(&path)
            .args(["-G", guest, "true"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_client_finds_each_guest_and_checks_strictly() {
        let config = config(
            &hosts(3),
            SshServer::Imgbuild,
            Path::new("/state/key"),
            Path::new("/state/known_hosts"),
            Duration::from_secs(12),
        )
        .unwrap();
        let seen = client(&config, "g00002");
        for line in [
            "hostname 127.0.0.1",
            "port 2002",
            "user root",
            "hostkeyalias g00002",
            "identityfile /state/key",
            "userknownhostsfile /state/known_hosts",
            "globalknownhostsfile /dev/null",
            "stricthostkeychecking true",
            "identitiesonly yes",
            "updatehostkeys false",
            "preferredauthentications publickey",
            "requesttty false",
            "forwardagent no",
            "controlmaster false",
            "connecttimeout 12",
        ] {
            assert!(seen.lines().any(|found| found == line), "{line}:\n{seen}");
        }
        // A guest that is not there leads nowhere.
        assert!(client(&config, "g00003").contains("hostname g00003\n"));
    }

    #[test]
    fn a_guest_on_a_tap_is_found_at_its_address() {
        let host = Host {
            guest: GuestIndex::new(7).unwrap(),
            address: SocketAddrV4::new(Ipv4Addr::new(10, 213, 0, 15), 22),
            key: [7; 32],
        };
        let (key, known) = (Path::new("/key"), Path::new("/known"));
        let seen = client(
            &config(
                &[host],
                SshServer::Image,
                key,
                known,
                Duration::from_secs(10),
            )
            .unwrap(),
            "g00007",
        );
        // The image's server has terminals.
        assert!(seen.contains("requesttty auto\n"), "{seen}");
        assert!(seen.contains("hostname 10.213.0.15\n"), "{seen}");
        assert!(seen.contains("port 22\n"), "{seen}");
        assert!(seen.contains("hostkeyalias g00007\n"), "{seen}");
    }

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        let key = Path::new("/a b/100%h/\"quoted\"/back\\slash/#$x/key");
        let config = config(
            &hosts(1),
            SshServer::Imgbuild,
            key,
            Path::new("/k"),
            Duration::from_secs(10),
        )
        .unwrap();
        // -G shows words as they were read, before `%%` becomes `%`.
        assert!(
            client(&config, "g00000")
                .contains("identityfile /a b/100%%h/\"quoted\"/back\\slash/#$x/key\n")
        );
        for path in ["/a\nb", "/a${HOME}"] {
            let error = quoted(Path::new(path)).unwrap_err();
            assert!(
                error.to_string().contains("use a path without them"),
                "{error}"
            );
        }
    }

    #[test]
    fn thousands_of_guests_are_told_apart() {
        let hosts = hosts(6_500);
        let text = known_hosts_text(&hosts);
        let config = config(
            &hosts,
            SshServer::Imgbuild,
            Path::new("/key"),
            Path::new("/known"),
            Duration::from_secs(10),
        )
        .unwrap();
        assert!(client(&config, "g06499").contains("\nport 8499\n"));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known_hosts");
        std::fs::write(&path, text).unwrap();
        let guests = guests(&path).unwrap();
        assert_eq!(guests.len(), 6_500);
        assert_eq!(guests[6_499], hosts[6_499].guest);
    }

    #[test]
    fn ssh_keygen_reads_known_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known_hosts");
        std::fs::write(&path, known_hosts_text(&hosts(3))).unwrap();
        let output = Command::new("ssh-keygen")
            .args(["-F", "g00001", "-l", "-f"])
            .arg(&path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("g00001 ED25519"), "{text}");
    }
}
