//! The client's end of a connection in memory: what the server reads is
//! prepared the moment it asks, so nothing ever waits.

use std::collections::VecDeque;
use std::convert::Infallible;

use chacha20::ChaCha20Legacy;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _, StreamCipherSeek as _};
use ed25519_dalek::{Signer as _, SigningKey};
use embedded_io_async::{ErrorType, Read, Write};
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use sha2::{Digest as _, Sha256};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use crate::server::CLIENT_KEY;

const SERVICE_REQUEST: u8 = 5;
const KEXINIT: u8 = 20;
const NEWKEYS: u8 = 21;
const ECDH_INIT: u8 = 30;
const ECDH_REPLY: u8 = 31;
const USERAUTH_REQUEST: u8 = 50;
const USERAUTH_SUCCESS: u8 = 52;

const CLIENT_ID: &[u8] = b"SSH-2.0-fuzz";
const EPHEMERAL: [u8; 32] = [6; 32];

/// A client that sends these bytes and listens to nothing.
#[derive(Debug)]
pub struct Raw<'a>(pub &'a [u8]);

impl ErrorType for Raw<'_> {
    type Error = Infallible;
}

impl Read for Raw<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let length = buffer.len().min(self.0.len());
        let (now, later) = self.0.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.0 = later;
        Ok(length)
    }
}

impl Write for Raw<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// What a client does once it has keys.
#[derive(Debug)]
pub struct Script<'a> {
    /// Whether it logs in.
    pub logs_in: bool,
    /// Whether it counts packets from 0 again, as OpenSSH's does ("strict KEX").
    pub is_strict: bool,
    packets: &'a [u8],
}

impl<'a> Script<'a> {
    /// Reads a script: a byte of flags, then packets, each behind the two bytes
    /// of its length, which counts no further than the input goes.
    pub fn read(input: &'a [u8]) -> Option<Self> {
        let (flags, packets) = input.split_first()?;
        Some(Self {
            logs_in: flags & 1 != 0,
            is_strict: flags & 2 != 0,
            packets,
        })
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.packets.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (packet, rest) = rest.split_at(length);
        self.packets = rest;
        Some(packet)
    }
}

/// One direction of a connection: the keys of chacha20-poly1305@openssh.com
/// (OpenSSH's PROTOCOL.chacha20poly1305), once there are any.
#[derive(Debug, Default)]
struct Direction {
    keys: Option<[[u8; 32]; 2]>,
    sequence: u32,
}

impl Direction {
    /// A cipher for the next packet.
    fn cipher(&self, key: &[u8; 32]) -> ChaCha20Legacy {
        let nonce = u64::from(self.sequence).to_be_bytes();
        ChaCha20Legacy::new(key.into(), (&nonce).into())
    }

    fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        let head = if self.keys.is_some() { 1 } else { 5 };
        let padding = 4 + (8 - (head + payload.len() + 4) % 8) % 8;
        let length = 1 + payload.len() + padding;
        let mut packet = u32::try_from(length).expect("short").to_be_bytes().to_vec();
        packet.push(u8::try_from(padding).expect("less than 12"));
        packet.extend(payload);
        packet.resize(4 + length, 0);
        if let Some([main, head]) = &self.keys {
            self.cipher(head).apply_keystream(&mut packet[..4]);
            let mut cipher = self.cipher(main);
            let mut key = [0; 32];
            cipher.apply_keystream(&mut key);
            cipher.seek(64);
            cipher.apply_keystream(&mut packet[4..]);
            let tag = Poly1305::new((&key).into()).compute_unpadded(&packet);
            packet.extend(&tag[..]);
        }
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }

    /// Takes a packet off the front, if there is a whole one; gives its payload.
    fn open(&mut self, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
        let mut head: [u8; 4] = *bytes.first_chunk()?;
        if let Some([_, key]) = &self.keys {
            self.cipher(key).apply_keystream(&mut head);
        }
        let end = 4 + u32::from_be_bytes(head) as usize;
        let tag = if self.keys.is_some() { 16 } else { 0 };
        if bytes.len() < end + tag {
            return None;
        }
        let mut packet: Vec<u8> = bytes.drain(..end + tag).collect();
        if let Some([key, _]) = &self.keys {
            let mut cipher = self.cipher(key);
            cipher.seek(64);
            cipher.apply_keystream(&mut packet[4..end]);
        }
        self.sequence = self.sequence.wrapping_add(1);
        let padding = usize::from(packet[4]);
        Some(packet[5..end - padding].to_vec())
    }
}

