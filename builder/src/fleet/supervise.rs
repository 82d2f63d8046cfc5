//! A fleet's life under one supervisor: from its first start, or its adoption,
//! to its end.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::ksmd::Ksmd;
use self::log::Log;
use super::ask::Asks;
use super::changes::Changes;
use super::start_progress::StartProgress;
use super::streams::Streams;
use super::supervisor::{
    COMING_UP, Member, Notice, Observation, Outlook, Supervisor, TO_COME, Why,
};
use super::view;
use super::waits::RunQueueWaits;
use crate::control::bridge::{Request, bridge};
use crate::control::server::{self, Server};
use crate::control::types::{Event, Stage};
use crate::guest::{BurnAt, Desired, Guest, Phase, Reason, deadline};
use crate::store::journal::{Journal, Record};
use crate::store::{logs, orphans};
use crate::system::Doing as _;
use crate::units::{GuestIndex, GuestRange};
use crate::{host, outlet};

mod end;
mod ksmd;
mod log;
mod outcome;
mod requests;

pub(crate) use outcome::{Attachment, Ending, SuperviseError, Tally};

/// Most requests that are taken before guests are heard: strangers may ask for
/// numbers without end.
const REQUESTS_A_TURN: usize = 64;
/// How long after its sockets began to go they are made again: who removes a
/// folder removes what is in it first, and finds no new one there.
const RENEW_AFTER: Duration = Duration::from_millis(500);
/// How often that is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// Least time between two records of a guest's duty while it runs.
const DUTY_PAUSE: Duration = Duration::from_secs(1);

/// Of the control interface.
const SERVE: &str = "serve the control interface on a thread of its own";

/// How a sign of life begins (`tty_init::protocol`).
const HEARTBEAT: &[u8] = br#"{"event":"heartbeat","#;

/// A fleet that is supervised.
pub(crate) struct Fleet<'a> {
    pub(crate) supervisor: Supervisor,
    pub(crate) journal: Journal,
    inbox: mpsc::Receiver<Request>,
    server: Server,
    streams: Streams,
    /// The guests that those who listen know of.
    told_of: GuestRange,
    asks: Asks,
    /// When a guest's duty was recorded last: a guest may set another with every line.
    duties_noted: HashMap<GuestIndex, Instant>,
    changes: Changes,
    /// The initial start is done.
    up: bool,
    progress: StartProgress,
    ksmd: Ksmd,
    reported: (Stage, Option<String>),
    /// There may be more requests than one turn takes.
    has_requests: bool,
    /// When sockets that are gone are made again.
    renewal: Option<Instant>,
    emit: &'a mut dyn FnMut(&Event),
}

