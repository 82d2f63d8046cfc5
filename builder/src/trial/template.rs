//! Takes a template: boots one guest to the phase `poised`, and keeps its RAM and the
//! state of its machine.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use tty_init::protocol::Message;

use super::{Purpose, Setup, Trial, TrialError};
use crate::artifact::opened::Artifacts;
use crate::directories::Directories;
use crate::fleet::site::Source;
use crate::fleet::supervisor::{Member, Observation};
use crate::guest::Phase;
use crate::interrupt::{Interrupt, poll_until};
use crate::sample::switches;
use crate::sealed;
use crate::store::folder::FolderError;
use crate::system::{Doing as _, SystemError};
use crate::template::cache::Entry;
use crate::template::key::Key;
use crate::template::{STATE_MAX, Template};
use crate::vmm::Machine;
use crate::vmm::qemu::Emulator;
use crate::vmm::qemu::qmp::{Capture, Captured, QmpError, Talk};

/// How long a template is watched while it should sleep, and how often.
const WATCH: Duration = Duration::from_millis(500);
const WATCHES: u32 = 10;
/// Most times that its threads may be given a CPU meanwhile: QEMU's own wake now and
/// then.
const SWITCHES_MAX: u64 = 2;
/// How many templates are taken until one sleeps.
const ATTEMPTS: u32 = 3;
/// How long a stopped machine may take to give its state away, at the most.
const CAPTURE: Duration = Duration::from_secs(60);
/// How often it is asked whether it has.
const ASK: Duration = Duration::from_millis(5);
/// How long QEMU's answer to one command is waited for at a time.
const TICK: Duration = Duration::from_millis(200);

