//! The server's side of an SSH key exchange, as far as it is sent in clear.
//!
//! A client small enough to show what no real one does: the cookie and the
//! ephemeral key that a server chose (RFC 4253, section 7.1; RFC 5656,
//! section 4; RFC 8731).

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const KEXINIT: u8 = 20;
const KEX_ECDH_INIT: u8 = 30;
const KEX_ECDH_REPLY: u8 = 31;

/// Most bytes of a packet (RFC 4253, section 6.1).
const PACKET_MAX: usize = 35_000;
/// Our wishes, in KEXINIT's order; no languages.
const WISHES: [&str; 10] = [
    "curve25519-sha256",
    "ssh-ed25519",
    "chacha20-poly1305@openssh.com",
    "chacha20-poly1305@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-256",
    "none",
    "none",
    "",
    "",
];

/// What a server chose for one connection, and who it says it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Random bytes of its KEXINIT.
    pub cookie: [u8; 16],
    /// Its host key, as on the wire.
    pub host_key: Vec<u8>,
    /// The public half of its ephemeral key.
    pub ephemeral: Vec<u8>,
}

/// Exchanges keys with the server at `port` of 127.0.0.1.
pub fn exchange(port: u16) -> io::Result<Exchange> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"SSH-2.0-imgbuild_test\r\n")?;
    let mut server = BufReader::new(stream.try_clone()?);
    let mut version = String::new();
    server.read_line(&mut version)?;
    if !version.starts_with("SSH-2.0-") {
        return Err(io::Error::other(format!("not SSH: {version:?}")));
    }

    // First, since a server may wait for it before it sends its own.
    let mut ours = vec![KEXINIT];
    ours.extend([7; 16]);
    for wish in WISHES {
        put(&mut ours, wish.as_bytes());
    }
    // No packet was sent on a guess; and a reserved number.
    ours.extend([0; 5]);
    send(&mut stream, &ours)?;
    let theirs = receive(&mut server, KEXINIT)?;
    let cookie = *theirs.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;

    // Any point is an answer to a server; this is the curve's base point.
    let mut point = [0; 32];
    point[0] = 9;
    let mut init = vec![KEX_ECDH_INIT];
    put(&mut init, &point);
    send(&mut stream, &init)?;
    let reply = receive(&mut server, KEX_ECDH_REPLY)?;
    let mut rest = reply.as_slice();
    Ok(Exchange {
        cookie,
        host_key: take(&mut rest)?,
        ephemeral: take(&mut rest)?,
    })
}

/// Sends a packet in clear: its length, padding to a multiple of 8 of at least
/// 4 bytes, and no MAC.
fn send(stream: &mut TcpStream, payload: &[u8]) -> io::Result<()> {
    let padding = 4 + (8 - (5 + payload.len() + 4) % 8) % 8;
    let length = 1 + payload.len() + padding;
    let mut packet = u32::try_from(length)
        .map_err(io::Error::other)?
        .to_be_bytes()
        .to_vec();
    packet.push(u8::try_from(padding).map_err(io::Error::other)?);
    packet.extend(payload);
    packet.resize(4 + length, 0);
    stream.write_all(&packet)
}

/// Receives a packet of this kind and returns what is behind the kind's byte.
fn receive(server: &mut BufReader<TcpStream>, kind: u8) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    server.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if !(2..=PACKET_MAX).contains(&length) {
        return Err(io::Error::other(format!("a packet of {length} bytes")));
    }
    let mut packet = vec![0; length];
    server.read_exact(&mut packet)?;
    let padding = usize::from(packet[0]);
    if packet[1] != kind || padding + 2 > length {
        return Err(io::Error::other(format!("message {}", packet[1])));
    }
    Ok(packet[2..length - padding].to_vec())
}

/// Appends a string (RFC 4251, section 5).
fn put(packet: &mut Vec<u8>, string: &[u8]) {
    let length = u32::try_from(string.len()).expect("our strings are short");
    packet.extend(length.to_be_bytes());
    packet.extend(string);
}

/// Takes a string off the front.
fn take(packet: &mut &[u8]) -> io::Result<Vec<u8>> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (length, rest) = packet.split_first_chunk().ok_or_else(short)?;
    let (string, rest) = rest
        .split_at_checked(u32::from_be_bytes(*length) as usize)
        .ok_or_else(short)?;
    *packet = rest;
    Ok(string.to_vec())
}
