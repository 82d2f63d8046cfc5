//! The guest's two phases, and the loop that serves its console.

use rustix::event::PollFlags;
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountFlags;
use rustix::process::WaitOptions;
use rustix::system::{RebootCommand, reboot};
use tty_init::command::{Command, CommandError, HELP, Request};
use tty_init::host_key;
use tty_init::identity::Identity;
use tty_init::lines::Lines;
use tty_init::parameters::{Goal, Parameters};
use tty_init::protocol::{DeviceState, IdentityState, NOT_IDENTIFIED};
use tty_init::wall_time::WallTime;
use zeroize::Zeroizing;

use crate::burn::Burn;
use crate::console::{Console, End};
use crate::failure::{Context, Failure};
use crate::image_server::ImageServer;
use crate::job::Job;
use crate::prepared::Prepared;
use crate::server::{Port, Server};
use crate::session::Terms;
use crate::status::{Found, Phase, write_report};
use crate::sys::signal::{Signal, Signals};
use crate::sys::{clock, shared};
use crate::text::Text;
use crate::userland::{self, Program};
use crate::wait::Waiting;
use crate::{console, disk, identify};

/// How long a client may take to log in, where the identity does not say.
const LOGIN_MS: u64 = 10_000;

/// The x86 kernel's `COMMAND_LINE_SIZE`.
const CMDLINE_MAX: usize = 2048;

/// The guest.
pub(crate) struct Guest {
    pub console: Console,
    parameters: Parameters,
    burn: Burn,
    phase: Phase,
    /// What was done before the identity was known. Its files stay open: to close
    /// them would be work for every clone.
    prepared: Option<Prepared>,
    ssh: Option<Server>,
    /// The image's SSH server, in place of that.
    image_server: Option<ImageServer>,
    /// The command of the console that runs.
    job: Option<Job>,
    /// What the recipe has it run, once it runs.
    program: Option<Program>,
    is_ready: bool,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Serve,
    End(End),
}

impl Guest {
    /// Brings the guest into phase `parked`: mounts, console, parameters.
    pub(crate) fn park() -> Self {
        let shared = shared::share().context("shared memory");
        let mounted = [
            (c"devtmpfs", c"/dev", "mount /dev"),
            (c"proc", c"/proc", "mount /proc"),
            (c"sysfs", c"/sys", "mount /sys"),
        ]
        .map(|(kind, target, what)| {
            rustix::mount::mount(kind, target, kind, MountFlags::empty(), None).context(what)
        });
        let mut console = Console::open();
        for failure in mounted.into_iter().chain([shared]).filter_map(Result::err) {
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
            phase: Phase::Parked,
            prepared: None,
            ssh: None,
            image_server: None,
            job: None,
            program: None,
            is_ready: false,
        }
    }

    /// Runs the guest until somebody ends it.
    pub(crate) fn run(&mut self) -> Result<End, Failure> {
        let signals = Signals::open().context("signalfd")?;
        match self.parameters.goal {
            Goal::Ready => self.identify(),
            Goal::Poised => self.poise(),
            Goal::Parked => {}
        }
        let mut lines = Lines::new();
        loop {
            let mut next = self.wait(&signals)?;
            let mut buffer = [0; 256];
            for &byte in self.console.receive(&mut buffer) {
                let request = match lines.push(byte) {
                    None => None,
                    Some(Ok(line)) => Request::parse(line),
                    Some(Err(_)) => Some(Request::untagged(CommandError::TooLong)),
                };
                if let Some(request) = request
                    && next == Next::Serve
                {
                    next = self.obey(request);
                }
            }
            if let Next::End(end) = next {
                return Ok(end);
            }
        }
    }

