//! One thread that starts guests, listens to them, starts them again and ends
//! them.
//!
//! Everything arrives as an event of one poll set: console output, what VMMs
//! write to stderr (by inotify), a VMM's end (by pidfd), requests and the user's
//! interrupt. Nothing here waits for a single guest, and nothing is polled: the
//! only times at which it wakes by itself are those that a guest's state machine
//! or the admission of the next start asks for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use tty_init::host;
use tty_init::protocol::Message;

use super::site::{Site, SpawnError};
use crate::control::types::Totals;
use crate::guest::admission::{self, Admission};
use crate::guest::{Action, Event, Phase, Policy, Trouble};
use crate::host::memory::OomKills;
use crate::interrupt::Interrupt;
use crate::store::orphans::Living;
use crate::text::printable_bytes;
use crate::units::GuestIndex;
use crate::vmm::End;
use crate::vmm::running::{Amount, More, Source, is_out_of_reach};
use errors::Errors;
use jitter::Jitter;
use members::Members;
use starts::Starts;
use times::Times;
use turn::Turn;

mod errors;
mod jitter;
mod members;
mod starts;
mod times;
mod turn;

pub(crate) use members::Member;
pub(crate) use starts::Why;

/// How long after SIGKILL a process may take to end.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// How long after a question what a guest gets of the CPU begins to count, which
/// takes some thirty system calls to see: nearly all have answered by then.
const SILENCE: Duration = Duration::from_secs(1);

/// How often a console is tried that took no connection.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

/// Where a guest lives, or is about to.
const AT_WORK: [Phase; 5] = [
    Phase::Starting,
    Phase::Booting,
    Phase::Ready,
    Phase::Unresponsive,
    Phase::Restarting,
];

/// Most guests started before what others have to say is heard.
const STARTS_A_TURN: usize = 8;

/// How far apart the kernel takes nice values of sessions from users without
/// CAP_SYS_ADMIN: a tenth of a second (kernel/sched/autogroup.c), and a little.
const CLASSIFY_AGAIN: Duration = Duration::from_millis(110);

