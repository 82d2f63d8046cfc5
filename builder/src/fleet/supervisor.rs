//! One thread that starts guests, listens to them, starts them again and ends
//! them.
//!
//! Everything arrives as an event of one poll set: console output, what VMMs
//! write to stderr (by inotify), a VMM's end (by pidfd), requests and the user's
//! interrupt. Nothing here waits for a single guest, and nothing is polled: the
//! only times at which it wakes by itself are those that a guest's state machine
//! or the admission of the next start asks for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::fs::inotify;
use rustix::process::Signal;
use tty_init::host;
use tty_init::protocol::Message;

use super::admission::{self, Admission, Verdict};
use super::cpu::Class;
use super::guest::{Action, End, Event, Guest, Phase, Policy, printable};
use super::identity::random;
use super::orphans::Living;
use super::running::{More, Running, Source};
use super::site::Site;
use crate::host::memory;
use crate::interrupt::Interrupt;
use crate::units::GuestIndex;

/// How long after SIGKILL a process may take to end.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// When to look again whether there is room, where nothing tells that there is.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Most guests started before what others have to say is heard.
const STARTS_A_TURN: usize = 8;

const INTERRUPT: Token = Token(usize::MAX);
const ERRORS: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);
/// What a guest's poll tokens stand for, in order.
const SOURCES: [Source; 2] = [Source::Console, Source::End];

/// A guest of the fleet.
#[derive(Debug)]
pub struct Member {
    index: GuestIndex,
    guest: Guest,
    running: Option<Running>,
    /// A turn of its own is in the heap of times, at this moment or before.
    armed: Option<Instant>,
    /// It waits for admission.
    queued: bool,
    /// A heartbeat was asked for and has not come.
    asked: bool,
    /// It was told to burn since its last start.
    told_to_burn: bool,
    /// It is `urgent` for somebody who asks it.
    attended: u32,
}

/// What the supervisor tells its caller, as it happened.
#[derive(Debug)]
pub struct Notice {
    /// The guest's place among the members.
    pub which: usize,
    /// What happened.
    pub what: Observation,
}

/// What happened to a guest.
#[derive(Debug)]
pub enum Observation {
    /// Its VMM was started, or adopted.
    Started,
    /// Its state changed.
    State(Phase),
    /// Its VMM ended.
    Ended,
    /// It sent a message.
    Message(Message<String>),
    /// Its console carried a line, a message or any text.
    Line(Vec<u8>),
}

/// Starts guests, listens to them, ends them.
#[derive(Debug)]
pub struct Supervisor {
    poll: Poll,
    events: Events,
    /// Before the site: guests on trial are killed before what they use goes.
    members: Vec<Member>,
    site: Site,
    policy: Policy,
    admission: Admission,
    /// Members in each state.
    counts: BTreeMap<Phase, usize>,
    /// Guests that are to be started, in order.
    queue: VecDeque<usize>,
    /// Why the first of them is not started, and whether that is for good as far
    /// as can be seen.
    held: Option<(admission::Hold, bool)>,
    /// When to look again whether it may be; at once without.
    look_again: Option<Instant>,
    /// Times at which guests want a turn, the next first.
    times: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Streams that had more to say than one turn takes, and when to go on.
    unfinished: BTreeMap<Token, Option<Instant>>,
    notices: Vec<Notice>,
    errors: OwnedFd,
    /// OOM kills of this host that have been told of.
    oom_kills: u64,
    jitter: Jitter,
    interrupt: Interrupt,
}

impl Member {
    fn new(index: GuestIndex) -> Self {
        Self {
            index,
            guest: Guest::default(),
            running: None,
            armed: None,
            queued: false,
            asked: false,
            told_to_burn: false,
            attended: 0,
        }
    }

    /// Its place in the fleet.
    #[must_use]
    pub fn index(&self) -> GuestIndex {
        self.index
    }

    /// Its state machine.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Process id of its VMM, while that lives.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    /// Whether its VMM lives.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it was asked for a heartbeat that has not come.
    #[must_use]
    pub fn owes_an_answer(&self) -> bool {
        self.asked && self.is_ready()
    }

    /// Whether it reported ready and answers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.guest.phase() == Phase::Ready
    }
}

