//! `imgbuild console`.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use clap::Args;
use tty_init::host;
use tty_init::protocol::Message;

use super::logs::show;
use super::target::Target;
use super::{Context, Exit, Failure};
use crate::fleet::api::client::{self, Client, ClientError, Next};
use crate::fleet::folder::Paths;
use crate::fleet::logs;
use crate::units::GuestIndex;

/// What a terminal sends for Ctrl-].
const DETACH: char = '\u{1d}';
/// How long a guest may be silent once there is nothing more to type.
const REPLY_TIME: Duration = Duration::from_secs(10);

/// Arguments of `console`.
#[derive(Debug, Args)]
pub struct Console {
    /// The guest, such as g00007
    guest: GuestIndex,

    #[command(flatten)]
    target: Target,

    /// First print so many of its last lines
    #[arg(long, value_name = "N", default_value_t = 0)]
    tail: usize,

    /// Only listen, until interrupted
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
    /// The input ended.
    InputEnded,
}

impl Console {
    pub fn run(self, context: &Context) -> Result<Exit, Failure> {
        let found = self.target.find(context)?;
        let client = context.client(&found.name);
        // Before the tail, so that nothing is missed between.
        let console = client.console(self.guest)?;
        let log = Paths::of(&found.name, &context.directories).log(self.guest);
        if self.tail > 0 {
            for line in logs::tail(&log, self.tail)? {
                show(line.as_bytes())?;
            }
        }
        let (sender, events) = mpsc::channel();
        let interactive = io::stdin().is_terminal();
        if !self.follow {
            if interactive {
                tracing::info!("{}: Ctrl-] and Enter leave its console", self.guest);
            }
            let sender = sender.clone();
            thread::spawn(move || type_input(&client, self.guest, &sender));
        }
        thread::spawn(move || listen(console, &sender));

        let mut owed: u64 = 0;
        let mut input_ended = false;
        loop {
            if input_ended && (interactive || owed == 0) {
                return Ok(Exit::Done);
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
                        show(&line)?;
                    }
                    Next::Late | Next::End => {
                        tracing::error!("the console ended with its fleet's supervisor");
                        return Ok(Exit::Failed);
                    }
                },
                Ok(Event::Typing) => owed += 1,
                Ok(Event::Refused(error)) => return Err(error.into()),
                Ok(Event::InputEnded) => input_ended = true,
                Err(_) => {
                    tracing::error!("{} does not answer", self.guest);
                    return Ok(Exit::Failed);
                }
            }
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

/// Sends each line of the input to the guest; one with Ctrl-] ends it.
fn type_input(client: &Client, guest: GuestIndex, events: &Sender<Event>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if line.contains(DETACH) {
            break;
        }
        // A guest says nothing to an empty line.
        if line.trim().is_empty() {
            continue;
        }
        if events.send(Event::Typing).is_err() {
            return;
        }
        if let Err(error) = client.type_lines(guest, &line) {
            let _ = events.send(Event::Refused(error));
            return;
        }
    }
    let _ = events.send(Event::InputEnded);
}
