//! The events of a guest's state machine, and the actions that it asks for.

use std::time::Duration;

use tty_init::protocol::Message;

use super::Reason;
use crate::vmm::{Chance, End, MachineState, StartMethod};

/// What happened to a guest. One that means nothing where the guest stands is
/// ignored.
#[derive(Debug)]
pub enum Event<'a> {
    /// Its VMM is about to be started. Where the guest does not live after it, it is
    /// not wanted any more.
    Start(StartMethod),
    /// Its VMM could not be started, and why.
    SpawnFailed(Reason),
    /// Its VMM has restored it from the template.
    Restored,
    /// Its VMM cannot do that, and why.
    NotRestored(String),
    /// The first bytes came from its console.
    Heard,
    /// It sent a message.
    Message(&'a Message<String>),
    /// Its console carried a line of text.
    Text(&'a str),
    /// Its VMM wrote a line.
    VmmText(&'a str),
    /// The time that [`Guest::due`](super::Guest::due) tells has come.
    Tick,
    /// What [`Action::Measure`] asked for.
    Chance(Chance),
    /// What [`Action::Inspect`] found.
    MachineState(MachineState),
    /// Nobody can ask it, nor its VMM: what leads to them is gone.
    OutOfReach,
    /// Its VMM ended.
    Ended(End),
    /// The user wants it down; by force after this time.
    Stop(Duration),
    /// The user wants it ended by force.
    Kill,
    /// The user wants it started again; down by force after this time.
    Restart(Duration),
    /// Its VMM was started by another supervisor, and lives.
    Adopted,
    /// Its VMM was started by another supervisor, and is gone.
    Gone,
}

/// What is to be done for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start its VMM as soon as there is room, with [`Event::Start`] first.
    Spawn,
    /// Send `heartbeat` to its console, and if it is silent for a while, note
    /// its vCPU's CPU time and run-queue delay: a [`Chance`] counts from there,
    /// where it counted from the start before.
    Ask,
    /// Answer with [`Event::Chance`] at once. Without an answer this comes again.
    Measure,
    /// Ask its VMM how its machine is; what comes of it may arrive as
    /// [`Event::MachineState`].
    Inspect,
    /// Send `identify` to its console, with the time.
    Identify,
    /// Send `poweroff` to its console.
    PowerOff,
    /// SIGKILL for its VMM.
    Kill,
}

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actions {
    /// What is to be done; never more than one thing.
    pub action: Option<Action>,
    /// Whether the phase changed.
    pub changed: bool,
}

impl IntoIterator for Actions {
    type Item = Action;
    type IntoIter = std::option::IntoIter<Action>;

    fn into_iter(self) -> Self::IntoIter {
        self.action.into_iter()
    }
}
