//! `imgbuild console`.

use std::io::{self, BufRead, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::termios::{OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tty_init::host;
use tty_init::protocol::Message;

use super::output::{self, Verbatim, is_reader_gone};
use super::target::Target;
use super::{Context, Exit, Failure};
use crate::control::client::{self, Client, ClientError, Next};
use crate::control::select;
use crate::store::logs;
use crate::units::GuestIndex;

/// What a terminal sends for Ctrl-].
const DETACH: u8 = 0x1d;
/// How long a guest may be silent once there is nothing more to type.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// How often a line is sent again that the guest has no room for.
const RETRY: Duration = Duration::from_millis(100);

/// Arguments of `console`.
#[derive(Debug, Args)]
pub(super) struct Console {
    /// The guest, such as g00007 or 7
    #[arg(value_parser = select::one)]
    guest: GuestIndex,

    #[command(flatten)]
    target: Target,

    /// First print the last N lines of its log
    #[arg(long, value_name = "N", default_value_t = 0)]
    tail: usize,

    /// Only print its output, until Ctrl-C
    #[arg(long)]
    follow: bool,
}

/// What happens on either side.
enum Event {
    /// The guest's console said a line, or ended.
    Heard(Result<Next<Vec<u8>>, ClientError>),
    /// A command is about to be sent.
    Typing,
    /// It could not be sent.
    Refused(ClientError),
    InputEnded,
    /// Nobody reads the output any more.
    Unread,
}

impl Console {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let found = self.target.find(context)?;
        let client = context.client(&found.name, &found.paths);
        // Before the tail, so that nothing is missed between.
        let console = client.console(self.guest)?;
        let log = found.paths.log(self.guest);
        let mut output = Verbatim::new();
        match output.write(&logs::tail(&log, self.tail)?) {
            Err(error) if is_reader_gone(&error) => return Ok(Exit::Done),
            other => other?,
        }
        let input = if self.follow {
            Input::Unused
        } else {
            Input::Typed
        };
        match converse(&client, self.guest, console, output, input)? {
            Left::Done => Ok(Exit::Done),
            Left::Ended => {
                tracing::error!("the console ended with its fleet's supervisor");
                Ok(Exit::Failed)
            }
            Left::Silent => {
                tracing::error!("{} does not answer", self.guest);
                Ok(Exit::Failed)
            }
        }
    }
}

/// What becomes of stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// It is typed on the console.
    Typed,
    Unused,
}

/// How the user and a console parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The user left, or nothing more is to come.
    Done,
    /// The console ended with its fleet.
    Ended,
    /// The guest owes a reply, and is silent.
    Silent,
}

/// Has the user and a guest talk, until either ends it.
pub(super) fn converse(
    client: &Client,
    guest: GuestIndex,
    console: client::Console,
    mut output: Verbatim,
    input: Input,
) -> Result<Left, Failure> {
    let (sender, events) = mpsc::channel();
    let interactive = io::stdin().is_terminal();
    let typed = input == Input::Typed;
    let _detaching = (interactive && typed).then(Detaching::begin);
    if typed {
        if interactive {
            tracing::info!("{guest}: Ctrl-] leaves its console");
        }
        let (client, sender) = (client.clone(), sender.clone());
        thread::spawn(move || type_input(&client, guest, &sender));
    }
    let reader = sender.clone();
    thread::spawn(move || listen(console, &sender));
    thread::spawn(move || {
        output::wait_until_unread();
        let _ = reader.send(Event::Unread);
    });

    let mut owed: u64 = 0;
    let mut input_ended = false;
    loop {
        if input_ended && (interactive || owed == 0) {
            return Ok(Left::Done);
        }
        let event = if input_ended {
            events.recv_timeout(REPLY_TIME)
        } else {
            events.recv().map_err(RecvTimeoutError::from)
        };
        match event {
            Ok(Event::Heard(line)) => match line? {
                Next::Item(line) => {
                    if let Ok(Message::Reply { more: false, .. }) = host::parse(&line) {
                        owed = owed.saturating_sub(1);
                    }
                    match output.write(&[&line, &b"\n"[..]].concat()) {
                        Err(error) if is_reader_gone(&error) => return Ok(Left::Done),
                        other => other?,
                    }
                }
                Next::Late | Next::End => return Ok(Left::Ended),
            },
            Ok(Event::Typing) => owed += 1,
            Ok(Event::Refused(error)) => return Err(error.into()),
            Ok(Event::InputEnded) => input_ended = true,
            Ok(Event::Unread) => return Ok(Left::Done),
            Err(_) => return Ok(Left::Silent),
        }
    }
}

