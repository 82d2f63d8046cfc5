//! One SSH connection, in a process of its own.

use core::cell::Cell;
use core::fmt;

use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::process::{Pid, Signal, kill_process, setsid};
use rustix::rand::{GetRandomFlags, getrandom};
use tty_init::command::{Command, CommandError};
use tty_init::host_key;
use tty_init::lines::Lines;
use tty_init::ssh::{Front, PACKET_BUFFER, run as block_on};
use zeroize::Zeroizing;
use zssh::{Channel, Transport};

use crate::run::{complain, run};
use crate::shell;
use crate::status::{Found, Phase};
use crate::streams::{Gone, Sink, Streams};
use crate::sys::clock;
use crate::sys::process::exit;
use crate::wait::Waiting;

/// How long a client may take to hang up after its command ended the guest.
const FAREWELL_MS: u64 = 1000;

/// What every connection of this guest is served with.
pub(crate) struct Terms {
    /// What the host key is made from, in each connection's process: a guest that
    /// nobody visits has no need of one.
    pub host_key_seed: Zeroizing<[u8; 32]>,
    /// The ed25519 public key that may log in.
    pub authorized_key: [u8; 32],
    /// How long a client may take to log in and ask for something.
    pub login_ms: u64,
    /// How long it may be silent after that.
    pub idle_ms: u64,
}

/// Serves one connection, and ends the process.
pub(crate) fn serve(socket: &OwnedFd, terms: &Terms, found: Found) -> ! {
    if let Some(signal) = converse(socket, terms, found) {
        let _ = kill_process(Pid::INIT, signal);
    }
    exit(0)
}

/// Talks to the client until one of the two has enough; gives the signal that is to
/// end the guest. Its secrets are overwritten when it returns.
fn converse(socket: &OwnedFd, terms: &Terms, found: Found) -> Option<Signal> {
    let limit = Cell::new(Limit::At(clock::boottime_ms() + terms.login_ms));
    let connection = Connection {
        socket: socket.as_fd(),
        limit: &limit,
        greeted: false,
    };
    let front = Front::new(
        connection,
        random as fn(&mut [u8]),
        &host_key::secret(&terms.host_key_seed),
        terms.authorized_key,
    );
    let mut buffer = [0; PACKET_BUFFER];
    let mut transport = Transport::new(&mut buffer, front);
    let mut end = None;
    // An error is the client's or the time's, and ends the connection.
    while let Ok(channel) = block_on(transport.accept()) {
        // From now on PID 1 takes the process for one that is logged in.
        let _ = setsid();
        limit.set(Limit::Silence(terms.idle_ms));
        let mut client = Client {
            channel,
            socket: socket.as_fd(),
            ended: false,
        };
        let Ok(code) = client.serve(found, &mut end) else {
            break;
        };
        if block_on(client.channel.exit(code.into())).is_err() {
            break;
        }
        if end.is_some() {
            limit.set(Limit::At(clock::boottime_ms() + FAREWELL_MS));
        }
    }
    end
}

fn random(bytes: &mut [u8]) {
    // The pool was seeded before anybody could connect, and of a request this
    // small the kernel gives all (getrandom(2)).
    let filled = getrandom(&mut *bytes, GetRandomFlags::empty());
    assert!(filled == Ok(bytes.len()), "getrandom");
}

/// How long to wait for the client.
#[derive(Clone, Copy)]
enum Limit {
    /// Until this many milliseconds of uptime.
    At(u64),
    /// For this many milliseconds at a time.
    Silence(u64),
}

/// The connection as the SSH crate wants it: every call waits.
struct Connection<'a> {
    socket: BorrowedFd<'a>,
    limit: &'a Cell<Limit>,
    /// Whether anything was sent.
    greeted: bool,
}

/// The client is gone, or took too long.
#[derive(Debug)]
struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lost")
    }
}

impl core::error::Error for Lost {}

impl embedded_io_async::Error for Lost {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ConnectionReset
    }
}

impl Connection<'_> {
    /// Does `call`, waiting for the socket as often as it says that it must.
    fn patiently(
        &self,
        events: PollFlags,
        mut call: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Result<usize, Lost> {
        loop {
            match call(self.socket) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {}
                Err(_) => return Err(Lost),
            }
            let left = match self.limit.get() {
                Limit::At(end) => end.saturating_sub(clock::boottime_ms()),
                Limit::Silence(limit) => limit,
            };
            match Waiting::new(self.socket, events).wait(Some(left)) {
                Ok(true) if left > 0 => {}
                _ => return Err(Lost),
            }
        }
    }
}

