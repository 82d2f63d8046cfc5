//! One thread that starts guests, listens to them and ends them.
//!
//! Everything arrives as an event of one poll set: console output, a VMM's
//! last words, a VMM's end (by pidfd) and the user's interrupt. Nothing here
//! waits for a single guest.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::process::Signal;
use tty_init::host;
use tty_init::protocol::Message;

use super::guest::{Event, Guest, State, printable};
use super::running::{Running, Source};
use crate::interrupt::Interrupt;
use crate::units::GuestIndex;
use crate::vmm::GuestSpec;

/// How long after SIGKILL a process may take to end.
const KILL_WAIT: Duration = Duration::from_secs(10);

const INTERRUPT: Token = Token(usize::MAX);
/// What a guest's poll tokens stand for, in order.
const SOURCES: [Source; 3] = [Source::Console, Source::Vmm, Source::End];

/// What the supervisor is told of a guest before it starts.
#[derive(Debug)]
pub struct Plan {
    /// Its place in the fleet.
    pub index: GuestIndex,
    /// The guest.
    pub spec: GuestSpec,
    /// Where to put its console socket.
    pub console: PathBuf,
    /// The public half of its SSH host key, ed25519.
    pub host_key: [u8; 32],
}

/// A guest of the fleet.
#[derive(Debug)]
pub struct Member {
    plan: Plan,
    guest: Guest,
    running: Option<Running>,
    pid: Option<u32>,
    started: Option<Instant>,
    ready_after: Option<Duration>,
    /// A heartbeat was asked for and has not come.
    asked: bool,
}

/// What the supervisor tells its caller, as it happens.
#[derive(Debug)]
pub enum Observation<'a> {
    /// The guest's state changed.
    State,
    /// The guest sent a message.
    Message(&'a Message<String>),
    /// The guest's console carried text that is no message.
    Text(&'a str),
}

/// How a fleet is started.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Most guests that boot at the same time.
    pub parallel: usize,
    /// How long a guest may take to report ready.
    pub boot_timeout: Duration,
}

/// Starts guests, listens to them, ends them.
#[derive(Debug)]
pub struct Supervisor {
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    /// Guests that boot, in the order of their deadlines.
    deadlines: VecDeque<(Instant, usize)>,
    /// Streams that had more to say than one turn takes.
    unfinished: Vec<Token>,
    pace: Pace,
    next: usize,
    booting: usize,
    interrupt: Interrupt,
}

impl Member {
    /// Its place in the fleet.
    #[must_use]
    pub fn index(&self) -> GuestIndex {
        self.plan.index
    }

    /// Port of the host's loopback that leads to its SSH server.
    #[must_use]
    pub fn ssh_port(&self) -> Option<u16> {
        self.plan.spec.ssh_port
    }

    /// Its state machine.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Process id of its VMM, once started.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Time from its start to its report of being ready.
    #[must_use]
    pub fn ready_after(&self) -> Option<Duration> {
        self.ready_after
    }

    /// Whether it was asked for a heartbeat that has not come.
    #[must_use]
    pub fn owes_an_answer(&self) -> bool {
        self.asked && self.is_ready()
    }

    fn is_ready(&self) -> bool {
        *self.guest.state() == State::Ready
    }

    fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            running.signal(signal);
        }
    }
}

