//! One thread that starts guests, listens to them, starts them again and ends
//! them.
//!
//! Everything arrives as an event of one poll set: console output, what VMMs write
//! to stderr (by inotify), a VMM's end (by pidfd), requests and the user's
//! interrupt. The loop never waits for a single guest and polls nothing. It wakes
//! by itself only at the times that a guest's state machine, or the admission of
//! the next start, asks for.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use tty_init::protocol::Message;

use super::site::Site;
use crate::control::types::Totals;
use crate::fleet::supervisor::news::{SOURCES, news, token};
use crate::guest::admission::Admission;
use crate::guest::counts::Counts;
use crate::guest::{Event, Phase, Policy};
use crate::host::memory::OomKills;
use crate::interrupt::Interrupt;
use crate::store::orphans::Living;
use crate::system::{Doing as _, SystemError};
use crate::units::{Duty, GuestIndex, GuestRange};
use crate::vmm::running::Source;
use errors::Errors;
use jitter::Jitter;
use starts::Starts;
use times::Times;
use turn::Turn;

mod carry_out;
mod errors;
mod hear;
mod jitter;
mod members;
mod news;
mod start;
mod starts;
mod times;
mod turn;

pub(crate) use members::{Member, Members};
pub(crate) use starts::{Outlook, Why};

/// Of the poll set.
const EPOLL: &str = "wait for the guests' events by epoll";

/// How long after a question the supervisor begins to measure a guest's CPU time.
/// That takes some thirty system calls, and nearly all guests have answered by
/// then.
const SILENCE: Duration = Duration::from_secs(1);

/// How often a console is tried that took no connection.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

/// Where a guest lives, or is about to.
const AT_WORK: [Phase; 6] = [
    Phase::Starting,
    Phase::Restoring,
    Phase::Booting,
    Phase::Ready,
    Phase::Unresponsive,
    Phase::Restarting,
];

/// Where a guest is still to come up: one that failed, and is tried again, has not
/// come up either.
pub(crate) const TO_COME: [Phase; 5] = [
    Phase::Planned,
    Phase::Starting,
    Phase::Restoring,
    Phase::Booting,
    Phase::Restarting,
];

/// Where a guest lives and has not come up.
pub(crate) const COMING_UP: [Phase; 3] = [Phase::Starting, Phase::Restoring, Phase::Booting];

/// Most guests started before what others have to say is heard.
const STARTS_A_TURN: usize = 8;

/// How far apart the kernel takes nice values of sessions from users without
/// CAP_SYS_ADMIN: a tenth of a second (kernel/sched/autogroup.c), and a little.
const CLASSIFY_AGAIN: Duration = Duration::from_millis(110);

const INTERRUPT: Token = Token(usize::MAX);
const ERRORS: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);

