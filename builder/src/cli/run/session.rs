//! What happens in a throw-away guest once it is ready, beside the supervisor.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use tty_init::command::Command;
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

/// What ssh(1) exits with if the connection is lost.
const LOST: u8 = 255;
/// What a shell exits with that SIGHUP, SIGKILL or SIGTERM ended.
const SIGNALLED: [u8; 3] = [128 + 1, 128 + 9, 128 + 15];
/// How long a guest may take to end after the first of its programs: it gives others
/// two seconds, and unmounts its disk.
const SHUTDOWN: Duration = Duration::from_secs(8);

/// What the supervisor tells.
pub(super) enum News {
    /// It listens, and this guest is about to start.
    Begun(GuestIndex),
    Ready(Box<Guest>),
}

/// Who obeys commands in a guest besides its init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Userland {
    /// Nobody.
    None,
    /// The image's shell.
    Image,
}

/// A command, or the user, in the guest of a fleet that is launched meanwhile.
pub(super) struct Session {
    pub(super) fleet: String,
    pub(super) directories: Directories,
    /// The user's.
    pub(super) interrupt: Interrupt,
    /// Ends the fleet, and is raised once that is over.
    pub(super) end: Interrupt,
    /// Empty for a session of the user's.
    pub(super) command: Vec<OsString>,
    pub(super) userland: Userland,
    pub(super) news: Receiver<News>,
}

impl Session {
    /// Runs the command, and ends the fleet; gives the exit code, which is `None` if
    /// the guest never got ready, or ended before there was one.
    pub(super) fn run(self) -> Result<Option<u8>, Failure> {
        let Ok(News::Begun(guest)) = self.news.recv() else {
            return Ok(None);
        };
        let ran = self.attend(guest);
        if ran.is_err() {
            // Nobody else is there who would end it.
            self.end.raise();
        }
        ran
    }

    fn attend(&self, guest: GuestIndex) -> Result<Option<u8>, Failure> {
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
            self.by_ssh(guest)
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
            Err(error) => {
                tracing::debug!("{}: {error}", self.fleet);
                self.end.raise();
            }
        }
        follower.join().expect("a follower does not panic");
        code
    }

    fn by_ssh(&self, guest: GuestIndex) -> Result<Option<u8>, Failure> {
        let fleet = Reachable::find(Some(&self.fleet), &self.directories)?;
        let code = fleet.attached(guest, &self.command, &self.end)?;
        // A guest that powers off ends its programs first.
        let may_end = code == LOST || SIGNALLED.contains(&code);
        let ended = may_end && self.end.wait(SHUTDOWN);
        Ok((!ended).then_some(code))
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
        let line = typed(&line.to_string_lossy(), self.userland);
        type_line(client, guest, &format!("@{TAG} {line}"))?;
        reply(console)
    }
}

/// What has a console do what the SSH server of init does with this command.
fn typed(line: &str, userland: Userland) -> String {
    let command = match userland {
        Userland::None => Command::parse(line),
        Userland::Image => Command::parse_beside_shell(line),
    };
    match command {
        Some(Ok(Command::Sh(Some(command)))) => format!("sh {command}"),
        _ => line.to_owned(),
    }
}

/// Prints the command's reply, and gives its code.
fn reply(mut console: client::Console) -> Result<Option<u8>, Failure> {
    let mut last = None;
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
        last = output.bytes().last().or(last);
        // Init's own words leave out the last line's end, and a program's do not.
        if !more && last.is_some_and(|last| last != b'\n') {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::store::folder::tests::directories;

    #[test]
    fn a_console_gets_commands_as_the_ssh_server_does() {
        for (line, alone, beside_a_shell) in [
            ("status", "status", "status"),
            ("poweroff", "poweroff", "poweroff"),
            ("ls -la /", "ls -la /", "sh ls -la /"),
            ("ps aux", "ps aux", "sh ps aux"),
            ("echo $HOME", "echo $HOME", "sh echo $HOME"),
            ("sh -c id", "sh -c id", "sh sh -c id"),
            ("apt", "apt", "sh apt"),
        ] {
            assert_eq!(typed(line, Userland::None), alone);
            assert_eq!(typed(line, Userland::Image), beside_a_shell);
        }
    }

    #[test]
    fn a_session_that_reaches_no_supervisor_ends_the_fleet() {
        let (_temporary, directories) = directories();
        let (supervisor, news) = mpsc::channel();
        let end = Interrupt::never().unwrap();
        let session = Session {
            fleet: "run-0a1b2c3d".to_owned(),
            directories,
            interrupt: Interrupt::never().unwrap(),
            end: end.clone(),
            command: Vec::new(),
            userland: Userland::None,
            news,
        };
        let guest = GuestIndex::new(0).unwrap();
        supervisor.send(News::Begun(guest)).unwrap();
        assert!(session.run().is_err());
        assert!(end.requested());
    }
}