impl Supervisor {
    /// A supervisor of guests yet to be started.
    pub fn new(plans: Vec<Plan>, pace: Pace, interrupt: Interrupt) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(
            &mut SourceFd(&interrupt.as_fd().as_raw_fd()),
            INTERRUPT,
            Interest::READABLE,
        )?;
        let members = plans
            .into_iter()
            .map(|plan| Member {
                plan,
                guest: Guest::default(),
                running: None,
                pid: None,
                started: None,
                ready_after: None,
                asked: false,
            })
            .collect();
        Ok(Self {
            poll,
            events: Events::with_capacity(256),
            members,
            deadlines: VecDeque::new(),
            unfinished: Vec::new(),
            pace,
            next: 0,
            booting: 0,
            interrupt,
        })
    }

    /// The guests, in order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Starts all guests and returns when each is ready or has failed, or when
    /// the user interrupts. Where as many as boot at a time have all failed, so
    /// would the rest, and are not started.
    pub fn start_all(
        &mut self,
        observe: &mut impl FnMut(&Member, Observation<'_>),
    ) -> io::Result<()> {
        loop {
            while self.may_start() {
                self.start(self.next, observe)?;
                self.next += 1;
            }
            if self.booting == 0 || self.interrupt.requested() {
                return Ok(());
            }
            self.turn(self.deadlines.front().map(|(at, _)| *at), observe)?;
        }
    }

    /// Listens until `until` (for ever without), until no guest is left, or
    /// until the user interrupts.
    pub fn hold(
        &mut self,
        until: Option<Instant>,
        observe: &mut impl FnMut(&Member, Observation<'_>),
    ) -> io::Result<()> {
        while self.members.iter().any(|member| member.running.is_some())
            && until.is_none_or(|at| Instant::now() < at)
            && !self.interrupt.requested()
        {
            self.turn(until, observe)?;
        }
        Ok(())
    }

    /// Sends a command to every guest that is ready.
    pub fn tell_all(&mut self, command: &str) {
        for member in self.members.iter_mut().filter(|member| member.is_ready()) {
            if let Some(running) = &mut member.running {
                running.send(command);
            }
        }
    }

    /// Asks every guest that is ready for a heartbeat, and returns when all
    /// have answered, at `until`, or when the user interrupts.
    pub fn ask_all(
        &mut self,
        until: Instant,
        observe: &mut impl FnMut(&Member, Observation<'_>),
    ) -> io::Result<()> {
        for member in &mut self.members {
            member.asked = member.is_ready();
        }
        self.tell_all("heartbeat");
        while self.members.iter().any(Member::owes_an_answer)
            && Instant::now() < until
            && !self.interrupt.requested()
        {
            self.turn(Some(until), observe)?;
        }
        Ok(())
    }

    /// Ends all guests: those that are ready by their own `poweroff`, and what
    /// is left after `grace` by force.
    pub fn stop_all(
        &mut self,
        grace: Duration,
        observe: &mut impl FnMut(&Member, Observation<'_>),
    ) -> io::Result<()> {
        self.next = self.members.len();
        self.tell_all("poweroff");
        for member in self.members.iter().filter(|member| !member.is_ready()) {
            member.signal(Signal::TERM);
        }
        self.wait_for_ends(grace, observe)?;
        for member in &self.members {
            member.signal(Signal::KILL);
        }
        self.wait_for_ends(KILL_WAIT, observe)
    }

    fn wait_for_ends(
        &mut self,
        grace: Duration,
        observe: &mut impl FnMut(&Member, Observation<'_>),
    ) -> io::Result<()> {
        let until = Instant::now() + grace;
        while self.members.iter().any(|member| member.running.is_some()) && Instant::now() < until {
            self.turn(Some(until), observe)?;
        }
        Ok(())
    }

    /// Whether there is a guest to start, and room for it.
    fn may_start(&self) -> bool {
        let mut started = self.members[..self.next].iter();
        let hopeless = self.next >= self.pace.parallel
            && started.all(|member| matches!(member.guest.state(), State::Failed(_)));
        self.next < self.members.len() && self.booting < self.pace.parallel && !hopeless
    }

    fn start(
        &mut self,
        which: usize,
        observe: &mut impl FnMut(&Member, Observation<'_>),
    ) -> io::Result<()> {
        let member = &mut self.members[which];
        let now = Instant::now();
        member.started = Some(now);
        match Running::spawn(&member.plan) {
            Ok(mut running) => {
                running.register(self.poll.registry(), |source| token(which, source))?;
                member.pid = Some(running.pid());
                member.running = Some(running);
                self.booting += 1;
                self.deadlines
                    .push_back((now + self.pace.boot_timeout, which));
                self.apply(which, &Event::Spawned, observe);
            }
            Err(error) => self.apply(which, &Event::SpawnFailed(error.to_string()), observe),
        }
        Ok(())
    }

    /// Waits for events until `until`, and handles what came.
    fn turn(
        &mut self,
        until: Option<Instant>,
        observe: &mut impl FnMut(&Member, Observation<'_>),
    ) -> io::Result<()> {
        let timeout = if self.unfinished.is_empty() {
            until.map(|at| at.saturating_duration_since(Instant::now()))
        } else {
            Some(Duration::ZERO)
        };
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let mut tokens = std::mem::take(&mut self.unfinished);
        tokens.extend(self.events.iter().map(mio::event::Event::token));
        tokens.sort_unstable();
        tokens.dedup();
        for token in tokens {
            if token != INTERRUPT {
                self.handle(token, observe);
            }
        }
        self.expire(observe);
        Ok(())
    }

    fn handle(&mut self, token: Token, observe: &mut impl FnMut(&Member, Observation<'_>)) {
        let (which, source) = untoken(token);
        let Some(running) = &mut self.members[which].running else {
            return;
        };
        if source == Source::End {
            return self.reap(which, observe);
        }
        running.flush();
        let mut lines = Vec::new();
        if running.read(source, &mut lines) {
            self.unfinished.push(token);
        }
        self.take_lines(which, source, &lines, observe);
    }

    /// Fails the guests whose time to boot is over.
    fn expire(&mut self, observe: &mut impl FnMut(&Member, Observation<'_>)) {
        let now = Instant::now();
        while let Some((at, which)) = self.deadlines.front().copied() {
            let booting = *self.members[which].guest.state() == State::Booting;
            if booting && at > now {
                return;
            }
            self.deadlines.pop_front();
            self.apply(which, &Event::Deadline(self.pace.boot_timeout), observe);
        }
    }

    fn take_lines(
        &mut self,
        which: usize,
        source: Source,
        lines: &[Vec<u8>],
        observe: &mut impl FnMut(&Member, Observation<'_>),
    ) {
        for line in lines {
            match (source, host::parse(line)) {
                (Source::Console, Ok(message)) => {
                    self.apply(which, &Event::Message(&message), observe);
                    let member = &mut self.members[which];
                    if matches!(message, Message::Heartbeat { .. }) {
                        member.asked = false;
                    }
                    observe(member, Observation::Message(&message));
                }
                (Source::Console, Err(_)) => {
                    let text = printable(&String::from_utf8_lossy(line));
                    self.apply(which, &Event::Text(&text), observe);
                    observe(&self.members[which], Observation::Text(&text));
                }
                (Source::Vmm | Source::End, _) => {
                    self.apply(
                        which,
                        &Event::VmmText(&printable(&String::from_utf8_lossy(line))),
                        observe,
                    );
                }
            }
        }
    }

    /// Takes the end of a VMM, after the last words still in its streams.
    fn reap(&mut self, which: usize, observe: &mut impl FnMut(&Member, Observation<'_>)) {
        let Some(mut running) = self.members[which].running.take() else {
            return;
        };
        for source in [Source::Console, Source::Vmm] {
            let lines = running.read_rest(source);
            self.take_lines(which, source, &lines, observe);
        }
        let status = running
            .wait()
            .map_or_else(|error| error.to_string(), |status| status.to_string());
        self.apply(which, &Event::Ended(status), observe);
    }

    /// Feeds the state machine, keeps the counters and tells of a change.
    fn apply(
        &mut self,
        which: usize,
        event: &Event<'_>,
        observe: &mut impl FnMut(&Member, Observation<'_>),
    ) {
        let member = &mut self.members[which];
        let was_booting = *member.guest.state() == State::Booting;
        if !member.guest.apply(event) {
            return;
        }
        if was_booting {
            self.booting -= 1;
        }
        match member.guest.state() {
            State::Ready => member.ready_after = member.started.map(|at| at.elapsed()),
            // Nothing more is expected of it, and it holds memory.
            State::Failed(_) => member.signal(Signal::KILL),
            _ => {}
        }
        observe(member, Observation::State);
    }
}

/// The poll token of one of a guest's sources.
fn token(which: usize, source: Source) -> Token {
    Token(which * SOURCES.len() + source as usize)
}

/// What a poll token stands for.
fn untoken(token: Token) -> (usize, Source) {
    (token.0 / SOURCES.len(), SOURCES[token.0 % SOURCES.len()])
}