/// Tells what the console says, until nobody wants it.
fn listen(mut console: client::Console, events: &Sender<Event>) {
    loop {
        let heard = console.next(None);
        let last = !matches!(heard, Ok(Next::Item(_)));
        if events.send(Event::Heard(heard)).is_err() || last {
            return;
        }
    }
}

/// A terminal that hands over Ctrl-] at once instead of with the next Enter, for
/// as long as this lives: to it the key ends a line (termios(3), `VEOL`).
struct Detaching {
    before: Option<Termios>,
}

impl Detaching {
    fn begin() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut terminal = before.clone();
            terminal.special_codes[SpecialCodeIndex::VEOL] = DETACH;
            // Where it is refused, the key works with Enter after it.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &terminal);
        }
        Self { before }
    }
}

impl Drop for Detaching {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// The next line of the input; `None` at its end, and at Ctrl-].
fn next_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let read = input.fill_buf().ok()?;
        let end = read.iter().position(|byte| [b'\n', DETACH].contains(byte));
        let Some(end) = end else {
            let length = read.len();
            line.extend_from_slice(read);
            input.consume(length);
            if length == 0 && line.is_empty() {
                return None;
            } else if length == 0 {
                break;
            }
            continue;
        };
        let is_over = read[end] == DETACH;
        line.extend_from_slice(&read[..end]);
        input.consume(end + 1);
        if is_over {
            return None;
        }
        break;
    }
    Some(String::from_utf8_lossy(&line).into_owned())
}

/// Sends each line of the input to the guest, up to Ctrl-].
fn type_input(client: &Client, guest: GuestIndex, events: &Sender<Event>) {
    let mut input = io::stdin().lock();
    while let Some(line) = next_line(&mut input) {
        // A guest says nothing to an empty line.
        if line.trim().is_empty() {
            continue;
        }
        if events.send(Event::Typing).is_err() {
            return;
        }
        if let Err(error) = type_line(client, guest, &line) {
            let _ = events.send(Event::Refused(error));
            return;
        }
    }
    let _ = events.send(Event::InputEnded);
}

/// Types a line, once the guest has read enough of those before; it has as long
/// for that as for a reply.
pub(super) fn type_line(client: &Client, guest: GuestIndex, line: &str) -> Result<(), ClientError> {
    let until = Instant::now() + REPLY_TIME;
    loop {
        match client.type_lines(guest, line) {
            Err(ClientError::Busy(_)) if Instant::now() < until => thread::sleep(RETRY),
            typed => return typed.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_ends_at_the_key_wherever_it_is_typed() {
        let lines = |input: &[u8]| {
            let mut input = io::BufReader::with_capacity(3, input);
            let mut lines = Vec::new();
            while let Some(line) = next_line(&mut input) {
                lines.push(line);
            }
            lines
        };
        assert_eq!(lines(b"status\nfree"), ["status", "free"]);
        assert_eq!(lines(b"status\n\x1dfree\n"), ["status"]);
        assert_eq!(lines(b"one\nsta\x1dtus\n"), ["one"]);
        assert_eq!(lines(b"\n\xff\n"), ["", "\u{fffd}"]);
        assert!(lines(b"").is_empty() && lines(b"\x1d").is_empty());
    }
}
