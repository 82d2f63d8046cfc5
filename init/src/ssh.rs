//! The front of the guest's SSH server: who may log in, and what a client may ask
//! for. The crate zssh has the protocol itself (RFC 4251 to 4254).

use core::convert::Infallible;
use core::fmt;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_io_async::{Read, Write};
use rand_core::{TryCryptoRng, TryRng};
use zssh::ed25519_dalek::SigningKey;
use zssh::{AuthMethod, Behavior, PublicKey, SecretKey};

use crate::lines::{COMMAND_MAX, TooLong};

/// Bytes of a connection's packet buffer. A client's first packet, its list of
/// algorithms, has 1 to 2 KiB; a larger buffer means fewer packets for the
/// same data, but every page of it is touched.
pub const PACKET_BUFFER: usize = 16 * 1024;

/// The server's identification (RFC 4253, section 4.2).
const SERVER_ID: &str = "SSH-2.0-imgbuild";

/// One connection's front.
pub struct Front<S, R> {
    stream: S,
    random: Random<R>,
    host_key: SecretKey,
    authorized_key: [u8; 32],
}

impl<S, R> Front<S, R> {
    /// Serves `stream` as the host with this ed25519 secret key, for the client
    /// that has the authorized one; `random` fills a buffer with random bytes.
    pub fn new(stream: S, random: R, host_key: &[u8; 32], authorized_key: [u8; 32]) -> Self {
        Self {
            stream,
            random: Random(random),
            host_key: SecretKey::Ed25519 {
                secret_key: SigningKey::from_bytes(host_key),
            },
            authorized_key,
        }
    }
}

impl<S: Read + Write, R: FnMut(&mut [u8])> Behavior for Front<S, R> {
    type Stream = S;
    type Random = Random<R>;
    type User = ();
    type Command = CommandLine;

    fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    fn random(&mut self) -> &mut Random<R> {
        &mut self.random
    }

    fn host_secret_key(&self) -> &SecretKey {
        &self.host_key
    }

    fn server_id(&self) -> &'static str {
        SERVER_ID
    }

    /// Any user name: a guest has one user.
    fn allow_user(&mut self, _name: &str, method: &AuthMethod) -> Option<()> {
        match method {
            AuthMethod::PublicKey(PublicKey::Ed25519 { public_key })
                if *public_key.as_bytes() == self.authorized_key =>
            {
                Some(())
            }
            _ => None,
        }
    }

    fn allow_shell(&self) -> bool {
        true
    }

    fn parse_command(&mut self, command: &str) -> CommandLine {
        CommandLine::new(command)
    }
}

/// The text of a command, as long as a line on the console may be.
#[derive(Clone)]
pub struct CommandLine {
    bytes: [u8; COMMAND_MAX],
    /// `None` when it does not fit.
    length: Option<usize>,
}

impl CommandLine {
    fn new(command: &str) -> Self {
        let mut bytes = [0; COMMAND_MAX];
        let length = bytes.get_mut(..command.len()).map(|place| {
            place.copy_from_slice(command.as_bytes());
            command.len()
        });
        Self { bytes, length }
    }

    /// The command.
    pub fn text(&self) -> Result<&str, TooLong> {
        let text = &self.bytes[..self.length.ok_or(TooLong)?];
        Ok(core::str::from_utf8(text).unwrap_or_default())
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

/// A function that fills a buffer with random bytes, as the traits want it.
pub struct Random<R>(R);

impl<R: FnMut(&mut [u8])> TryRng for Random<R> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        (self.0)(&mut bytes);
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        (self.0)(&mut bytes);
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        (self.0)(bytes);
        Ok(())
    }
}

impl<R: FnMut(&mut [u8])> TryCryptoRng for Random<R> {}

/// Runs a future whose every wait is a blocking system call.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
