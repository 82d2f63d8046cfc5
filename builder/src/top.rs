//! `imgbuild top`: a fleet on a full screen, as it is now.
//!
//! `model` is what is known of the fleet, fed by its events (`control::follow`) and by
//! `look`, which reads the guests' processes and the host; `view` is what the user
//! chose to see of it, changed by keys; `screen` draws both; `terminal` is borrowed from
//! the shell, and given back whatever ends the screen.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};

pub(crate) use self::error::TopError;
use self::model::{Link, Model, lock};
use self::terminal::Terminal;
use self::view::{Action, View};
use crate::control::bridge::Act;
use crate::control::client::{Client, ClientError};
use crate::control::follow::{Heard, follow};
use crate::control::types::{ActAnswer, ActRequest, Selection};
use crate::control::unsupervised::unsupervised;
use crate::directories::Directories;
use crate::fleet::ssh::{Reachable, TRANSPORT};
use crate::interrupt::Interrupt;
use crate::store::folder::Found;
use crate::system::Doing as _;
use crate::text::printable;
use crate::units::GuestIndex;

mod error;
mod look;
mod model;
mod rows;
mod screen;
mod terminal;
mod view;

/// How often the screen is drawn, if nothing is typed.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a key is waited for before it is looked whether the process is to end.
const PAUSE: Duration = Duration::from_millis(100);
/// How long it takes to find what was typed already.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How often the guests of a fleet without a supervisor are looked for.
const ORPHANS: Duration = Duration::from_secs(2);
/// Nothing is due before something is heard.
const LONG: Duration = Duration::from_secs(3600);

/// Shows a fleet until the user has seen enough: then it gives `true`, and `false` if
/// the process is to end.
pub(crate) fn show(
    found: &Found,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<bool, TopError> {
    let end = interrupt.child().doing("make a pair of sockets")?;
    let model = Arc::new(Mutex::new(Model::new(&found.name, Instant::now())));
    let mut terminal = Terminal::borrow()?;
    let view = Arc::new(Mutex::new(View::default()));
    let client = Client::new(&found.name, &found.paths, &end);
    let _following = follow(client.clone(), end.clone(), hear(found.clone(), &model));
    let shown = (Arc::clone(&model), Arc::clone(&view));
    let _looking = look::start(found.clone(), client.clone(), shown, end.clone());
    let mut due = Instant::now();
    while !interrupt.requested() {
        if Instant::now() >= due {
            let mut view = lock(&view);
            let model = lock(&model);
            (terminal.draw(|frame| screen::draw(frame, &model, &mut view)))
                .doing("write to the terminal")?;
            due = Instant::now() + PERIOD;
        }
        let left = due.saturating_duration_since(Instant::now()).min(PAUSE);
        if !event::poll(left).doing("read the terminal")? {
            continue;
        }
        // All that was typed, so that a key that is held down is not answered for longer.
        while event::poll(AT_ONCE).doing("read the terminal")? {
            let input = event::read().doing("read the terminal")?;
            let Input::Key(key) = input else {
                continue;
            };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            let action = {
                let model = lock(&model);
                lock(&view).key(key, &model)
            };
            match action {
                Action::None => {}
                Action::Quit => return Ok(true),
                Action::Suspend => terminal.lend(suspend)?,
                Action::Act(act, guest) => {
                    // Whoever leaves meanwhile does not wait: the supervisor does it.
                    let (client, model) = (client.clone(), Arc::clone(&model));
                    thread::spawn(move || {
                        let done = outcome(client.act(act, &request(guest)), guest);
                        lock(&model).note(format!("{} {guest}: {done}", verb(act)));
                    });
                }
                Action::LogIn(guest) => {
                    let ended =
                        terminal.lend(|| log_in(&found.name, guest, &client, directories, &end))?;
                    if let Err(why) = ended {
                        lock(&model).note(format!("ssh {guest}: {why}"));
                    }
                }
            }
        }
        due = Instant::now();
    }
    Ok(false)
}

/// Hands what is heard of the fleet to the model.
fn hear(
    found: Found,
    model: &Arc<Mutex<Model>>,
) -> impl FnMut(Heard) -> Instant + Send + 'static + use<> {
    let model = Arc::clone(model);
    let mut looked: Option<Instant> = None;
    move |heard| {
        let now = Instant::now();
        match heard {
            Heard::Event(event) => lock(&model).hear(event, now),
            Heard::Nothing => {}
            Heard::Silence(ClientError::Ended { .. }) => lock(&model).link = Link::Ended,
            Heard::Silence(ClientError::NotSupervised { .. }) => {
                // This looks at all processes of the host.
                if looked.is_none_or(|at| now.duration_since(at) >= ORPHANS) {
                    looked = Some(now);
                    if let Ok(fleet) = unsupervised(&found) {
                        lock(&model).orphan(fleet, now);
                    }
                }
            }
            Heard::Silence(error) => {
                let why = printable(&error.to_string());
                lock(&model).link = Link::Deaf(why);
            }
        }
        now + LONG
    }
}

fn request(guest: GuestIndex) -> ActRequest {
    ActRequest {
        guests: Selection::These(vec![guest]),
        grace_seconds: None,
    }
}

/// The name of what is done to a guest.
fn verb(act: Act) -> &'static str {
    match act {
        Act::Stop => "stop",
        Act::Kill => "kill",
        Act::Restart => "restart",
    }
}

fn outcome(answer: Result<ActAnswer, ClientError>, guest: GuestIndex) -> String {
    match answer {
        Err(error) => printable(&error.to_string()),
        Ok(answer) => {
            let refused = answer.refused.into_iter().find(|one| one.id == guest);
            refused.map_or_else(|| "done".to_owned(), |one| printable(&one.reason))
        }
    }
}

/// Logs in to a guest as `imgbuild ssh` does, on the terminal that is the user's again.
fn log_in(
    fleet: &str,
    guest: GuestIndex,
    client: &Client,
    directories: &Directories,
    end: &Interrupt,
) -> Result<(), String> {
    let reachable = Reachable::find(Some(fleet), directories);
    let reachable = reachable.map_err(|error| printable(&error.to_string()))?;
    // Without it, it only takes longer.
    let _attended = client.attend(Selection::These(vec![guest])).ok();
    match reachable.attached(guest, &[], end) {
        Err(error) => Err(printable(&error.to_string())),
        // What ssh says of a guest that it does not reach was on the screen.
        Ok(code) if i32::from(code) == TRANSPORT => Err("it was not reached".to_owned()),
        Ok(_) => Ok(()),
    }
}

/// Stops this process, as Ctrl-Z does, until the shell has it go on.
fn suspend() {
    // It goes on from here; without the signal there is nothing to go on from.
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP);
}