    /// Sleeps until there is something to do, and does what is not a command.
    fn wait(&mut self, signals: &Signals) -> Result<Next, Failure> {
        let (tty, events) = self.console.waits_for();
        let (listener, patience) = self.ssh.as_ref().map_or((None, None), Server::waits_for);
        let image_server = self.image_server.as_ref();
        let (served, due) = image_server.map_or((None, None), ImageServer::waits_for);
        let job = self.job.as_ref();
        let output = job
            .and_then(Job::output)
            .filter(|_| self.console.has_room());
        let limit = [patience, due, job.map(Job::left_ms)]
            .into_iter()
            .flatten()
            .min();

        let mut waiting = Waiting::new(signals.fd().as_fd(), PollFlags::IN);
        let tty = waiting.and(tty, events);
        let listener = waiting.and(listener, PollFlags::IN);
        let output = waiting.and(output, PollFlags::IN);
        let said = self.program.as_ref().and_then(Program::output);
        let said = waiting.and(said, PollFlags::IN);
        let served = waiting.and(served, PollFlags::IN);
        waiting.wait(limit)?;
        let [signal, tty, listener, output, said, served] =
            [Some(0), tty, listener, output, said, served].map(|place| waiting.ready(place));

        let mut next = Next::Serve;
        if !signal.is_empty() {
            while let Some(signal) = signals.next() {
                if let Next::End(end) = self.take(signal) {
                    next = Next::End(end);
                }
            }
        }
        if tty.contains(PollFlags::OUT) {
            self.console.flush();
        }
        if tty.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            self.console.hang_up();
        }
        if !listener.is_empty()
            && let (Some(ssh), Some(found)) = (&mut self.ssh, self.phase.found())
            && let Err(failure) = ssh.accept(found)
        {
            self.console.log(format_args!("ssh: {failure}"));
        }
        if let Some(job) = &mut self.job
            && job.go_on(!output.is_empty(), &mut self.console)
        {
            self.job = None;
        }
        if let Some(program) = &mut self.program {
            program.go_on(!said.is_empty(), &mut self.console);
        }
        if let (Some(server), Phase::Ready(found)) = (&mut self.image_server, &mut self.phase) {
            server.go_on(!served.is_empty(), &mut self.console);
            found.ssh = server.state();
            self.announce();
        }
        Ok(next)
    }

    fn take(&mut self, signal: Signal) -> Next {
        match signal {
            Signal::Child => self.reap(),
            Signal::Burn => {
                if let Err(failure) = self.burn.obey() {
                    self.console.log(format_args!("{failure}"));
                }
                self.report_burn();
            }
            Signal::PowerOff => return Next::End(End::PowerOff),
            Signal::Reboot => return Next::End(End::Reboot),
        }
        Next::Serve
    }

    /// Takes the ends of all children that ended: PID 1 inherits every orphan.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let code = status.exit_status().and_then(|code| code.try_into().ok());
            if let Some(ssh) = &mut self.ssh {
                ssh.ended(pid);
            }
            if let Some(job) = &mut self.job {
                job.ended(pid, code.unwrap_or(1));
            }
            if let Some(program) = &mut self.program {
                program.ended(pid, status);
            }
            if let Some(server) = &mut self.image_server {
                server.ended(pid, status, &mut self.console);
            }
        }
    }

    /// Brings the guest into phase `poised`: a clone has but to take its identity.
    fn poise(&mut self) {
        let prepared = Prepared::new(&self.parameters, &mut self.console);
        prepared.poise(&mut self.console);
        self.prepared = Some(prepared);
        self.phase = Phase::Poised;
        self.console.poised();
    }

    /// Sets the time of day, if the host told it.
    fn set_clock(&mut self, time: Option<WallTime>) {
        if let Some(WallTime(now)) = time
            && let Err(failure) = clock::set_realtime(now).context("clock_settime")
        {
            self.console.log(format_args!("{failure}"));
        }
    }

    /// Takes the identity, sets up the devices, starts the burn and opens SSH.
    fn identify(&mut self) {
        let prepared = self
            .prepared
            .get_or_insert_with(|| Prepared::new(&self.parameters, &mut self.console));
        let (identity, state) = identify::take(&prepared.sources, &mut self.console);
        let net = (prepared.interfaces).set_up(identity.as_ref(), &mut self.console);
        let port = prepared.port.take();
        let disk = disk::mount(self.parameters.root_on_disk, &mut self.console);
        if self.parameters.root_on_disk {
            userland::furnish(&mut self.console);
        }
        if let Err(failure) = self.burn.set(self.parameters.burn) {
            self.console.log(format_args!("{failure}"));
        }
        let usable = identity.filter(|_| state == IdentityState::Applied && net == DeviceState::Up);
        let ssh = self.open_ssh(usable.as_ref(), port);
        self.phase = Phase::Ready(Found {
            identity: state,
            disk,
            net,
            ssh,
        });
        self.announce();
    }

    /// Says that the guest is ready, and starts the recipe's program; once, and not
    /// before the image's SSH server had its time to answer.
    fn announce(&mut self) {
        let is_early = (self.image_server.as_ref()).is_some_and(ImageServer::is_coming);
        let found = self.phase.found();
        let Some(found) = found.filter(|_| !self.is_ready && !is_early) else {
            return;
        };
        self.is_ready = true;
        self.console.ready(found.status());
        let command = (self.prepared.as_mut()).and_then(|prepared| prepared.command.take());
        self.program = command.and_then(|command| {
            let started = command.start();
            started
                .inspect_err(|failure| self.console.log(format_args!("command: {failure}")))
                .ok()
        });
    }

    /// Opens SSH, if the identity lets somebody in.
    fn open_ssh(
        &mut self,
        identity: Option<&Identity>,
        port: Option<Result<Port, Failure>>,
    ) -> DeviceState {
        // A network that is up has an address.
        let Some((identity, authorized_key, address)) = identity
            .and_then(|identity| Some((identity, identity.authorized_key?, identity.address?)))
        else {
            return DeviceState::Absent;
        };
        let login_ms = match identity.login_deadline_ms {
            0 => LOGIN_MS,
            deadline => deadline.into(),
        };
        if self.parameters.image_serves_ssh {
            let host_key = host_key::secret(&identity.host_key_seed);
            let console = &mut self.console;
            let opened =
                ImageServer::open(&host_key, &authorized_key, address.ip, login_ms, console);
            return match opened {
                Ok(server) => {
                    let state = server.state();
                    self.image_server = Some(server);
                    state
                }
                Err(failure) => self.ssh_failed(failure),
            };
        }
        let terms = Terms {
            host_key_seed: Zeroizing::new(identity.host_key_seed),
            authorized_key,
            login_ms,
            idle_ms: u64::from(self.parameters.idle_seconds) * 1000,
        };
        match port
            .unwrap_or_else(Port::bind)
            .and_then(|port| Server::open(port, terms))
        {
            Ok(server) => {
                self.ssh = Some(server);
                DeviceState::Up
            }
            Err(failure) => self.ssh_failed(failure),
        }
    }

    fn ssh_failed(&mut self, failure: Failure) -> DeviceState {
        self.console.log(format_args!("ssh: {failure}"));
        DeviceState::Failed
    }

    fn obey(&mut self, request: Request<'_>) -> Next {
        let tag = request.tag;
        let command = match request.command {
            Ok(command) => command,
            Err(error) => {
                self.console.reply(tag, error.code(), error.as_str());
                return Next::Serve;
            }
        };
        match (command, self.phase.found()) {
            (Command::Help, _) => self.console.reply(tag, 0, HELP),
            (Command::Status { json }, _) => self.reply_status(tag, json),
            (Command::Identify(time), None) => {
                if let Phase::Poised = self.phase {
                    begin();
                }
                self.set_clock(time);
                self.identify();
                self.acknowledge(tag);
            }
            (Command::Identify(_), Some(_)) => self.console.reply(tag, 1, "already identified"),
            (Command::Heartbeat, Some(found)) => {
                self.console.heartbeat(found.status());
                self.acknowledge(tag);
            }
            (Command::Burn(duty), Some(_)) => {
                let set = self.burn.set(duty);
                self.report_burn();
                match set {
                    Ok(()) => self.console.reply(tag, 0, ""),
                    Err(failure) => self.reply_failure(tag, failure),
                }
            }
            (Command::Heartbeat | Command::Burn(_), None) => {
                self.console.reply(tag, 1, NOT_IDENTIFIED);
            }
            (Command::Poweroff, _) => {
                self.console.reply(tag, 0, "");
                return Next::End(End::PowerOff);
            }
            (Command::Reboot, _) => {
                self.console.reply(tag, 0, "");
                return Next::End(End::Reboot);
            }
            _ if self.job.is_some() => {
                self.console.reply(tag, 1, "another command is running");
            }
            (command, _) => match Job::start(command, tag, self.phase) {
                Ok(job) => self.job = Some(job),
                Err(failure) => self.reply_failure(tag, failure),
            },
        }
        Next::Serve
    }

    /// Has the host know the duty that somebody set, without being asked.
    fn report_burn(&mut self) {
        if let Some(found) = self.phase.found() {
            self.console.heartbeat(found.status());
        }
    }

    fn reply_failure(&mut self, tag: Option<u32>, failure: Failure) {
        let reason = Text::<128>::new(format_args!("{failure}"));
        self.console.reply(tag, 1, reason.as_str());
    }

    /// Replies to a command whose answer was a message of its own; a tag says
    /// that the sender waits for a reply all the same.
    fn acknowledge(&mut self, tag: Option<u32>) {
        if tag.is_some() {
            self.console.reply(tag, 0, "");
        }
    }

    fn reply_status(&mut self, tag: Option<u32>, json: bool) {
        let mut text = Text::<512>::new(format_args!(""));
        // A report is shorter.
        let _ = write_report(self.phase, json, &mut text);
        self.console.reply(tag, 0, text.as_str());
    }
}

/// Begins the life of a clone: what came before was its template's.
fn begin() {
    clock::begin();
    console::count_anew();
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