/// There is no template.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("interrupted while a template was taken")]
    Interrupted,
    /// It ended, or did not get there in time.
    #[error(
        "the template's guest did not become poised: {reason}{}",
        excerpt(console)
    )]
    NotPoised {
        reason: String,
        /// The last of what it said.
        console: String,
    },
    /// Its clones would wake all the time, too.
    #[error(
        "the template's guest wakes when it should sleep: {switches} times in {} ms, in the best of \
         {ATTEMPTS} attempts; its kernel may have measured its clock wrong on a busy host",
        WATCH.as_millis()
    )]
    Restless { switches: u64 },
    /// Its VMM does not give its state away.
    #[error("the template's QEMU does not give the state of its machine: {0}")]
    NotCaptured(String),
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// It could not be started.
    #[error(transparent)]
    Trial(#[from] TrialError),
    #[error(transparent)]
    System(#[from] SystemError),
}

/// What a console said, below an error.
fn excerpt(console: &str) -> String {
    if console.is_empty() {
        String::new()
    } else {
        format!("; its console:\n{console}")
    }
}

/// The template of such guests: the one that is kept, or one that is taken now.
pub(crate) fn template(
    artifacts: &Artifacts,
    machine: Machine,
    qemu: &Emulator,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Template, TemplateError> {
    if let Err(error) = directories.open_cache()
        && error.is_refusal()
    {
        return Err(TrialError::from(FolderError::from(error)).into());
    }
    let key = Key::of(artifacts, machine, qemu, &directories.host, Path::new("/"));
    let entry = Entry::new(&directories.cache, key.digest());
    // Two fleets at once take one.
    let lock = entry
        .lock(interrupt)
        .doing("lock the place of a template")?;
    let lock = lock.ok_or(TemplateError::Interrupted)?;
    let load = || entry.load().doing("hold a template in memory");
    if let Some(kept) = load()? {
        return Ok(kept);
    }
    tracing::info!("taking a template: one guest boots for all that begin with it");
    let setup = Setup {
        qemu,
        machine,
        purpose: Purpose::Template,
    };
    let mut attempt = 0;
    let (memory, state) = loop {
        attempt += 1;
        match take(artifacts, &setup, directories, interrupt) {
            Err(TemplateError::Restless { .. }) if attempt < ATTEMPTS => {}
            taken => break taken?,
        }
    };
    let stored = entry.store(&memory, &state, &lock);
    // Before it is loaded: the host may have room for one.
    drop(memory);
    stored.doing(format!(
        "keep a template in {}",
        directories.cache.display()
    ))?;
    let changed = || SystemError::new("read the template back", io::ErrorKind::InvalidData.into());
    Ok(load()?.ok_or_else(changed)?)
}

/// Boots a template, and takes its RAM and the state of its machine.
fn take(
    artifacts: &Artifacts,
    setup: &Setup<'_>,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<(File, Vec<u8>), TemplateError> {
    let memory = sealed::draft().doing("make a file in memory")?;
    (memory.set_len(setup.machine.memory.bytes())).doing("make a file in memory")?;
    let shared = memory.try_clone().doing("share a file in memory")?;
    let mut trial = Trial::new(artifacts, setup, 1, directories, interrupt)?;
    trial.supervisor.site_mut().begin_with(Source::Kept(shared));
    trial.start_until_poised()?;
    if interrupt.requested() {
        return Err(TemplateError::Interrupted);
    }
    let pid = poised(trial.member())?;
    let process = Path::new("/proc").join(pid.to_string());
    let switches = at_rest(&process, interrupt).doing("look at the template's threads")?;
    if interrupt.requested() {
        return Err(TemplateError::Interrupted);
    }
    if switches > SWITCHES_MAX {
        return Err(TemplateError::Restless { switches });
    }
    let state = capture(&trial, pid, interrupt)?;
    // The last that its machine wrote is there before it is read.
    drop(trial);
    Ok((memory, state))
}

/// The process of a guest that is poised.
fn poised(member: &Member) -> Result<u32, TemplateError> {
    let guest = member.guest();
    match member.pid() {
        Some(pid) if guest.phase() == Phase::Booting => Ok(pid),
        _ => Err(TemplateError::NotPoised {
            reason: guest.reason().map_or_else(
                || "it says that it is ready; was it built by this imgbuild?".to_owned(),
                ToString::to_string,
            ),
            console: guest.tail().collect::<Vec<_>>().join("\n"),
        }),
    }
}

/// How often a process that should sleep wakes in a while, at its best.
fn at_rest(process: &Path, interrupt: &Interrupt) -> io::Result<u64> {
    let mut fewest = u64::MAX;
    for _ in 0..WATCHES {
        let before = switches::of(process)?;
        if interrupt.wait(WATCH) {
            break;
        }
        fewest = fewest.min(switches::of(process)?.saturating_sub(before));
        if fewest <= SWITCHES_MAX {
            break;
        }
    }
    Ok(fewest)
}

/// Has the template's VMM stop it and give the state of its machine.
fn capture(trial: &Trial, pid: u32, interrupt: &Interrupt) -> Result<Vec<u8>, TemplateError> {
    let site = trial.supervisor.site();
    let path = site.folder().runtime().join("template");
    let listening = || format!("have QEMU connect to {}", path.display());
    let name = path.to_str().ok_or(io::ErrorKind::InvalidFilename);
    let mut capture = Capture::to_socket(name.doing(listening())?);
    let listener = UnixListener::bind(&path).doing(listening())?;
    let monitor = site.connect_monitor(trial.member().index(), pid);
    let mut talk = Conversation {
        monitor: monitor.doing(TALKING)?,
        until: Instant::now() + CAPTURE,
        interrupt,
    };
    talk.monitor.set_nonblocking(false).doing(TALKING)?;
    talk.monitor.set_read_timeout(Some(TICK)).doing(TALKING)?;
    talk.go_on(&mut capture)?;
    // QEMU connects by and by.
    let mut connected = [PollFd::new(&listener, PollFlags::IN)];
    while !poll_until(&mut connected, Some(Instant::now() + TICK)).doing(listening())? {
        talk.sent(&mut capture)?;
    }
    let state = receive(&listener)?;
    while !talk.sent(&mut capture)? {
        thread::sleep(ASK);
    }
    Ok(state)
}

const TALKING: &str = "talk to the template's monitor";

/// What QEMU sends, up to its end.
fn receive(listener: &UnixListener) -> Result<Vec<u8>, TemplateError> {
    let receiving = "receive the state of the template's machine";
    let (stream, _) = listener.accept().doing(receiving)?;
    stream.set_read_timeout(Some(CAPTURE)).doing(receiving)?;
    let mut state = Vec::new();
    (stream.take(STATE_MAX + 1).read_to_end(&mut state)).doing(receiving)?;
    if state.len() as u64 > STATE_MAX {
        let why = format!("it has more than {STATE_MAX} bytes");
        return Err(TemplateError::NotCaptured(why));
    }
    Ok(state)
}

/// A talk with the monitor of a guest on trial, which may be waited for.
struct Conversation<'a> {
    monitor: UnixStream,
    until: Instant,
    interrupt: &'a Interrupt,
}

impl Conversation<'_> {
    /// Whether all of the state was sent.
    fn sent(&mut self, capture: &mut Capture) -> Result<bool, TemplateError> {
        if Instant::now() >= self.until {
            let why = format!("it takes longer than {} s", CAPTURE.as_secs());
            return Err(TemplateError::NotCaptured(why));
        }
        capture.ask();
        match self.go_on(capture)? {
            Captured::Whole => Ok(true),
            Captured::Failed(why) => Err(TemplateError::NotCaptured(why)),
            Captured::Begun | Captured::NotYet => Ok(false),
        }
    }

    /// Says what is to be said, and gives what comes of it.
    fn go_on<T: Talk>(&mut self, talk: &mut T) -> Result<T::Outcome, TemplateError> {
        let mut chunk = [0; 4096];
        loop {
            let outgoing = std::mem::take(talk.outgoing());
            self.monitor.write_all(&outgoing).doing(TALKING)?;
            if self.interrupt.requested() {
                return Err(TemplateError::Interrupted);
            }
            let read = match self.monitor.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= self.until {
                        let why = format!("no answer for {} s", CAPTURE.as_secs());
                        return Err(TemplateError::NotCaptured(why));
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.doing(TALKING)?,
            };
            if read == 0 {
                return Err(TemplateError::NotCaptured("it ended".to_owned()));
            }
            if let Some(outcome) = talk.take(&chunk[..read])? {
                return Ok(outcome);
            }
        }
    }
}

impl Trial {
    /// Starts its guest, and returns when that is poised or given up, or when the user
    /// interrupts.
    fn start_until_poised(&mut self) -> Result<(), SystemError> {
        let mut is_over = false;
        self.supervisor.start_planned();
        while !is_over && !self.supervisor.interrupted() {
            for notice in self.supervisor.turn(None)? {
                is_over |= matches!(
                    notice.what,
                    Observation::Message(Message::Poised { .. } | Message::Ready { .. })
                        | Observation::Ended
                        | Observation::NotStarted { .. }
                );
            }
        }
        Ok(())
    }
}