/// A client that exchanges keys (RFC 8731), and then follows a script.
#[derive(Debug)]
pub struct Client<'a> {
    script: Script<'a>,
    to_server: VecDeque<u8>,
    /// What came and was not looked at.
    from_server: Vec<u8>,
    sends: Direction,
    receives: Direction,
    /// Our KEXINIT, then all that the exchange hash is made of.
    exchange: Vec<u8>,
    secret: Vec<u8>,
    session: [u8; 32],
    state: State,
}

/// How far a client got.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The server's identification.
    Greets,
    /// A message before the keys are in use.
    ExchangesKeys,
    /// The answer to the log-in.
    LogsIn,
    /// Nothing more: the script's packets go out.
    Plays,
}

impl<'a> Client<'a> {
    /// A client that said who it is and what it can do.
    pub fn new(script: Script<'a>) -> Self {
        let mut sends = Direction::default();
        let hello = kexinit(script.is_strict);
        let mut to_server = VecDeque::from([CLIENT_ID, b"\r\n"].concat());
        to_server.extend(sends.seal(&hello));
        Self {
            script,
            to_server,
            from_server: Vec::new(),
            sends,
            receives: Direction::default(),
            exchange: hello,
            secret: Vec::new(),
            session: [0; 32],
            state: State::Greets,
        }
    }

    /// Whether it came to play its script.
    pub fn got_through(&self) -> bool {
        self.state == State::Plays
    }

    fn send(&mut self, payload: &[u8]) {
        let packet = self.sends.seal(payload);
        self.to_server.extend(packet);
    }

    /// Answers what came.
    fn listen(&mut self) {
        if self.state == State::Greets {
            let Some(end) = self.from_server.windows(2).position(|two| two == b"\r\n") else {
                return;
            };
            let mut exchange = Vec::new();
            put(&mut exchange, CLIENT_ID);
            put(&mut exchange, &self.from_server[..end]);
            put(&mut exchange, &self.exchange);
            self.exchange = exchange;
            self.from_server.drain(..end + 2);
            self.state = State::ExchangesKeys;
        }
        while self.state != State::Plays
            && let Some(message) = self.receives.open(&mut self.from_server)
        {
            self.answer(&message);
        }
    }

    fn answer(&mut self, message: &[u8]) {
        match (&self.state, message[0]) {
            (State::ExchangesKeys, KEXINIT) => {
                put(&mut self.exchange, message);
                let mut init = vec![ECDH_INIT];
                put(&mut init, &x25519(EPHEMERAL, X25519_BASEPOINT_BYTES));
                self.send(&init);
            }
            (State::ExchangesKeys, ECDH_REPLY) => {
                let mut rest = &message[1..];
                let (host_key, theirs) = (take(&mut rest), take(&mut rest));
                put(&mut self.exchange, host_key);
                put(
                    &mut self.exchange,
                    &x25519(EPHEMERAL, X25519_BASEPOINT_BYTES),
                );
                put(&mut self.exchange, theirs);
                let shared = x25519(EPHEMERAL, theirs.try_into().expect("32 bytes"));
                self.secret = mpint(&shared);
                self.exchange.extend(&self.secret);
                self.session = Sha256::digest(&self.exchange).into();
                self.send(&[NEWKEYS]);
            }
            (State::ExchangesKeys, NEWKEYS) => self.use_keys(),
            (State::LogsIn, USERAUTH_SUCCESS) => self.state = State::Plays,
            _ => {}
        }
    }

