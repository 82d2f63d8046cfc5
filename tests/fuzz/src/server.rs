//! The server as a guest runs it: requests are taken and answered, with
//! commands that only say what they were given.

use embedded_io_async::{Read, Write};
use tty_init::command::Command;
use tty_init::lines::Lines;
use tty_init::ssh::{Front, PACKET_BUFFER, run};
use zssh::ed25519_dalek::SigningKey;
use zssh::{Channel, Request, Transport};

/// The secret key that may log in.
pub const CLIENT_KEY: [u8; 32] = [3; 32];
const HOST_KEY: [u8; 32] = [4; 32];

type Random = fn(&mut [u8]);

/// Room for packets, as large as a guest's.
pub fn buffer() -> Vec<u8> {
    vec![0; PACKET_BUFFER]
}

/// The server of one connection.
pub fn transport<S: Read + Write>(buffer: &mut [u8], stream: S) -> Transport<'_, Front<S, Random>> {
    let authorized = SigningKey::from_bytes(&CLIENT_KEY).verifying_key();
    let random: Random = |bytes| bytes.fill(5);
    let front = Front::new(stream, random, &HOST_KEY, authorized.to_bytes());
    Transport::new(buffer, front)
}

/// Serves until the connection ends, as init's `session` does; gives the number
/// of requests.
pub fn serve<S: Read + Write>(transport: &mut Transport<'_, Front<S, Random>>) -> usize {
    let mut requests = 0;
    while let Ok(mut channel) = run(transport.accept()) {
        requests += 1;
        let served = match channel.request() {
            Request::Exec(line) => match line.text() {
                Ok(line) => obey(&mut channel, line),
                Err(_) => run(channel.write_all_stderr(b"line too long\n")).ok(),
            },
            Request::Shell => converse(&mut channel),
        };
        if served.is_none() || run(channel.exit(0)).is_err() {
            break;
        }
    }
    requests
}

/// Does one command; `None` when the client is gone.
fn obey<S: Read + Write>(
    channel: &mut Channel<'_, '_, Front<S, Random>>,
    line: &str,
) -> Option<()> {
    match Command::parse(line) {
        Some(Ok(Command::Cat(_))) => {
            let mut block = [0; 8192];
            loop {
                let length = run(channel.read_exact_stdin(&mut block)).ok()?;
                run(channel.write_all_stdout(&block[..length])).ok()?;
                if length < block.len() {
                    return Some(());
                }
            }
        }
        Some(Ok(Command::Write { text: None, .. })) => {
            let mut reader = run(channel.reader(None)).ok()?;
            while run(reader.read()).ok()?.is_some() {}
            Some(())
        }
        command => run(channel.write_all_stdout(format!("{command:?}").as_bytes())).ok(),
    }
}

/// The prompt: one command a line. Those that take the input end it.
fn converse<S: Read + Write>(channel: &mut Channel<'_, '_, Front<S, Random>>) -> Option<()> {
    let mut lines = Lines::new();
    let mut byte = [0];
    while run(channel.read_exact_stdin(&mut byte)).ok()? == 1 {
        let Some(Ok(line)) = lines.push(byte[0]) else {
            continue;
        };
        let line = String::from_utf8_lossy(line);
        obey(channel, &line)?;
        if matches!(
            Command::parse(&line),
            Some(Ok(Command::Cat(_) | Command::Write { .. }))
        ) {
            break;
        }
        run(channel.write_all_stdout(b"# ")).ok()?;
    }
    Some(())
}