impl ErrorType for Connection<'_> {
    type Error = Lost;
}

impl Read for Connection<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Lost> {
        self.patiently(PollFlags::IN, |socket| {
            rustix::io::read(socket, &mut *buffer)
        })
    }
}

impl Write for Connection<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Lost> {
        // The SSH crate writes the end of our identification's line apart, and
        // there are clients that take a segment for a line.
        let flags = if core::mem::replace(&mut self.greeted, true) {
            SendFlags::empty()
        } else {
            SendFlags::MORE
        };
        self.patiently(PollFlags::OUT, |socket| send(socket, bytes, flags))
    }

    async fn flush(&mut self) -> Result<(), Lost> {
        Ok(())
    }
}

type Guard<'s> = Front<Connection<'s>, fn(&mut [u8])>;

/// One request of a client: a command, or the prompt.
struct Client<'t, 'c, 's> {
    channel: Channel<'t, 'c, Guard<'s>>,
    socket: BorrowedFd<'s>,
    /// Whether the client has nothing more to say, or nobody listens any more.
    ended: bool,
}

impl Client<'_, '_, '_> {
    /// Does what the client asks for; gives the exit code, and in `end` the
    /// signal that is to end the guest.
    fn serve(&mut self, found: Found, end: &mut Option<Signal>) -> Result<u8, Gone> {
        match self.channel.request() {
            zssh::Request::Exec(line) => match line.text() {
                Ok(line) => self.obey(line, found, end),
                Err(_) => self.refuse(CommandError::TooLong),
            },
            zssh::Request::Shell if shell::exists() => {
                run(Command::Sh(None), Phase::Ready(found), self)
            }
            zssh::Request::Shell => self.converse(found, end),
        }
    }

    /// Runs one command.
    fn obey(&mut self, line: &str, found: Found, end: &mut Option<Signal>) -> Result<u8, Gone> {
        let command = if shell::exists() {
            Command::parse_beside_shell(line)
        } else {
            Command::parse(line)
        };
        match command {
            Some(Ok(Command::Poweroff)) => {
                *end = Some(Signal::USR2);
                Ok(0)
            }
            Some(Ok(Command::Reboot)) => {
                *end = Some(Signal::TERM);
                Ok(0)
            }
            Some(Ok(command)) => run(command, Phase::Ready(found), self),
            Some(Err(error)) => self.refuse(error),
            None => Ok(0),
        }
    }

    fn refuse(&mut self, error: CommandError) -> Result<u8, Gone> {
        complain(self, &error)?;
        Ok(error.code())
    }

    /// The prompt: one command a line, until the input ends.
    fn converse(&mut self, found: Found, end: &mut Option<Signal>) -> Result<u8, Gone> {
        let mut lines = Lines::new();
        let mut code = 0;
        shell::prompt(self)?;
        while end.is_none() && !self.ended {
            let mut byte = [0];
            if self.input(&mut byte)? == 0 {
                self.output(b"\n")?;
                break;
            }
            // A blank line, too, is answered by the prompt.
            let is_end = byte[0] == b'\n';
            let line = match lines.push(byte[0]) {
                None if is_end => Some(Ok("")),
                None => None,
                Some(Ok(line)) => Some(core::str::from_utf8(line).or(Err(CommandError::NotText))),
                Some(Err(_)) => Some(Err(CommandError::TooLong)),
            };
            let Some(line) = line else { continue };
            code = match line {
                Ok("exit" | "logout") => break,
                Ok("") => code,
                Ok(line) => self.obey(line, found, end)?,
                Err(error) => self.refuse(error)?,
            };
            shell::prompt(self)?;
        }
        Ok(code)
    }
}

impl Streams for Client<'_, '_, '_> {
    fn output(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        block_on(self.channel.write_all_stdout(bytes)).or(Err(Gone))
    }

    fn error(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        block_on(self.channel.write_all_stderr(bytes)).or(Err(Gone))
    }

    fn input(&mut self, buffer: &mut [u8]) -> Result<usize, Gone> {
        if self.ended {
            return Ok(0);
        }
        let wanted = buffer.len();
        let length = block_on(self.channel.read_exact_stdin(buffer)).or(Err(Gone))?;
        self.ended = length < wanted;
        Ok(length)
    }

    fn whole_input(&mut self, sink: &mut Sink<'_>) -> Result<(), Gone> {
        if core::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let mut reader = block_on(self.channel.reader(None)).or(Err(Gone))?;
        while let Some(bytes) = block_on(reader.read()).or(Err(Gone))? {
            if !sink(bytes) {
                break;
            }
        }
        Ok(())
    }

    fn peer(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket)
    }
}
