//! The SSH servers that an image may bring, and the files that they read keys from.

use core::ffi::CStr;
use core::net::Ipv4Addr;

use crate::fields::word;

/// A program that serves SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// sshd(8)
    OpenSsh,
    /// dropbear(8)
    Dropbear,
}

/// Where an image has a server; the first that can run is the one that does.
pub const PROGRAMS: &[(&CStr, Server)] = &[
    (c"/usr/sbin/sshd", Server::OpenSsh),
    (c"/usr/bin/sshd", Server::OpenSsh),
    (c"/usr/sbin/dropbear", Server::Dropbear),
    (c"/usr/bin/dropbear", Server::Dropbear),
];

/// The kind of every key here (RFC 8709).
const ED25519: &[u8] = b"ssh-ed25519";
/// Bytes of the longest file, OpenSSH's of a private key.
const FILE_MAX: usize = 384;

/// The text of a file that holds a key.
pub struct KeyFile {
    bytes: [u8; FILE_MAX],
    length: usize,
}

impl KeyFile {
    /// A line of `authorized_keys` (sshd(8)), which both servers read.
    pub fn authorized(public: &[u8; 32]) -> Self {
        let mut file = Self::new();
        file.put(ED25519);
        file.put(b" ");
        file.base64(&public_key(public));
        file.put(b"\n");
        file
    }

    /// An ed25519 key as `server` reads it.
    pub fn private(server: Server, secret: &[u8; 32], public: &[u8; 32]) -> Self {
        match server {
            Server::OpenSsh => Self::openssh(secret, public),
            Server::Dropbear => Self::dropbear(secret, public),
        }
    }

    /// `openssh-key-v1`, without a passphrase (OpenSSH's PROTOCOL.key).
    fn openssh(secret: &[u8; 32], public: &[u8; 32]) -> Self {
        let mut key = Self::new();
        key.put(b"openssh-key-v1\0");
        key.string(b"none");
        key.string(b"none");
        key.string(b"");
        key.put(&[0, 0, 0, 1]);
        key.string(&public_key(public));
        // What follows has this many bytes. It begins with two numbers that tell
        // whether it was decrypted right, and is filled up to whole blocks of 8.
        key.put(&[0, 0, 0, 136]);
        key.put(&[0; 8]);
        key.string(ED25519);
        key.string(public);
        key.pair(secret, public);
        key.string(b"");
        key.put(&[1, 2, 3, 4, 5]);

        let mut file = Self::new();
        file.put(b"-----BEGIN OPENSSH PRIVATE KEY-----\n");
        file.base64(key.as_bytes());
        file.put(b"\n-----END OPENSSH PRIVATE KEY-----\n");
        file
    }

    /// Dropbear's own format, of 2020.79 and later.
    fn dropbear(secret: &[u8; 32], public: &[u8; 32]) -> Self {
        let mut file = Self::new();
        file.string(ED25519);
        file.pair(secret, public);
        file
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn new() -> Self {
        Self {
            bytes: [0; FILE_MAX],
            length: 0,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            place.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    /// A length of four bytes, and the bytes (RFC 4251, section 5).
    fn string(&mut self, bytes: &[u8]) {
        self.put(&[0, 0, 0, bytes.len().to_le_bytes()[0]]);
        self.put(bytes);
    }

    /// Both halves as one string.
    fn pair(&mut self, secret: &[u8; 32], public: &[u8; 32]) {
        self.put(&[0, 0, 0, 64]);
        self.put(secret);
        self.put(public);
    }

    /// Bytes, three at a time, as four characters (RFC 4648): all keys here are
    /// multiples of three.
    fn base64(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for three in bytes.chunks_exact(3) {
            let mut bits = three
                .iter()
                .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
            let mut digits = [0; 4];
            for digit in digits.iter_mut().rev() {
                *digit = DIGITS[bits % DIGITS.len()];
                bits /= DIGITS.len();
            }
            self.put(&digits);
        }
    }
}

/// A public key as SSH sends it (RFC 8709, section 4).
fn public_key(public: &[u8; 32]) -> [u8; 51] {
    let mut key = *b"\0\0\0\x0bssh-ed25519\0\0\0\x20________________________________";
    key[19..].copy_from_slice(public);
    key
}

/// Whether somebody listens on the port of SSH where clients reach a guest with this
/// address, by the text of /proc/net/tcp (proc_net_tcp(5)): 22 is 0016 there, 0A the
/// state LISTEN, and an address one number of this machine's byte order. A server that
/// listens on all IPv6 addresses says so in /proc/net/tcp6 and takes no IPv4
/// connections there.
pub fn is_listened_on(tcp: &str, address: Ipv4Addr) -> bool {
    let reached = [Ipv4Addr::UNSPECIFIED, address].map(|ip| u32::from_ne_bytes(ip.octets()));
    let is_reached = |local: &str| {
        local
            .strip_suffix(":0016")
            .and_then(|address| u32::from_str_radix(address, 16).ok())
            .is_some_and(|address| reached.contains(&address))
    };
    let mut lines = tcp.split('\n');
    lines.any(|line| word(line, 3) == "0A" && is_reached(word(line, 1)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::Command;
    use std::string::String;

    use super::*;

    /// RFC 8032, section 7.1, test 1.
    const SECRET: [u8; 32] = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c,
        0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae,
        0x7f, 0x60,
    ];
    const PUBLIC: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07,
        0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07,
        0x51, 0x1a,
    ];

    /// What a tool of a server says of the private key in a file of its format.
    fn shown(server: Server, tool: impl Fn(&Path) -> Command) -> String {
        let name = std::format!("imgbuild-key-{server:?}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = KeyFile::private(server, &SECRET, &PUBLIC);
        std::fs::write(&path, file.as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let output = tool(&path).output().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_tools_of_both_servers_read_the_keys() {
        let authorized = KeyFile::authorized(&PUBLIC);
        let public = core::str::from_utf8(authorized.as_bytes()).unwrap();
        let openssh = shown(Server::OpenSsh, |path| {
            let mut command = Command::new("ssh-keygen");
            command.arg("-y").arg("-f").arg(path);
            command
        });
        assert_eq!(openssh.trim_end(), public.trim_end());
        let dropbear = shown(Server::Dropbear, |path| {
            let mut command = Command::new("dropbearkey");
            command.arg("-y").arg("-f").arg(path);
            command
        });
        assert!(dropbear.contains(public.trim_end()), "{dropbear}");
    }

    #[test]
    fn a_listener_is_told_from_connections_other_ports_and_those_out_of_reach() {
        let address = Ipv4Addr::new(10, 0, 2, 15);
        let listens = |tcp: &str| is_listened_on(tcp, address);
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n";
        let line = |rest: &str| std::format!("{head}   0: {rest} 00000000:00000000 00:00000000\n");
        assert!(listens(&line("00000000:0016 00000000:0000 0A")));
        assert!(listens(&line("0F02000A:0016 00000000:0000 0A")));
        for other in [
            "00000000:0017 00000000:0000 0A",
            "0F02000A:0016 0202000A:B2A4 01",
            "00000000:1600 00000000:0000 0A",
            // 127.0.0.1, and an address of no interface that clients know.
            "0100007F:0016 00000000:0000 0A",
            "1002000A:0016 00000000:0000 0A",
        ] {
            assert!(!listens(&line(other)), "{other}");
        }
        for garbled in ["", head, "0A 0A 0A 0A", "\n: : : 0A\n", "0: :0016 x 0A"] {
            assert!(!listens(garbled), "{garbled:?}");
        }
    }
}