/// What the supervisor tells its caller, as it happened.
#[derive(Debug)]
pub struct Notice {
    /// The guest.
    pub guest: GuestIndex,
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
    unclassed: VecDeque<GuestIndex>,
    classify_at: Instant,
    /// The fleet's sockets are gone, and its caller does not know yet.
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
    ) -> Result<Self, SystemError> {
        let poll = Poll::new().doing(EPOLL)?;
        let folder = site.folder().errors();
        let errors = Errors::watch(&folder).doing(watching(&folder))?;
        for (fd, token) in [
            (interrupt.as_fd().as_raw_fd(), INTERRUPT),
            (errors.as_raw_fd(), ERRORS),
        ] {
            poll.registry()
                .register(&mut SourceFd(&fd), token, Interest::READABLE)
                .doing(EPOLL)?;
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
            jitter: Jitter::new().doing("read random bytes from the kernel")?,
            interrupt,
        })
    }

    /// Ends a turn when it is woken.
    pub fn waker(&self) -> Result<Waker, SystemError> {
        Waker::new(self.poll.registry(), WAKER).doing("make an eventfd for requests")
    }

    /// Watches the fleet's sockets, this one above all: see
    /// [`Supervisor::lost_sockets`].
    pub fn watch_sockets(&mut self) -> Result<(), SystemError> {
        let control = self.site.folder().control();
        (self.errors.watch_sockets(&control)).doing(watching(&control))
    }

    /// Whether somebody removed or moved them since the last time.
    pub fn lost_sockets(&mut self) -> bool {
        std::mem::take(&mut self.sockets_gone)
    }

    /// What its guests run from and within.
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
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// What happened to guests in all.
    pub fn totals(&self) -> Totals {
        self.members.totals()
    }

    /// How many guests are in each state; states without any are left out.
    pub fn counts(&self) -> &Counts {
        self.members.counts()
    }

    /// How many guests are in one of these states.
    pub fn count(&self, phases: &[Phase]) -> usize {
        self.members.count(phases)
    }

    /// Whether this holds for any guest.
    pub(crate) fn any(&self, holds: fn(&Member) -> bool) -> bool {
        self.members().iter().any(holds)
    }

    /// Why no more guests are started, and for how long.
    pub fn held_back(&self) -> Option<(Why<'_>, Outlook)> {
        self.starts.held_back()
    }

    /// Whether the user wants it to end.
    pub fn interrupted(&self) -> bool {
        self.interrupt.requested()
    }

    /// Whether the first guests, as many as boot at a time, were all given up: so
    /// would the rest be, and none of them is started.
    pub fn is_hopeless(&self) -> bool {
        let failed = self.count(&[Phase::Failed]);
        failed >= self.starts.parallel()
            && failed + self.count(&[Phase::Planned]) == self.members().len()
    }

    /// Gives the site back; guests that live are left alone.
    pub fn into_site(self) -> Site {
        self.site
    }

    /// Notes how a guest fared under another supervisor: how often it was started
    /// again, what it burned, and where it stands, if that was its end.
    pub fn remember(
        &mut self,
        guest: GuestIndex,
        restarts: u32,
        duty: Option<Duty>,
        over: Option<Phase>,
    ) {
        self.members.remember(guest, restarts, duty, over);
    }

    /// Has the fleet's guests be these, which begin as those before did: new ones
    /// are planned and not started, and of the last ones, which do not live,
    /// nothing is known any more.
    pub fn become_these(&mut self, guests: GuestRange) {
        self.members.become_these(guests);
        self.starts.keep(guests);
        self.times.keep(guests);
    }

    /// Has all guests that are planned started as admission lets them.
    pub fn start_planned(&mut self) {
        for guest in self.members.guests().iter() {
            if self.members[guest].guest().phase() == Phase::Planned {
                self.enqueue(guest);
            }
        }
    }

    /// Takes charge of a guest that another supervisor started. A console that takes
    /// nobody for now is connected to later.
    pub fn adopt(&mut self, living: &Living, pidfd: OwnedFd) -> Result<(), SystemError> {
        let guest = living.guest;
        let what = || format!("adopt {guest} (process {})", living.pid);
        let mut running = self.site.adopt(living, pidfd).doing(what())?;
        if let Some(why) = not_connected(self.site.connect_console(guest, &mut running)) {
            tracing::warn!(
                "{guest} (process {}) takes no connection to its console ({why}): trying again",
                living.pid
            );
            self.times.arm(guest, Instant::now() + CONNECT_AGAIN);
        }
        (running.register(self.poll.registry(), |source| token(guest, source))).doing(what())?;
        self.members[guest].runs(running);
        self.notice(guest, Observation::Started);
        self.apply(guest, &Event::Adopted);
        Ok(())
    }

    /// Tells a guest's state machine what the user wants, or what was found.
    pub fn request(&mut self, guest: GuestIndex, event: &Event<'_>) {
        self.apply(guest, event);
        if matches!(event, Event::Restart(_)) {
            self.starts.end_trouble();
            self.starts.look_now();
        }
    }

    /// Types a line on a guest's console; `false` if it has none, or one that takes
    /// no more for now.
    pub fn type_line(&mut self, guest: GuestIndex, line: &str) -> bool {
        self.members[guest].type_line(line)
    }

    /// Has a guest burn, once in each of its lives: as users had it burn in the life
    /// before, or else as its recipe says.
    pub fn burn(&mut self, guest: GuestIndex, recipe: Duty) {
        self.members[guest].burn(recipe);
    }

    /// Has a guest in the CPU class `urgent` until as many
    /// [`Supervisor::leave`]s; one that is not ready is there anyway.
    pub fn attend(&mut self, guest: GuestIndex) {
        self.members[guest].attend();
        self.classify(guest);
    }

    /// See [`Supervisor::attend`].
    pub fn leave(&mut self, guest: GuestIndex) {
        // It may have gone with a smaller number of guests.
        if let Some(member) = self.members.get_mut(guest) {
            member.leave();
        }
        self.classify(guest);
    }

    /// Starts what may be started, waits for news until `until` (for ever
    /// without), and takes it.
    pub fn turn(&mut self, until: Option<Instant>) -> Result<Vec<Notice>, SystemError> {
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
        let mut tokens = news(&mut self.poll, &mut self.events, timeout, most).doing(EPOLL)?;
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

    /// Asks every guest that is ready for a heartbeat.
    pub fn ask_for_heartbeats(&mut self) {
        for member in self.members.iter_mut() {
            member.ask_for_heartbeat();
        }
    }

    /// Has all guests end: by their own `poweroff`, and by force after `grace`.
    pub fn stop_everything(&mut self, grace: Duration) {
        self.starts.clear();
        for guest in self.members.guests().iter() {
            self.apply(guest, &Event::Stop(grace));
        }
    }

    fn notice(&mut self, guest: GuestIndex, what: Observation) {
        self.notices.push(Notice { guest, what });
    }
}

/// What is done of which inotify(7) has limits of its own.
fn watching(path: &Path) -> String {
    format!(
        "watch {} by inotify, within the sysctls fs.inotify.max_user_instances and \
         fs.inotify.max_user_watches",
        path.display()
    )
}

/// Why a console is not connected to, if it is not.
fn not_connected(connected: io::Result<bool>) -> Option<String> {
    match connected {
        Ok(true) => None,
        Ok(false) => Some("its QEMU does not run".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}
