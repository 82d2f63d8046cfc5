//! What happens in a throw-away guest once it is ready, beside the supervisor.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;

use tty_init::command::{Command, CommandError};
use tty_init::host;
use tty_init::protocol::Message;

use crate::cli::Failure;
use crate::cli::console::{Input, Left, converse, type_line};
use crate::cli::output::{Verbatim, is_reader_gone};
use crate::control::bridge::Act;
use crate::control::client::{self, Client, ClientError, Next};
use crate::control::types::{ActRequest, Guest, Selection};
use crate::directories::Directories;
use crate::fleet::ssh::Reachable;
use crate::interrupt::Interrupt;
use crate::store::find::find;
use crate::text::printable_bytes;
use crate::units::GuestIndex;

/// How the command's reply is known among others.
const TAG: u32 = 1;

/// What the supervisor tells.
pub(super) enum News {
    /// The fleet is there, and this guest about to start.
    Begun(GuestIndex),
    Ready(Box<Guest>),
}

/// A command, or the user, in the guest of a fleet that is launched meanwhile.
pub(super) struct Session {
    pub(super) fleet: String,
    pub(super) directories: Directories,
    pub(super) interrupt: Interrupt,
    /// Empty for a session of the user's.
    pub(super) command: Vec<OsString>,
    pub(super) news: Receiver<News>,
}

impl Session {
    /// Runs the command, and ends the fleet; gives the exit code, which is `None` if
    /// the guest never got ready, or ended before there was one.
    pub(super) fn run(self) -> Result<Option<u8>, Failure> {
        let Ok(News::Begun(guest)) = self.news.recv() else {
            return Ok(None);
        };
        let found = find(Some(&self.fleet), &self.directories)?;
        let client = Client::new(&found.name, &found.paths, &self.interrupt);
        let console = client.console(guest)?;
        let shown = Arc::new(AtomicBool::new(true));
        let follower = {
            let shown = Arc::clone(&shown);
            thread::spawn(move || follow(console, guest, &shown))
        };
        let Ok(News::Ready(ready)) = self.news.recv() else {
            return Ok(None);
        };
        let code = if ready.ssh.is_some() {
            let reachable = Reachable::find(Some(&self.fleet), &self.directories);
            let ran = reachable.and_then(|fleet| fleet.attached(guest, &self.command));
            ran.map(Some).map_err(Failure::from)
        } else {
            shown.store(false, Ordering::Relaxed);
            self.by_console(&client, guest)
        };
        // What the kernel says of the end is news only if the guest began it.
        shown.store(false, Ordering::Relaxed);
        let all = ActRequest {
            guests: Selection::All,
            grace_seconds: None,
        };
        match client.act(Act::Stop, &all) {
            // It powered off by itself.
            Ok(_) | Err(ClientError::Ended { .. } | ClientError::NotSupervised { .. }) => {}
            Err(error) => tracing::debug!("{}: {error}", self.fleet),
        }
        follower.join().expect("a follower does not panic");
        code
    }

    /// The same on the console, for a guest without SSH.
    fn by_console(&self, client: &Client, guest: GuestIndex) -> Result<Option<u8>, Failure> {
        let console = client.console(guest)?;
        if self.command.is_empty() {
            let left = converse(client, guest, console, Verbatim::new(), Input::Typed)?;
            return Ok(Some(match left {
                Left::Done => 0,
                Left::Silent => 1,
                Left::Ended => return Ok(None),
            }));
        }
        let line = self.command.join(OsStr::new(" "));
        let line = line.to_string_lossy();
        // What init does not know, the image's shell may.
        let shell = match Command::parse(&line) {
            Some(Err(CommandError::Unknown)) => "sh ",
            _ => "",
        };
        type_line(client, guest, &format!("@{TAG} {shell}{line}"))?;
        reply(console)
    }
}

/// Prints the command's reply, and gives its code.
fn reply(mut console: client::Console) -> Result<Option<u8>, Failure> {
    let mut any = false;
    loop {
        let Next::Item(line) = console.next(None)? else {
            return Ok(None);
        };
        let Ok(Message::Reply {
            tag: Some(TAG),
            code,
            mut output,
            more,
            ..
        }) = host::parse(&line)
        else {
            continue;
        };
        any |= !output.is_empty();
        // A reply leaves out the last line's end.
        if any && !more {
            output.push('\n');
        }
        let mut stdout = io::stdout().lock();
        let printed = stdout.write_all(output.as_bytes());
        match printed.and_then(|()| stdout.flush()) {
            Err(error) if !is_reader_gone(&error) => return Err(error.into()),
            _ => {}
        }
        if !more {
            return Ok(Some(code));
        }
    }
}

/// Reports what the guest writes on its console besides messages, while it is to be
/// shown.
fn follow(mut console: client::Console, guest: GuestIndex, shown: &AtomicBool) {
    while let Ok(Next::Item(line)) = console.next(None) {
        let text = printable_bytes(&line);
        if shown.load(Ordering::Relaxed) && host::parse(&line).is_err() && !text.is_empty() {
            tracing::info!("{guest}: {text}");
        }
    }
}