/// Listens where Prometheus asks; port 0 is any that is free, so it is said which.
fn listen(address: SocketAddr) -> Result<TcpListener, SuperviseError> {
    let failed = |source| SuperviseError::Metrics { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::info!("metrics are at http://{bound}/metrics");
    Ok(listener)
}

impl<'a> Fleet<'a> {
    /// Opens the fleet's control socket; its guests are members already.
    pub(crate) fn new(
        mut supervisor: Supervisor,
        journal: Journal,
        emit: &'a mut dyn FnMut(&Event),
    ) -> Result<Self, SuperviseError> {
        let log = supervisor.site().folder().supervisor_log();
        outlet::guard_stderr(move || logs::put_own_aside(&log));
        let (outbox, inbox) = bridge(supervisor.waker()?);
        let spec = supervisor.site().spec();
        let metrics = spec.metrics;
        let (ksmd, told_of) = (Ksmd::of(spec), spec.guests);
        let folder = supervisor.site().folder();
        let control = folder.control();
        let bound = server::bind(&folder.socket(&control));
        let bound = bound.doing(format!("listen on {}", control.display()))?;
        supervisor.watch_sockets()?;
        let metrics = match metrics {
            Some(address) => Some(listen(address)?),
            None => None,
        };
        let waits = Arc::new(RunQueueWaits::of(supervisor.site().folder())?);
        let server = server::serve(bound, metrics, waits, outbox).doing(SERVE)?;
        Ok(Self {
            supervisor,
            inbox,
            server,
            streams: Streams::default(),
            told_of,
            asks: Asks::default(),
            duties_noted: HashMap::new(),
            changes: Changes::default(),
            up: journal.history().up,
            progress: StartProgress::new(Instant::now()),
            ksmd,
            journal,
            reported: (Stage::Starting, None),
            has_requests: false,
            renewal: None,
            emit,
        })
    }

    /// Supervises the fleet to its end; then nothing of it is left.
    pub(crate) fn run(mut self, attachment: Attachment) -> Result<(Ending, Tally), SuperviseError> {
        let began = Instant::now();
        let mut start_seconds = None;
        let mut until = self.supervisor.site().spec().until.and_then(instant_of);
        self.supervisor.start_planned();
        let ending = loop {
            self.take_requests();
            self.settle();
            if self.up && start_seconds.is_none() {
                start_seconds = Some(began.elapsed().as_secs_f64());
                // Another supervisor may have said when already.
                until = until.or_else(|| self.keep());
            }
            if self.supervisor.interrupted() {
                break Ending::Interrupted;
            }
            if until.is_some_and(|at| at <= Instant::now()) {
                break Ending::Over;
            }
            if self.changes.end_is_requested() {
                break Ending::Stopped;
            }
            let mut gives_up = None;
            if let Attachment::Foreground { patience } = attachment {
                if self.is_over() {
                    break Ending::Empty;
                }
                // A fleet whose end is known does not wait for ever.
                gives_up = patience.filter(|_| until.is_none());
            }
            let gives_up = gives_up.and_then(|patience| self.is_stuck_from(patience));
            if gives_up.is_some_and(|at| at <= Instant::now()) {
                break Ending::Stuck;
            }
            self.turn(until.into_iter().chain(gives_up).min())?;
        };
        if ending == Ending::Over {
            self.ask_in_the_end()?;
        }
        let start_seconds = start_seconds.unwrap_or_else(|| began.elapsed().as_secs_f64());
        let mut tally = self.tally(start_seconds);
        if ending == Ending::Stuck {
            tally.held_back = tally.held_back.or_else(|| self.why_stuck());
        }
        self.end()?;
        Ok((ending, tally))
    }

    /// When the start is given up by who has this patience, if it goes no further:
    /// not while a guest may be about to come up.
    fn is_stuck_from(&mut self, patience: Duration) -> Option<Instant> {
        self.progress
            .see(Instant::now(), self.supervisor.count(&TO_COME));
        let members = self.supervisor.members();
        let is_waited_for = members.iter().map(Member::guest).any(comes_up);
        (self.progress.ends(patience)).filter(|_| !is_waited_for)
    }

    /// Why the start goes no further, as far as anything tells.
    fn why_stuck(&self) -> Option<String> {
        let held = self.supervisor.held_back().map(|(why, _)| why.to_string());
        let mut guests = self.supervisor.members().iter().map(Member::guest);
        held.or_else(|| guests.find_map(|guest| Some(guest.trouble()?.to_string())))
    }

    /// When the fleet, whose start is done, is to end; also for a supervisor
    /// after this one.
    fn keep(&mut self) -> Option<Instant> {
        let site = self.supervisor.site_mut();
        let keep = site.spec().keep?;
        let end = SystemTime::now().checked_add(keep)?;
        site.spec_mut().until = Some(end.duration_since(UNIX_EPOCH).ok()?.as_secs());
        if let Err(error) = site.folder().write_spec(site.spec()) {
            tracing::warn!("{error}");
        }
        // A time beyond what a clock holds is for ever.
        Instant::now().checked_add(keep)
    }

    /// Waits for news, and takes it.
    fn turn(&mut self, until: Option<Instant>) -> Result<(), SuperviseError> {
        let at_once = self.has_requests.then(Instant::now);
        let next = [
            until,
            self.asks.due(),
            self.changes.due(),
            self.renewal,
            self.ksmd.due(),
            at_once,
        ];
        let notices = self.supervisor.turn(next.into_iter().flatten().min())?;
        let mut log = Log::default();
        for notice in notices {
            self.note(notice, &mut log);
        }
        log.write(&self.supervisor);
        if self.supervisor.lost_sockets() {
            self.renewal = Some(Instant::now() + RENEW_AFTER);
        }
        if self.renewal.is_some_and(|at| at <= Instant::now()) {
            self.renew_sockets();
        }
        self.ksmd.go_on(&self.supervisor);
        self.asks.go_on(&mut self.supervisor);
        self.changes.go_on(&mut self.supervisor, &mut self.journal);
        Ok(())
    }

    /// Makes sockets again that somebody removed: at a log-out the system does, and
    /// so do those who tidy up. Guests that live are connected to already, and a
    /// supervisor after this one reaches them by what their VMMs hold.
    fn renew_sockets(&mut self) {
        self.renewal = None;
        let renewed = self.supervisor.site_mut().renew_runtime();
        let renewed = renewed.and_then(|()| {
            let folder = self.supervisor.site().folder();
            let control = folder.control();
            if !control.exists() {
                let bound = server::bind(&folder.socket(&control));
                let bound = bound.doing(format!("listen on {}", control.display()))?;
                self.server.listen_on(bound).doing(SERVE)?;
                tracing::warn!("{} was gone: made it again", control.display());
            }
            Ok(self.supervisor.watch_sockets()?)
        });
        if let Err(error) = renewed {
            tracing::error!("the fleet's sockets are gone, and cannot be made again: {error}");
            self.renewal = Some(Instant::now() + RENEW_AGAIN);
        }
    }

    fn note(&mut self, notice: Notice, log: &mut Log) {
        let Notice { guest, what } = notice;
        // One that a smaller number of guests has done away with.
        let Some(member) = self.supervisor.members().get(guest) else {
            return;
        };
        match what {
            Observation::Started => {
                if let Some(pid) = member.pid() {
                    let record = Record::Start {
                        guest,
                        pid,
                        start_time: orphans::start_time(Path::new("/"), pid).unwrap_or(0),
                        restarts: member.guest().restarts(),
                    };
                    self.record(&record);
                }
            }
            Observation::Ended => self.record(&Record::End { guest }),
            Observation::NotStarted { phase, restarts } => {
                let past = self.journal.history().guests.get(&guest);
                let is_known =
                    past.is_some_and(|past| (past.over, past.restarts) == (Some(phase), restarts));
                // A host in trouble is tried again and again, and its disk may be full.
                if !is_known {
                    self.record(&Record::NotStarted {
                        guest,
                        phase,
                        restarts,
                    });
                }
            }
            Observation::State(phase) => {
                tracing::debug!(
                    guest = %guest,
                    state = phase.name(),
                    pid = member.pid(),
                    restarts = member.guest().restarts(),
                    reason = view::reason(member.guest()),
                    "{guest} is {}",
                    phase.name()
                );
                let mut shown = view::guest(self.supervisor.site(), member);
                // It may have gone on since, within one turn.
                shown.state = phase;
                let event = Event::Guest(shown);
                let is_over = matches!(phase, Phase::Exited | Phase::Failed);
                if is_over && member.guest().desired() == Desired::Up {
                    self.record(&Record::Over { guest, phase });
                }
                self.note_duty(guest, Instant::now());
                // From the end on, an exit is what was asked for, not news.
                if !self.changes.end_is_requested() {
                    (self.emit)(&event);
                }
                self.streams.send(&event);
                let burns = self.up || self.supervisor.site().spec().burn_at == BurnAt::Ready;
                if phase == Phase::Ready && burns {
                    self.burn(guest);
                }
            }
            Observation::Message(message) => {
                self.asks.hear(&mut self.supervisor, guest, &message);
                let now = Instant::now();
                let noted = self.duties_noted.get(&guest);
                if noted.is_none_or(|noted| now.duration_since(*noted) >= DUTY_PAUSE) {
                    self.note_duty(guest, now);
                }
            }
            Observation::Line(line) => {
                self.streams.send_console(guest, &line);
                // Signs of life come for ever, and would push out what is of use.
                if !line.starts_with(HEARTBEAT) {
                    log.add(guest, &line, &self.supervisor);
                }
            }
        }
    }

    /// Notes what a later supervisor is to know. That supervisor finds guests
    /// without a note by their processes.
    fn record(&mut self, record: &Record) {
        if let Err(error) = self.journal.append(record) {
            tracing::error!("{error}");
        }
    }

    /// Records what a guest burns where nobody could know it: users set the duty in
    /// the guest, and its next life may be another supervisor's.
    fn note_duty(&mut self, guest: GuestIndex, now: Instant) {
        let members = self.supervisor.members();
        let Some(duty) = members.get(guest).and_then(|one| one.guest().duty()) else {
            return;
        };
        let past = self.journal.history().guests.get(&guest);
        let known = past.and_then(|past| past.duty);
        if duty != known.unwrap_or(self.supervisor.site().spec().burn) {
            self.duties_noted.insert(guest, now);
            self.record(&Record::Burn { guest, duty });
        }
    }

    fn burn(&mut self, guest: GuestIndex) {
        let duty = self.supervisor.site().spec().burn;
        self.supervisor.burn(guest, duty);
    }

    /// Ends the initial start once every guest has had its own, or no more fit.
    fn settle(&mut self) {
        let waiting = self.supervisor.count(&[Phase::Planned]);
        let settled = matches!(self.supervisor.held_back(), Some((_, Outlook::ForGood)));
        let mut guests = self.supervisor.members().iter().map(Member::guest);
        if !self.up && (waiting == 0 || settled) && !guests.any(comes_up) {
            self.up = true;
            self.record(&Record::Up);
            if self.supervisor.site().spec().burn_at == BurnAt::Start {
                for guest in self.supervisor.members().guests().iter() {
                    if self.supervisor.members()[guest].is_ready() {
                        self.burn(guest);
                    }
                }
            }
        }
        self.report_stage();
        self.tell_of_others();
    }

    fn report_stage(&mut self) {
        let held = self.supervisor.held_back();
        let stage = match held {
            _ if self.changes.end_is_requested() => Stage::Stopping,
            Some((_, Outlook::ForGood)) => Stage::Settled,
            _ if !self.up || self.supervisor.count(&[Phase::Planned]) > 0 => Stage::Starting,
            _ => Stage::Up,
        };
        // The user has to fix what the host lacks, so it is reported at once.
        let held_back = held
            .filter(|(why, outlook)| *outlook == Outlook::ForGood || matches!(why, Why::Trouble(_)))
            .map(|(why, _)| why.to_string());
        // The numbers in a reason change all the time; that there is one counts.
        if (stage, held_back.is_some()) == (self.reported.0, self.reported.1.is_some()) {
            self.reported.1 = held_back;
        } else {
            tracing::debug!(?stage, held_back, "the fleet is {stage:?}");
            self.reported = (stage, held_back.clone());
            let event = Event::Stage { stage, held_back };
            (self.emit)(&event);
            self.streams.send(&event);
        }
    }

    /// Whether every guest ended by itself, and none is to be up again. One that
    /// the user stopped may be wanted again.
    fn is_over(&self) -> bool {
        let members = self.supervisor.members();
        let is_over = |member: &Member| {
            let guest = member.guest();
            guest.desired() == Desired::Up && matches!(guest.phase(), Phase::Exited | Phase::Failed)
        };
        let over = self.supervisor.count(&[Phase::Exited, Phase::Failed]);
        let all = members.len() > 0 && over == members.len() && members.iter().all(is_over);
        all || self.supervisor.is_hopeless()
    }

    /// How long a guest may take to answer.
    fn patience(&self) -> Duration {
        deadline::scaled(self.supervisor.site().spec().guests.count(), host::cpus())
    }
}

/// Whether a guest is about to come up. One whose VMM somebody stopped may boot
/// for ever.
fn comes_up(guest: &Guest) -> bool {
    COMING_UP.contains(&guest.phase()) && guest.reason() != Some(&Reason::VmmStopped)
}

/// A time of the host's clock on the clock that nobody sets; now, if it is over.
fn instant_of(seconds: u64) -> Option<Instant> {
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left)
}