const INTERRUPT: Token = Token(usize::MAX);
const ERRORS: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);
/// What a guest's poll tokens stand for, in order.
const SOURCES: [Source; 3] = [Source::Console, Source::End, Source::Monitor];

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
    State(Phase),
    Ended,
    /// A start of it came to nothing: where it stands since, and how often it was
    /// started again up to now.
    NotStarted {
        phase: Phase,
        restarts: u32,
    },
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
    members: Members,
    site: Site,
    policy: Policy,
    starts: Starts,
    /// Those that are planned are not started, see [`Supervisor::is_hopeless`].
    gave_up: bool,
    times: Times,
    /// Streams that had more to say than one turn takes, and when to go on.
    unfinished: BTreeMap<Token, Option<Instant>>,
    /// Who is heard first in the next turn.
    first: Token,
    notices: Vec<Notice>,
    errors: Errors,
    /// Guests whose CPU class the kernel did not take, and when to try again.
    unclassed: VecDeque<usize>,
    classify_at: Instant,
    /// The fleet's sockets are gone, and its caller was not told yet.
    sockets_gone: bool,
    oom_kills: OomKills,
    jitter: Jitter,
    interrupt: Interrupt,
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
        let errors = Errors::watch(&site.folder().errors())?;
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
            oom_kills: OomKills::after(site.oom_kills()),
            site,
            policy,
            members: Members::default(),
            starts: Starts::new(admission),
            gave_up: false,
            times: Times::default(),
            unfinished: BTreeMap::new(),
            first: Token(0),
            notices: Vec::new(),
            errors,
            unclassed: VecDeque::new(),
            classify_at: Instant::now(),
            sockets_gone: false,
            jitter: Jitter::new()?,
            interrupt,
        })
    }

    /// Ends a turn when it is woken.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKER)
    }

    /// Watches the fleet's sockets, this one above all: see
    /// [`Supervisor::lost_sockets`].
    pub fn watch_sockets(&mut self) -> io::Result<()> {
        self.errors.watch_sockets(&self.site.folder().control())
    }

    /// Whether somebody removed or moved them since the last time.
    pub fn lost_sockets(&mut self) -> bool {
        std::mem::take(&mut self.sockets_gone)
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
        self.members.all()
    }

    /// What happened to guests in all.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.members.totals()
    }

    /// How many guests are in each state; states without any are left out.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<Phase, usize> {
        self.members.counts()
    }

    /// How many guests are in one of these states.
    #[must_use]
    pub fn count(&self, phases: &[Phase]) -> usize {
        self.members.count(phases)
    }

    /// Why no more guests are started, and whether that is for good as far as
    /// can be seen.
    #[must_use]
    pub fn held_back(&self) -> Option<(Why<'_>, bool)> {
        self.starts.held_back()
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
        failed >= self.starts.parallel()
            && failed + self.count(&[Phase::Planned]) == self.members().len()
    }

    /// Gives the site back; guests that live are left alone.
    #[must_use]
    pub fn into_site(self) -> Site {
        self.site
    }

    /// Notes how a guest fared under another supervisor: how often it was started
    /// again, and where it stands, if that was its end.
    pub fn remember(&mut self, which: usize, restarts: u32, over: Option<Phase>) {
        self.members.remember(which, restarts, over);
    }

    /// Adds guests, planned and not started.
    pub fn extend(&mut self, guests: impl IntoIterator<Item = GuestIndex>) {
        self.members.extend(guests);
    }

    /// Has all guests that are planned started as admission lets them.
    pub fn start_planned(&mut self) {
        for which in 0..self.members().len() {
            if self.members[which].guest().phase() == Phase::Planned {
                self.enqueue(which);
            }
        }
    }

    /// Drops the last members, which do not live, down to `count`.
    pub fn truncate(&mut self, count: usize) {
        self.members.truncate(count);
        self.starts.truncate(count);
        self.times.truncate(count);
    }

    /// Takes charge of a guest that another supervisor started, and told to burn
    /// if it was. A console that takes nobody for now is connected to later.
    pub fn adopt(
        &mut self,
        which: usize,
        living: &Living,
        pidfd: OwnedFd,
        told_to_burn: bool,
    ) -> io::Result<()> {
        let mut running = self.site.adopt(living, pidfd)?;
        if let Some(why) = not_connected(self.site.connect_console(living.guest, &mut running)) {
            tracing::warn!(
                "{} (process {}) takes no connection to its console ({why}): tried again until it \
                 does",
                living.guest,
                living.pid
            );
            self.times.arm(which, Instant::now() + CONNECT_AGAIN);
        }
        running.register(self.poll.registry(), |source| token(which, source))?;
        self.members[which].runs(running, told_to_burn);
        self.notice(which, Observation::Started);
        self.apply(which, &Event::Adopted);
        Ok(())
    }

    /// Tells a guest's state machine what the user wants, or what was found.
    pub fn wish(&mut self, which: usize, event: &Event<'_>) {
        self.apply(which, event);
        if matches!(event, Event::Restart(_)) {
            self.starts.end_trouble();
            self.starts.look_now();
        }
    }

    /// Types a line on a guest's console; `false` if it has none, or one that takes
    /// no more for now.
    pub fn type_line(&mut self, which: usize, line: &str) -> bool {
        self.members[which].type_line(line)
    }

    /// Tells a guest to burn so much of the time, in percent, once in each of its
    /// lives: users may change it.
    pub fn burn(&mut self, which: usize, duty: u8) {
        if duty > 0 {
            self.members[which].burn(duty);
        }
    }

    /// Has a guest in the CPU class `urgent` until as many
    /// [`Supervisor::leave`]s; one that is not ready is there anyway.
    pub fn attend(&mut self, which: usize) {
        self.members[which].attend();
        self.classify(which);
    }

    /// See [`Supervisor::attend`].
    pub fn leave(&mut self, which: usize) {
        // It may have gone with a smaller number of guests.
        if let Some(member) = self.members.get_mut(which) {
            member.leave();
        }
        self.classify(which);
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
            self.times.next(),
            self.starts.look_again(),
            (!self.unclassed.is_empty()).then_some(self.classify_at),
            self.unfinished
                .values()
                .map(|at| at.unwrap_or_else(Instant::now))
                .min(),
        ];
        let next = next.into_iter().flatten().min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        // Once from every source, and as much again, for what comes meanwhile.
        let most = 2 * SOURCES.len() * self.members().len();
        let mut tokens = news(&mut self.poll, &mut self.events, timeout, most)?;
        let now = Instant::now();
        self.unfinished.retain(|token, at| {
            let is_due = at.is_none_or(|at| at <= now);
            if is_due {
                tokens.push(*token);
            }
            !is_due
        });
        let mut turn = Turn::new(tokens, self.first);
        while let Some(token) = turn.next() {
            match token {
                INTERRUPT | WAKER => {}
                ERRORS => self.read_errors(),
                token => turn.took(self.handle(token, now)),
            }
        }
        self.first = turn.put_off().first().copied().unwrap_or(Token(0));
        for token in turn.put_off() {
            self.unfinished.insert(*token, None);
        }
        self.expire(now, &turn.unheard());
        self.classify_again(now);
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
        while self.members().iter().any(Member::lives)
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
        while self.members().iter().any(Member::owes_an_answer)
            && Instant::now() < until
            && !self.interrupted()
        {
            self.tell(Some(until), observe)?;
        }
        Ok(())
    }

    /// Asks every guest that is ready for a heartbeat.
    pub fn ask_for_heartbeats(&mut self) {
        for member in self.members.iter_mut() {
            member.ask_for_heartbeat();
        }
    }

    /// Has all guests end: by their own `poweroff`, and by force after `grace`.
    pub fn stop_everything(&mut self, grace: Duration) {
        self.starts.clear();
        for which in 0..self.members().len() {
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
        while self.members().iter().any(Member::lives) && Instant::now() < until {
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
        if !self.members[which].lives() {
            self.starts.enqueue(which);
        }
    }

    /// Starts guests in turn, as long as admission lets one more start.
    fn start_admitted(&mut self) {
        if self.is_hopeless() {
            if !self.gave_up {
                self.starts.clear();
            }
            self.gave_up = true;
        } else if self.gave_up && self.count(&AT_WORK) > 0 {
            // The user has guests started all the same.
            self.gave_up = false;
            self.start_planned();
        }
        for _ in 0..STARTS_A_TURN {
            let booting = self.count(&[Phase::Starting, Phase::Booting]);
            let Some(which) = self.starts.first(Instant::now(), booting) else {
                return;
            };
            let member = &self.members[which];
            // What was stopped in the meantime, or lives.
            let is_wanted = matches!(member.guest().phase(), Phase::Planned | Phase::Restarting)
                && !member.lives();
            if is_wanted {
                let living = booting + self.count(&[Phase::Ready, Phase::Unresponsive]);
                let seen =
                    admission::look(Path::new("/"), self.site.memory_room(), booting, living);
                if !self.starts.admits(Instant::now(), &seen) {
                    return;
                }
            }
            self.starts.pop();
            if is_wanted {
                self.start(which);
            }
        }
    }

    fn start(&mut self, which: usize) {
        self.apply(which, &Event::Start);
        if self.members[which].guest().phase() != Phase::Starting {
            return;
        }
        let index = self.members[which].index();
        if self.members[which].guest().has_lost_its_own() {
            self.site.replace_port(index);
        }
        let spawned = self.site.spawn(index).and_then(|mut running| {
            match running.register(self.poll.registry(), |source| token(which, source)) {
                Ok(()) => Ok(running),
                Err(error) => {
                    running.kill_and_wait();
                    Err(SpawnError::Process(error))
                }
            }
        });
        match spawned {
            Ok(running) => {
                self.members[which].runs(running, false);
                self.notice(which, Observation::Started);
            }
            Err(error) => self.apply(which, &Event::SpawnFailed(error.reason())),
        }
    }

    /// Takes what a guest has to say, or its end, and gives how much that was.
    fn handle(&mut self, token: Token, now: Instant) -> Amount {
        let (which, source) = untoken(token);
        let Some(running) = self.members.get_mut(which).and_then(Member::running) else {
            return Amount::default();
        };
        match source {
            Source::Console => {}
            Source::End => return self.reap(which),
            Source::Monitor => {
                self.take_answer(which);
                return Amount::default();
            }
        }
        running.flush();
        let mut lines = Vec::new();
        let (amount, more) = running.read(now, &mut lines);
        match more {
            More::Nothing => {}
            More::Now => drop(self.unfinished.insert(token, None)),
            More::Later(at) => drop(self.unfinished.insert(token, Some(at))),
        }
        // A line that does not end is a sign of life as well.
        if amount.bytes > 0 {
            self.apply(which, &Event::Heard);
        }
        self.take_lines(which, lines);
        amount
    }

    /// Asks a guest's VMM how the guest's machine is.
    fn inspect(&mut self, which: usize) {
        let index = self.members[which].index();
        let token = token(which, Source::Monitor);
        let Some(running) = self.members[which].running() else {
            return;
        };
        let asked = self
            .site
            .connect_monitor(index, running.pid())
            .and_then(|monitor| running.inspect(monitor, self.poll.registry(), token));
        // One whose console nobody holds cannot answer, whatever its VMM says.
        let can_answer = running.is_connected();
        if let Err(error) = &asked {
            tracing::debug!("{index}: its monitor cannot be asked: {error}");
        }
        if !can_answer || asked.is_err_and(|error| is_out_of_reach(&error)) {
            self.apply(which, &Event::OutOfReach);
        }
    }

    fn take_answer(&mut self, which: usize) {
        let index = self.members[which].index();
        let Some(running) = self.members[which].running() else {
            return;
        };
        match running.inspected() {
            Ok(Some(machine)) => self.apply(which, &Event::Machine(machine)),
            Ok(None) => {}
            Err(error) => tracing::warn!("{index}: {error}"),
        }
    }

    /// Gives their turn to the guests whose time has come, once they are heard.
    fn expire(&mut self, now: Instant, unheard: &BTreeSet<usize>) {
        let mut put_off = Vec::new();
        while let Some(which) = self.times.take(now) {
            if unheard.contains(&which) {
                put_off.push(which);
                continue;
            }
            self.connect(which, now);
            let Some(member) = self.members.get_mut(which) else {
                continue;
            };
            if member.guest().owes_an_answer()
                && let Some(running) = member.running()
            {
                running.note_silence(now);
            }
            if member.guest().due().is_some_and(|due| due <= now) {
                self.apply(which, &Event::Tick);
            }
            self.arm(which);
        }
        for which in put_off {
            self.times.arm(which, now);
        }
    }

    /// Connects to the console of a guest that took nobody when it was adopted.
    fn connect(&mut self, which: usize, now: Instant) {
        let Some(member) = self.members.get_mut(which) else {
            return;
        };
        let index = member.index();
        let Some(running) = member.running() else {
            return;
        };
        if not_connected(self.site.connect_console(index, running)).is_some() {
            self.times.arm(which, now + CONNECT_AGAIN);
        }
    }

    /// Notes when the guest wants its next turn.
    fn arm(&mut self, which: usize) {
        if let Some(due) = self.members[which].guest().due() {
            self.times.arm(which, due);
        }
    }

    fn take_lines(&mut self, which: usize, lines: Vec<Vec<u8>>) {
        for line in lines {
            if let Ok(message) = host::parse(&line) {
                if matches!(message, Message::Heartbeat { .. }) {
                    self.members[which].answered();
                }
                self.apply(which, &Event::Message(&message));
                self.notice(which, Observation::Message(message));
            } else {
                let text = printable_bytes(&line);
                self.apply(which, &Event::Text(&text));
            }
            if !line.is_empty() {
                self.notice(which, Observation::Line(line));
            }
        }
    }

    /// Reads what VMMs wrote to stderr.
    fn read_errors(&mut self) {
        let written = self.errors.read();
        self.sockets_gone |= written.sockets_gone;
        if written.more {
            self.unfinished.insert(ERRORS, None);
        }
        if written.by_any {
            for which in 0..self.members().len() {
                self.take_errors(which);
            }
            return;
        }
        for index in written.by {
            self.take_errors(index.get() as usize);
        }
    }

    fn take_errors(&mut self, which: usize) {
        let Some(member) = self.members.get_mut(which) else {
            return;
        };
        let path = self.site.folder().error(member.index());
        let Some(running) = member.running() else {
            return;
        };
        for line in running.read_errors(&path).unwrap_or_default() {
            self.take_error(which, &line);
        }
    }

    fn take_error(&mut self, which: usize, line: &[u8]) {
        let text = printable_bytes(line);
        self.apply(which, &Event::VmmText(&text));
    }

    /// Takes the end of a VMM, after the last words still in its streams.
    fn reap(&mut self, which: usize) -> Amount {
        self.take_errors(which);
        let last = self.members[which]
            .running()
            .and_then(|running| running.last_error());
        if let Some(line) = last {
            self.take_error(which, &line);
        }
        let Some(mut running) = self.members[which].ended() else {
            return Amount::default();
        };
        let (amount, rest) = running.read_rest();
        self.take_lines(which, rest);
        let end = running
            .end(|| self.oom_kills.take(self.site.oom_kills()))
            .unwrap_or(End::Unknown);
        for source in SOURCES {
            self.unfinished.remove(&token(which, source));
        }
        drop(running);
        self.site.clear_away(self.members[which].index());
        self.notice(which, Observation::Ended);
        self.apply(which, &Event::Ended(end));
        // Room may have been made for another.
        self.starts.look_now();
        amount
    }

    /// Feeds the state machine, does what it asks for and
    /// tells of a change.
    fn apply(&mut self, which: usize, event: &Event<'_>) {
        let now = Instant::now();
        let before = self.members[which].guest().phase();
        let jitter = self.jitter.next();
        let actions = self.members.apply(which, now, jitter, event, &self.policy);
        if actions.changed {
            if matches!(before, Phase::Starting | Phase::Booting) {
                // There may be room for another.
                self.starts.look_now();
            }
            self.classify(which);
            let after = self.members[which].guest().phase();
            self.notice(which, Observation::State(after));
            self.judge_start(which, before, event);
        }
        for action in actions {
            self.act(which, action, now);
        }
        self.arm(which);
    }

    /// Takes note of a start that came to nothing, or of one that went well.
    fn judge_start(&mut self, which: usize, before: Phase, event: &Event<'_>) {
        let guest = self.members[which].guest();
        if guest.phase() == Phase::Ready {
            // One that answers late again tells nothing of starts.
            if matches!(before, Phase::Starting | Phase::Booting) {
                self.starts.end_trouble();
            }
            return;
        }
        if !before.lives() {
            return;
        }
        let trouble = guest.trouble();
        if let Some(trouble @ Trouble::Short(_)) = trouble {
            let jitter = self.jitter.next();
            self.starts.meet_trouble(Instant::now(), jitter, trouble);
        }
        if trouble.is_some() || matches!(event, Event::SpawnFailed(_)) {
            let (phase, restarts) = (guest.phase(), guest.restarts());
            self.notice(which, Observation::NotStarted { phase, restarts });
        }
    }

    fn act(&mut self, which: usize, action: Action, now: Instant) {
        let Some(running) = self.members[which].running() else {
            if action == Action::Spawn {
                self.enqueue(which);
            }
            return;
        };
        match action {
            Action::Spawn => {}
            Action::Ask => {
                running.ask();
                self.times.arm(which, now + SILENCE);
            }
            Action::Measure => {
                let chance = running.chance(now);
                self.apply(which, &Event::Chance(chance));
            }
            Action::Inspect => self.inspect(which),
            // Where its console takes nothing, force comes after the grace.
            Action::PowerOff => drop(running.send("poweroff")),
            Action::Kill => running.kill(),
        }
    }

    /// Puts a guest into its CPU class.
    fn classify(&mut self, which: usize) {
        // It may have gone with a smaller number of guests.
        let Some(member) = self.members().get(which) else {
            return;
        };
        if let Some(pid) = member.pid()
            && !self.site.classify(member.class(), pid)
            && !self.unclassed.contains(&which)
        {
            self.unclassed.push_back(which);
            self.classify_at = Instant::now() + CLASSIFY_AGAIN;
        }
    }

    /// Puts those into their CPU classes that have waited for it.
    fn classify_again(&mut self, now: Instant) {
        if self.classify_at <= now
            && let Some(which) = self.unclassed.pop_front()
        {
            self.classify_at = now + CLASSIFY_AGAIN;
            self.classify(which);
        }
    }
}

/// Why a console is not connected to, if it is not.
fn not_connected(connected: io::Result<bool>) -> Option<String> {
    match connected {
        Ok(true) => None,
        Ok(false) => Some("its QEMU does not run".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Waits for news, and takes all that are there, so that what was said in time
/// is heard before anybody is judged late; about `most`, where more come all the
/// time.
fn news(
    poll: &mut Poll,
    events: &mut Events,
    mut timeout: Option<Duration>,
    most: usize,
) -> io::Result<Vec<Token>> {
    let mut tokens = Vec::new();
    loop {
        if let Err(error) = poll.poll(events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let before = tokens.len();
        tokens.extend(events.iter().map(mio::event::Event::token));
        if tokens.len() - before < events.capacity() || tokens.len() >= most {
            return Ok(tokens);
        }
        timeout = Some(Duration::ZERO);
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

#[cfg(test)]
mod tests {
    use mio::net::UnixDatagram;

    use super::*;

    #[test]
    fn news_of_many_come_at_once() {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(4);
        let mut pairs: Vec<_> = (0..10).map(|_| UnixDatagram::pair().unwrap()).collect();
        for (which, (one, other)) in pairs.iter_mut().enumerate() {
            let token = Token(which);
            poll.registry()
                .register(other, token, Interest::READABLE)
                .unwrap();
            one.send(b"x").unwrap();
        }
        let mut heard = |most| news(&mut poll, &mut events, Some(Duration::ZERO), most).unwrap();
        let first = heard(5);
        assert_eq!(first.len(), 8);
        let rest = heard(100);
        let mut all: Vec<_> = first.iter().chain(&rest).map(|token| token.0).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert_eq!(heard(100), []);
    }
}