impl Supervisor {
    /// A supervisor of `site`'s guests, none of which is to be started yet.
    pub fn new(
        site: Site,
        policy: Policy,
        admission: Admission,
        interrupt: Interrupt,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let errors = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&errors, site.folder().errors(), inotify::WatchFlags::MODIFY)?;
        for (fd, token) in [
            (interrupt.as_fd().as_raw_fd(), INTERRUPT),
            (errors.as_raw_fd(), ERRORS),
        ] {
            poll.registry()
                .register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(256),
            site,
            policy,
            admission,
            members: Vec::new(),
            counts: BTreeMap::new(),
            queue: VecDeque::new(),
            held: None,
            look_again: None,
            times: BinaryHeap::new(),
            unfinished: BTreeMap::new(),
            notices: Vec::new(),
            errors,
            oom_kills: memory::oom_kills(Path::new("/")),
            jitter: Jitter::new()?,
            interrupt,
        })
    }

    /// Ends a turn when it is woken.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKER)
    }

    /// What its guests run from and within.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The same, to change it.
    pub fn site_mut(&mut self) -> &mut Site {
        &mut self.site
    }

    /// How guests are judged and replaced.
    pub fn policy_mut(&mut self) -> &mut Policy {
        &mut self.policy
    }

    /// The guests, in order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many guests are in each state; states without any are left out.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<Phase, usize> {
        &self.counts
    }

    /// How many guests are in one of these states.
    #[must_use]
    pub fn count(&self, phases: &[Phase]) -> usize {
        let of = |phase| self.counts.get(phase).copied().unwrap_or(0);
        phases.iter().map(of).sum()
    }

    /// Guests that wait for admission.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Why no more guests are started, and whether that is for good as far as
    /// can be seen.
    #[must_use]
    pub fn held_back(&self) -> Option<(&admission::Hold, bool)> {
        self.held.as_ref().map(|(why, settled)| (why, *settled))
    }

    /// Whether the user wants it to end.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.interrupt.requested()
    }

    /// Whether the first guests, as many as boot at a time, were all given up: so
    /// would the rest be, and none of them is started.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        let failed = self.count(&[Phase::Failed]);
        failed >= self.admission.parallel()
            && failed + self.count(&[Phase::Planned]) == self.members.len()
    }

    /// Gives the site back; guests that live are left alone.
    #[must_use]
    pub fn into_site(self) -> Site {
        self.site
    }

    /// Notes how a guest fared under another supervisor: how often it was started
    /// again, and where it stands, if that was its end.
    pub fn remember(&mut self, which: usize, restarts: u32, over: Option<Phase>) {
        let before = self.members[which].guest.phase();
        self.members[which].guest.remember(restarts, over);
        self.recount(which, before);
    }

    /// Adds guests, planned and not started.
    pub fn extend(&mut self, guests: impl IntoIterator<Item = GuestIndex>) {
        for index in guests {
            self.members.push(Member::new(index));
            *self.counts.entry(Phase::Planned).or_default() += 1;
        }
    }

    /// Has all guests that are planned started as admission lets them.
    pub fn start_planned(&mut self) {
        for which in 0..self.members.len() {
            if self.members[which].guest.phase() == Phase::Planned {
                self.enqueue(which);
            }
        }
    }

    /// Drops the last members, which do not live, down to `count`.
    pub fn truncate(&mut self, count: usize) {
        for member in self.members.drain(count..) {
            if let Some(counted) = self.counts.get_mut(&member.guest.phase()) {
                *counted -= 1;
            }
        }
        self.queue.retain(|which| *which < count);
        self.times.retain(|Reverse((_, which))| *which < count);
        self.counts.retain(|_, counted| *counted > 0);
    }

    /// Takes charge of a guest that another supervisor started, and told to burn
    /// if it was.
    pub fn adopt(
        &mut self,
        which: usize,
        living: &Living,
        pidfd: OwnedFd,
        told_to_burn: bool,
    ) -> io::Result<()> {
        let mut running = self.site.adopt(living, pidfd)?;
        running.register(self.poll.registry(), |source| token(which, source))?;
        self.members[which].running = Some(running);
        self.members[which].told_to_burn = told_to_burn;
        self.notice(which, Observation::Started);
        self.apply(which, &Event::Adopted);
        Ok(())
    }

    /// Tells a guest's state machine what the user wants, or what was found.
    pub fn wish(&mut self, which: usize, event: &Event<'_>) {
        self.apply(which, event);
    }

    /// Sends a line to a guest's console; `false` if it has none.
    pub fn send(&mut self, which: usize, command: &str) -> bool {
        match &mut self.members[which].running {
            Some(running) => {
                running.send(command);
                true
            }
            None => false,
        }
    }

    /// Tells a guest to burn so much of the time, in percent, once in each of its
    /// lives: users may change it.
    pub fn burn(&mut self, which: usize, duty: u8) {
        if duty > 0 && !self.members[which].told_to_burn {
            self.members[which].told_to_burn = true;
            self.send(which, &format!("burn {duty}"));
        }
    }

    /// Has a guest in the CPU class `urgent` until as many
    /// [`Supervisor::leave`]s; one that is not ready is there anyway.
    pub fn attend(&mut self, which: usize) {
        self.members[which].attended += 1;
        self.classify(which);
    }

    /// See [`Supervisor::attend`].
    pub fn leave(&mut self, which: usize) {
        // It may have gone with a smaller number of guests.
        if let Some(member) = self.members.get_mut(which) {
            member.attended = member.attended.saturating_sub(1);
            self.classify(which);
        }
    }

    /// Starts what may be started, waits for news until `until` (for ever
    /// without), and takes it.
    pub fn turn(&mut self, until: Option<Instant>) -> io::Result<Vec<Notice>> {
        self.start_admitted();
        // Starting takes time, and what it found is news.
        let until = if self.notices.is_empty() {
            until
        } else {
            Some(Instant::now())
        };
        let next = [
            until,
            self.times.peek().map(|Reverse((at, _))| *at),
            self.look_again,
            self.unfinished
                .values()
                .map(|at| at.unwrap_or_else(Instant::now))
                .min(),
        ];
        let next = next.into_iter().flatten().min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let now = Instant::now();
        let mut tokens: Vec<_> = self.events.iter().map(mio::event::Event::token).collect();
        self.unfinished.retain(|token, at| {
            let is_due = at.is_none_or(|at| at <= now);
            if is_due {
                tokens.push(*token);
            }
            !is_due
        });
        tokens.sort_unstable();
        tokens.dedup();
        for token in tokens {
            match token {
                INTERRUPT | WAKER => {}
                ERRORS => self.read_errors(),
                token => self.handle(token, now),
            }
        }
        self.expire(now);
        Ok(std::mem::take(&mut self.notices))
    }

    /// Starts all guests, and returns when each is ready or given up, or when
    /// the user interrupts.
    pub fn start_all(&mut self, observe: &mut dyn FnMut(&Member, &Observation)) -> io::Result<()> {
        self.start_planned();
        let under_way = [
            Phase::Planned,
            Phase::Starting,
            Phase::Booting,
            Phase::Restarting,
        ];
        while self.count(&under_way) > 0 && !self.is_hopeless() && !self.interrupted() {
            self.tell(None, observe)?;
        }
        Ok(())
    }

    /// Listens until `until` (for ever without), until no guest is left, or
    /// until the user interrupts.
    pub fn hold(
        &mut self,
        until: Option<Instant>,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> io::Result<()> {
        while self.members.iter().any(Member::lives)
            && until.is_none_or(|at| Instant::now() < at)
            && !self.interrupted()
        {
            self.tell(until, observe)?;
        }
        Ok(())
    }

    /// Asks every guest that is ready for a heartbeat, and returns when all
    /// have answered, at `until`, or when the user interrupts.
    pub fn ask_all(
        &mut self,
        until: Instant,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> io::Result<()> {
        self.ask_for_heartbeats();
        while self.members.iter().any(Member::owes_an_answer)
            && Instant::now() < until
            && !self.interrupted()
        {
            self.tell(Some(until), observe)?;
        }
        Ok(())
    }

    /// Asks every guest that is ready for a heartbeat.
    pub fn ask_for_heartbeats(&mut self) {
        for which in 0..self.members.len() {
            self.members[which].asked = self.members[which].is_ready();
            if self.members[which].asked {
                self.send(which, "heartbeat");
            }
        }
    }

    /// Has all guests end: by their own `poweroff`, and by force after `grace`.
    pub fn stop_everything(&mut self, grace: Duration) {
        self.queue.clear();
        self.held = None;
        self.look_again = None;
        for which in 0..self.members.len() {
            self.members[which].queued = false;
            self.apply(which, &Event::Stop(grace));
        }
    }

    /// Ends all guests, and returns when they are gone.
    pub fn stop_all(
        &mut self,
        grace: Duration,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> io::Result<()> {
        self.stop_everything(grace);
        let until = Instant::now() + grace + KILL_WAIT;
        while self.members.iter().any(Member::lives) && Instant::now() < until {
            self.tell(Some(until), observe)?;
        }
        Ok(())
    }

    fn tell(
        &mut self,
        until: Option<Instant>,
        observe: &mut dyn FnMut(&Member, &Observation),
    ) -> io::Result<()> {
        for notice in self.turn(until)? {
            observe(&self.members[notice.which], &notice.what);
        }
        Ok(())
    }

    fn notice(&mut self, which: usize, what: Observation) {
        self.notices.push(Notice { which, what });
    }

    fn enqueue(&mut self, which: usize) {
        let member = &mut self.members[which];
        if !member.queued && member.running.is_none() {
            member.queued = true;
            self.queue.push_back(which);
        }
    }

    /// Starts guests in turn, as long as admission lets one more start.
    fn start_admitted(&mut self) {
        let now = Instant::now();
        if self.is_hopeless() {
            self.queue.clear();
        }
        if self.look_again.is_some_and(|again| again > now) {
            return;
        }
        self.look_again = None;
        for _ in 0..STARTS_A_TURN {
            let Some(which) = self.queue.front().copied() else {
                self.held = None;
                return;
            };
            let phase = self.members[which].guest.phase();
            // What was stopped in the meantime, or lives.
            let is_wanted = matches!(phase, Phase::Planned | Phase::Restarting)
                && self.members[which].running.is_none();
            if is_wanted {
                let booting = self.count(&[Phase::Starting, Phase::Booting]);
                let living = booting + self.count(&[Phase::Ready, Phase::Unresponsive]);
                let seen =
                    admission::look(Path::new("/"), self.site.memory_room(), booting, living);
                let now = Instant::now();
                match self.admission.may_start(now, &seen) {
                    Verdict::Start => self.held = None,
                    Verdict::Wait { until, why } => {
                        self.look_again = Some(until);
                        self.held = Some((why, false));
                        return;
                    }
                    Verdict::Full(why) => {
                        self.look_again = Some(now + LOOK_AGAIN);
                        self.held = Some((why, true));
                        return;
                    }
                }
                self.admission.started(now);
            }
            self.queue.pop_front();
            self.members[which].queued = false;
            if is_wanted {
                self.start(which);
            }
        }
    }

    fn start(&mut self, which: usize) {
        self.apply(which, &Event::Start);
        if self.members[which].guest.phase() != Phase::Starting {
            return;
        }
        let index = self.members[which].index;
        let spawned = self.site.spawn(index).and_then(|mut running| {
            match running.register(self.poll.registry(), |source| token(which, source)) {
                Ok(()) => Ok(running),
                Err(error) => {
                    running.kill();
                    Err(error)
                }
            }
        });
        match spawned {
            Ok(running) => {
                self.members[which].running = Some(running);
                self.members[which].told_to_burn = false;
                self.notice(which, Observation::Started);
            }
            Err(error) => self.apply(which, &Event::SpawnFailed(error.to_string())),
        }
    }

    fn handle(&mut self, token: Token, now: Instant) {
        let (which, source) = untoken(token);
        let Some(running) = self
            .members
            .get_mut(which)
            .and_then(|member| member.running.as_mut())
        else {
            return;
        };
        if source == Source::End {
            return self.reap(which);
        }
        running.flush();
        let mut lines = Vec::new();
        match running.read(now, &mut lines) {
            More::Nothing => {}
            More::Now => drop(self.unfinished.insert(token, None)),
            More::Later(at) => drop(self.unfinished.insert(token, Some(at))),
        }
        self.take_lines(which, lines);
    }

    /// Gives their turn to the guests whose time has come.
    fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, which))) = self.times.peek().copied() {
            if at > now {
                return;
            }
            self.times.pop();
            let Some(member) = self.members.get_mut(which) else {
                continue;
            };
            if member.armed == Some(at) {
                member.armed = None;
            }
            if member.guest.due().is_some_and(|due| due <= now) {
                self.apply(which, &Event::Tick);
            }
            self.arm(which);
        }
    }

    /// Notes when the guest wants its next turn.
    fn arm(&mut self, which: usize) {
        let member = &mut self.members[which];
        if let Some(due) = member.guest.due()
            && member.armed.is_none_or(|armed| due < armed)
        {
            member.armed = Some(due);
            self.times.push(Reverse((due, which)));
        }
    }

    fn take_lines(&mut self, which: usize, lines: Vec<Vec<u8>>) {
        if !lines.is_empty() {
            self.apply(which, &Event::Heard);
        }
        for line in lines {
            if let Ok(message) = host::parse(&line) {
                if matches!(message, Message::Heartbeat { .. }) {
                    self.members[which].asked = false;
                }
                self.apply(which, &Event::Message(&message));
                self.notice(which, Observation::Message(message));
            } else {
                let text = printable(&String::from_utf8_lossy(&line));
                self.apply(which, &Event::Text(&text));
            }
            if !line.is_empty() {
                self.notice(which, Observation::Line(line));
            }
        }
    }

    /// Reads what VMMs wrote to stderr.
    fn read_errors(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut names = Vec::new();
        let mut reader = inotify::Reader::new(&self.errors, &mut buffer);
        while let Ok(event) = reader.next() {
            let name = event
                .file_name()
                .map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                names.extend(self.members.iter().map(|member| member.index));
            }
            names.extend(name.and_then(|name| name.to_str()?.parse::<GuestIndex>().ok()));
        }
        names.sort_unstable();
        names.dedup();
        for index in names {
            self.take_errors(index.get() as usize);
        }
    }

    fn take_errors(&mut self, which: usize) {
        let Some(member) = self.members.get_mut(which) else {
            return;
        };
        let path = self.site.folder().error(member.index);
        let Some(running) = &mut member.running else {
            return;
        };
        for line in running.read_errors(&path).unwrap_or_default() {
            let text = printable(&String::from_utf8_lossy(&line));
            self.apply(which, &Event::VmmText(&text));
        }
    }

    /// Takes the end of a VMM, after the last words still in its streams.
    fn reap(&mut self, which: usize) {
        self.take_errors(which);
        let Some(mut running) = self.members[which].running.take() else {
            return;
        };
        let rest = running.read_rest();
        self.take_lines(which, rest);
        let end = running
            .end(|| {
                let kills = memory::oom_kills(Path::new("/"));
                std::mem::replace(&mut self.oom_kills, kills) < kills
            })
            .unwrap_or(End::Unknown);
        for source in SOURCES {
            self.unfinished.remove(&token(which, source));
        }
        drop(running);
        self.site.clear_away(self.members[which].index);
        self.notice(which, Observation::Ended);
        self.apply(which, &Event::Ended(end));
        // Room may have been made for another.
        self.look_again = None;
    }

    /// Feeds the state machine, keeps the counters, does what it asks for and
    /// tells of a change.
    fn apply(&mut self, which: usize, event: &Event<'_>) {
        let now = Instant::now();
        let before = self.members[which].guest.phase();
        let jitter = self.jitter.next();
        let member = &mut self.members[which];
        let actions = member.guest.apply(now, jitter, event, &self.policy);
        let after = member.guest.phase();
        if before != after {
            self.recount(which, before);
            if matches!(before, Phase::Starting | Phase::Booting) {
                // There may be room for another.
                self.look_again = None;
            }
            self.classify(which);
            self.notice(which, Observation::State(after));
        }
        for action in actions {
            self.act(which, action, now);
        }
        self.arm(which);
    }

    /// Counts a guest where it stands now, and not where it stood before.
    fn recount(&mut self, which: usize, before: Phase) {
        if let Some(counted) = self.counts.get_mut(&before) {
            *counted -= 1;
            if *counted == 0 {
                self.counts.remove(&before);
            }
        }
        let after = self.members[which].guest.phase();
        *self.counts.entry(after).or_default() += 1;
    }

    fn act(&mut self, which: usize, action: Action, now: Instant) {
        let Some(running) = &mut self.members[which].running else {
            if action == Action::Spawn {
                self.enqueue(which);
            }
            return;
        };
        match action {
            Action::Spawn => {}
            Action::Ask => {
                running.begin_to_ask(now);
                running.send("heartbeat");
            }
            Action::Measure => {
                let chance = running.chance(now);
                self.apply(which, &Event::Chance(chance));
            }
            Action::PowerOff => running.send("poweroff"),
            Action::Kill => running.signal(Signal::KILL),
        }
    }

    /// Puts a guest into its CPU class: `running` while it is ready and nobody
    /// asks it, else `urgent`.
    fn classify(&mut self, which: usize) {
        let member = &self.members[which];
        let is_quiet = matches!(member.guest.phase(), Phase::Ready | Phase::Unresponsive);
        let class = if is_quiet && member.attended == 0 {
            Class::Running
        } else {
            Class::Urgent
        };
        if let Some(running) = &member.running {
            self.site.classify(class, running.pid());
        }
    }
}

/// Numbers from 0 to 1, so that guests that end together do not all start
/// together: Marsaglia's xorshift64, which is cheap enough for every event.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    fn new() -> io::Result<Self> {
        let mut seed = [0; 8];
        seed.copy_from_slice(&random()?[..8]);
        Ok(Self(u64::from_le_bytes(seed) | 1))
    }

    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from((self.0 >> 32) as u32) / f64::from(u32::MAX)
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