    /// Takes the keys into use (RFC 4253, section 7.2), and asks to log in.
    fn use_keys(&mut self) {
        let key = |letter: u8| {
            let start = [&self.secret[..], &self.session].concat();
            let one = Sha256::digest([&start[..], &[letter], &self.session].concat());
            let two = Sha256::digest([&start[..], &one[..]].concat());
            Some([one.into(), two.into()])
        };
        (self.sends.keys, self.receives.keys) = (key(b'C'), key(b'D'));
        if self.script.is_strict {
            (self.sends.sequence, self.receives.sequence) = (0, 0);
        }
        if !self.script.logs_in {
            self.state = State::Plays;
            return;
        }
        self.state = State::LogsIn;
        let mut service = vec![SERVICE_REQUEST];
        put(&mut service, b"ssh-userauth");
        self.send(&service);
        let login = login(&self.session);
        self.send(&login);
    }
}

impl ErrorType for &mut Client<'_> {
    type Error = Infallible;
}

impl Read for &mut Client<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        if self.to_server.is_empty()
            && self.got_through()
            && let Some(packet) = self.script.next()
        {
            self.send(packet);
        }
        let length = buffer.len().min(self.to_server.len());
        for (place, byte) in buffer.iter_mut().zip(self.to_server.drain(..length)) {
            *place = byte;
        }
        Ok(length)
    }
}

impl Write for &mut Client<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        if !self.got_through() {
            self.from_server.extend(bytes);
            self.listen();
        }
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A client's KEXINIT.
pub fn kexinit(is_strict: bool) -> Vec<u8> {
    let mut message = vec![KEXINIT];
    message.extend([7; 16]);
    let kex: &[u8] = if is_strict {
        b"curve25519-sha256,kex-strict-c-v00@openssh.com"
    } else {
        b"curve25519-sha256"
    };
    let cipher = b"chacha20-poly1305@openssh.com";
    for names in [
        kex,
        b"ssh-ed25519",
        cipher,
        cipher,
        b"",
        b"",
        b"none",
        b"none",
        b"",
        b"",
    ] {
        put(&mut message, names);
    }
    message.extend([0; 5]);
    message
}

/// A request to log in, signed for this session (RFC 4252, section 7).
fn login(session: &[u8; 32]) -> Vec<u8> {
    let key = SigningKey::from_bytes(&CLIENT_KEY);
    let mut public = Vec::new();
    put(&mut public, b"ssh-ed25519");
    put(&mut public, key.verifying_key().as_bytes());
    let mut message = vec![USERAUTH_REQUEST];
    for part in [&b"root"[..], b"ssh-connection", b"publickey"] {
        put(&mut message, part);
    }
    message.push(1);
    put(&mut message, b"ssh-ed25519");
    put(&mut message, &public);
    let mut signed = Vec::new();
    put(&mut signed, session);
    signed.extend(&message);
    let mut signature = Vec::new();
    put(&mut signature, b"ssh-ed25519");
    put(&mut signature, &key.sign(&signed).to_bytes());
    put(&mut message, &signature);
    message
}

/// A packet before there are keys.
pub fn in_clear(payload: &[u8]) -> Vec<u8> {
    Direction::default().seal(payload)
}

/// Appends a string (RFC 4251, section 5).
pub fn put(message: &mut Vec<u8>, string: &[u8]) {
    message.extend(u32::try_from(string.len()).expect("short").to_be_bytes());
    message.extend(string);
}

/// Takes a string off the front.
fn take<'m>(message: &mut &'m [u8]) -> &'m [u8] {
    let (length, rest) = message.split_first_chunk().expect("the server's own");
    let (string, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
    *message = rest;
    string
}

/// A positive number without leading zeros.
fn mpint(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let mut number = bytes[zeros..].to_vec();
    if number.first().is_some_and(|byte| byte & 0x80 != 0) {
        number.insert(0, 0);
    }
    let mut string = Vec::new();
    put(&mut string, &number);
    string
}
