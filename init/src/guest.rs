//! The guest's two phases, and the loop that serves its console.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::process::WaitOptions;
use rustix::system::{RebootCommand, reboot};
use tty_init::command::{Command, CommandError, HELP, Request};
use tty_init::lines::Lines;
use tty_init::parameters::Parameters;
use tty_init::protocol::{DeviceState, IdentityState, Status};

use crate::burn::Burn;
use crate::console::{self, Console};
use crate::failure::{Context, Failure};
use crate::sys::{clock, signal};
use crate::text::Text;
use crate::{disk, identify, net};

/// The x86 kernel's `COMMAND_LINE_SIZE`.
const CMDLINE_MAX: usize = 2048;

/// The guest.
pub struct Guest {
    pub console: Console,
    parameters: Parameters,
    burn: Burn,
    /// `None` while parked.
    found: Option<Found>,
}

/// What `identify` found.
struct Found {
    identity: IdentityState,
    disk: DeviceState,
    net: DeviceState,
}

/// Whether the loop goes on after a command.
enum Next {
    Serve,
    PowerOff,
}

impl Guest {
    /// Brings the guest into phase `parked`: mounts, console, parameters.
    pub fn park() -> Self {
        let mounted = [
            (c"devtmpfs", c"/dev", "mount /dev"),
            (c"proc", c"/proc", "mount /proc"),
            (c"sysfs", c"/sys", "mount /sys"),
        ]
        .map(|(kind, target, what)| {
            rustix::mount::mount(kind, target, kind, MountFlags::empty(), None).context(what)
        });
        let mut console = Console::open();
        for failure in mounted.into_iter().filter_map(Result::err) {
            console.log(format_args!("{failure}"));
        }
        // Else the host's Ctrl-Alt-Del would restart the guest under us.
        let _ = reboot(RebootCommand::CadOff);
        let parameters = read_parameters(&mut console);
        console.parked();
        Self {
            console,
            parameters,
            burn: Burn::new(parameters.threads),
            found: None,
        }
    }

    /// Runs the guest until the host powers it off.
    pub fn run(&mut self) -> Result<(), Failure> {
        let children = signal::child_fd().context("signalfd")?;
        if !self.parameters.park {
            self.identify();
        }
        let mut lines = Lines::new();
        loop {
            self.wait(&children)?;
            let mut buffer = [0; 256];
            for &byte in self.console.receive(&mut buffer) {
                let request = match lines.push(byte) {
                    None => None,
                    Some(Ok(line)) => Request::parse(line),
                    Some(Err(_)) => Some(Request::untagged(CommandError::TooLong)),
                };
                if let Some(request) = request
                    && let Next::PowerOff = self.obey(request)
                {
                    return Ok(());
                }
            }
        }
    }

    /// Sleeps until there is something to do, and does what is not a command.
    fn wait(&mut self, children: &OwnedFd) -> Result<(), Failure> {
        let children_poll = PollFd::new(children, PollFlags::IN);
        let mut console_ready = PollFlags::empty();
        let children_ready = if let Some(console_poll) = self.console.poll_fd() {
            let mut fds = [children_poll, console_poll];
            wait_for(&mut fds)?;
            console_ready = fds[1].revents();
            fds[0].revents()
        } else {
            let mut fds = [children_poll];
            wait_for(&mut fds)?;
            fds[0].revents()
        };
        if !children_ready.is_empty() {
            reap(children);
        }
        if console_ready.contains(PollFlags::OUT) {
            self.console.flush();
        }
        if console_ready.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            self.console.hang_up();
        }
        Ok(())
    }

    /// Takes the identity, sets up the devices and starts the burn.
    fn identify(&mut self) {
        let (identity, state) = identify::take(&mut self.console);
        self.found = Some(Found {
            identity: state,
            net: net::set_up(identity.as_ref(), &mut self.console),
            disk: disk::mount(&mut self.console),
        });
        if let Err(failure) = self.burn.set(self.parameters.burn) {
            self.console.log(format_args!("{failure}"));
        }
        if let Some(status) = self.status() {
            self.console.ready(status);
        }
    }

    /// What a guest that is not parked found and does.
    fn status(&self) -> Option<Status> {
        self.found.as_ref().map(|found| Status {
            identity: found.identity,
            disk: found.disk,
            net: found.net,
            burn: self.burn.status(),
        })
    }

    fn obey(&mut self, request: Request) -> Next {
        let tag = request.tag;
        let command = match request.command {
            Ok(command) => command,
            Err(error) => {
                self.console.reply(tag, error.code(), error.as_str());
                return Next::Serve;
            }
        };
        match (command, self.status()) {
            (Command::Help, _) => self.console.reply(tag, 0, HELP),
            (Command::Status, status) => self.reply_status(tag, status),
            (Command::Identify, None) => {
                self.identify();
                self.acknowledge(tag);
            }
            (Command::Identify, Some(_)) => self.console.reply(tag, 1, "already identified"),
            (Command::Heartbeat, Some(status)) => {
                self.console.heartbeat(status);
                self.acknowledge(tag);
            }
            (Command::Burn(duty), Some(_)) => match self.burn.set(duty) {
                Ok(()) => self.console.reply(tag, 0, ""),
                Err(failure) => {
                    let reason = Text::<128>::new(format_args!("{failure}"));
                    self.console.reply(tag, 1, reason.as_str());
                }
            },
            (Command::Heartbeat | Command::Burn(_), None) => {
                self.console.reply(tag, 1, "parked; identify first");
            }
            (Command::Poweroff, _) => {
                self.console.reply(tag, 0, "");
                return Next::PowerOff;
            }
        }
        Next::Serve
    }

    /// Replies to a command whose answer was a message of its own; a tag says
    /// that the sender waits for a reply all the same.
    fn acknowledge(&mut self, tag: Option<u32>) {
        if tag.is_some() {
            self.console.reply(tag, 0, "");
        }
    }

    fn reply_status(&mut self, tag: Option<u32>, status: Option<Status>) {
        let id = console::id();
        let id = id.as_ref().map_or("", |id| id.as_str());
        let uptime = clock::boottime_ms();
        let text = match status {
            Some(status) => Text::<256>::new(format_args!(
                "id={id} phase=ready uptime_ms={uptime} {status}"
            )),
            None => Text::new(format_args!("id={id} phase=parked uptime_ms={uptime}")),
        };
        self.console.reply(tag, 0, text.as_str());
    }
}

fn wait_for(fds: &mut [PollFd<'_>]) -> Result<(), Failure> {
    match poll(fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno).context("poll"),
    }
}

/// Takes the ends of all children that ended: PID 1 inherits every orphan.
fn reap(children: &OwnedFd) {
    // One signal may stand for many children, and the children tell more.
    let mut signal = [0; 128];
    let _ = rustix::io::read(children, &mut signal);
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

fn read_parameters(console: &mut Console) -> Parameters {
    let mut cmdline = [0; CMDLINE_MAX];
    let length = rustix::fs::open(c"/proc/cmdline", OFlags::RDONLY, Mode::empty())
        .and_then(|file| rustix::io::read(file, &mut cmdline))
        .context("/proc/cmdline");
    match length {
        Ok(length) => Parameters::parse(&cmdline[..length], |rejected| {
            console.log(format_args!("kernel command line: {rejected}"));
        }),
        Err(failure) => {
            console.log(format_args!("{failure}"));
            Parameters::default()
        }
    }
}
