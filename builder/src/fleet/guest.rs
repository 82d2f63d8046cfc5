//! A guest's state machine: pure, so that every step can be tested as a table.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tty_init::protocol::{Message, Status};

use crate::vmm::qemu::KVM_INTERNAL_ERROR;

/// Console lines that are kept for the message about a guest that fails.
const TAIL_LINES: usize = 4;
/// Longest of them, in characters.
const TAIL_WIDTH: usize = 160;

/// Where a guest stands, in one word.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not started yet
    Planned,
    /// Its VMM was started; its kernel has not spoken
    Starting,
    /// Its kernel speaks; it has not reported ready
    Booting,
    /// It reported ready, and answers in time
    Ready,
    /// It is late with an answer
    Unresponsive,
    /// Its VMM ended, and it is not to be started again
    Exited,
    /// Its VMM ended, and it will be started again
    Restarting,
    /// It was given up
    Failed,
}

/// Where a guest stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not started yet.
    Planned,
    /// Its VMM runs; it has not reported ready.
    Booting,
    /// It reported ready.
    Ready,
    /// It ended after it had been ready.
    Exited,
    /// It never got ready, or was given up.
    Failed(Failure),
}

impl State {
    /// One word for it, the same in tables and in JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Booting => "booting",
            Self::Ready => "ready",
            Self::Exited => "exited",
            Self::Failed(_) => "failed",
        }
    }
}

/// Why a guest is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Its VMM could not be started.
    Spawn(String),
    /// KVM cannot run this guest's code.
    KvmInternalError(String),
    /// Its kernel panicked.
    KernelPanic(String),
    /// Its init said that it cannot go on.
    Fatal(String),
    /// Its VMM ended before the guest was ready.
    Ended(String),
    /// It said nothing at all in the time it had.
    Silent(Duration),
    /// It spoke, but did not report ready in the time it had.
    NotReady(Duration),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(reason) => write!(f, "not started: {reason}"),
            Self::KvmInternalError(line) => write!(f, "KVM cannot run it: {line}"),
            Self::KernelPanic(line) => write!(f, "kernel panic: {line}"),
            Self::Fatal(reason) => write!(f, "init gave up: {reason}"),
            Self::Ended(status) => write!(f, "QEMU ended before the guest was ready ({status})"),
            Self::Silent(time) => write!(f, "said nothing for {} s", time.as_secs()),
            Self::NotReady(time) => write!(f, "not ready after {} s", time.as_secs()),
        }
    }
}

/// What happened to a guest.
#[derive(Debug)]
pub enum Event<'a> {
    /// Its VMM was started.
    Spawned,
    /// Its VMM could not be started.
    SpawnFailed(String),
    /// It sent a message.
    Message(&'a Message<String>),
    /// Its console carried a line of text.
    Text(&'a str),
    /// Its VMM wrote a line.
    VmmText(&'a str),
    /// The time it had to get ready is over.
    Deadline(Duration),
    /// Its VMM ended.
    Ended(String),
}

/// What a guest says made safe to print: no control characters.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .collect()
}

/// A guest as its console and its process show it.
#[derive(Debug)]
pub struct Guest {
    state: State,
    /// What a console line gave away before the process ended.
    omen: Option<Failure>,
    spoke: bool,
    status: Option<Status>,
    tail: VecDeque<String>,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            state: State::Planned,
            omen: None,
            spoke: false,
            status: None,
            tail: VecDeque::new(),
        }
    }
}

impl Guest {
    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What it last said of itself.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// The last lines of text from its console or its VMM.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    /// Takes an event, and tells whether it changed the state.
    pub fn apply(&mut self, event: &Event<'_>) -> bool {
        let next = match event {
            Event::Spawned => Some(State::Booting),
            Event::SpawnFailed(reason) => Some(State::Failed(Failure::Spawn(reason.clone()))),
            Event::Message(message) => self.hear(message),
            Event::Text(line) => {
                self.spoke |= !line.is_empty();
                self.keep(line);
                if let Some((_, reason)) = line.split_once("Kernel panic - not syncing: ") {
                    self.omen = Some(Failure::KernelPanic(reason.to_owned()));
                }
                None
            }
            Event::VmmText(line) => {
                self.keep(line);
                // QEMU only stops the vCPU and waits; nothing more will come.
                let stopped = matches!(self.state, State::Booting | State::Ready)
                    && line.contains(KVM_INTERNAL_ERROR);
                stopped.then(|| State::Failed(Failure::KvmInternalError((*line).to_owned())))
            }
            Event::Deadline(time) => (self.state == State::Booting).then(|| {
                State::Failed(self.omen.take().unwrap_or(if self.spoke {
                    Failure::NotReady(*time)
                } else {
                    Failure::Silent(*time)
                }))
            }),
            Event::Ended(status) => match self.state {
                State::Planned | State::Booting => Some(State::Failed(
                    self.omen
                        .take()
                        .unwrap_or_else(|| Failure::Ended(status.clone())),
                )),
                State::Ready => Some(State::Exited),
                State::Exited | State::Failed(_) => None,
            },
        };
        match next {
            Some(state) if state != self.state => {
                self.state = state;
                true
            }
            _ => false,
        }
    }

    fn hear(&mut self, message: &Message<String>) -> Option<State> {
        self.spoke = true;
        match message {
            Message::Ready { status, .. } => {
                self.status = Some(*status);
                (self.state == State::Booting).then_some(State::Ready)
            }
            Message::Heartbeat { status, .. } => {
                self.status = Some(*status);
                None
            }
            Message::Fatal { reason, .. } => {
                self.omen = Some(Failure::Fatal(printable(reason)));
                None
            }
            Message::Parked { .. } | Message::Reply { .. } => None,
        }
    }

    fn keep(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.chars().take(TAIL_WIDTH).collect());
    }
}

#[cfg(test)]
mod tests {
    use tty_init::host::parse;

    use super::*;

    const READY: &str = r#"{"event":"ready","id":"g00000","ms":700,"seq":1,"identity":"applied","disk":"up","net":"up","ssh":"up","burn":{"duty":0,"threads":1,"rounds":0}}"#;
    const HEARTBEAT: &str = r#"{"event":"heartbeat","id":"g00000","ms":900,"seq":2,"identity":"applied","disk":"up","net":"up","ssh":"up","burn":{"duty":100,"threads":1,"rounds":7}}"#;
    const FATAL: &str =
        r#"{"event":"fatal","id":"","ms":700,"seq":1,"reason":"mount /proc: no such device"}"#;
    const PANIC: &str = "Kernel panic - not syncing: No working init found.";
    const TIME: Duration = Duration::from_secs(5);

    /// Feeds a guest what its console and process would; `!` ends its VMM and
    /// `~` is its deadline, `qemu: ` starts a line of its VMM.
    fn after(lines: &[&str]) -> Guest {
        let mut guest = Guest::default();
        guest.apply(&Event::Spawned);
        for line in lines {
            match (*line, parse(line.as_bytes())) {
                ("!", _) => guest.apply(&Event::Ended("exit status: 0".to_owned())),
                ("~", _) => guest.apply(&Event::Deadline(TIME)),
                (_, Ok(message)) => guest.apply(&Event::Message(&message)),
                (text, Err(_)) if text.starts_with("qemu: ") => guest.apply(&Event::VmmText(text)),
                (text, Err(_)) => guest.apply(&Event::Text(text)),
            };
        }
        guest
    }

    #[test]
    fn states_follow_what_is_seen() {
        let kvm = "qemu: KVM internal error. Suberror: 1";
        let ended = || Failure::Ended("exit status: 0".to_owned());
        let table: [(&[&str], State); 14] = [
            (&[], State::Booting),
            (&[READY], State::Ready),
            (&[READY, "~"], State::Ready),
            (&[READY, "!"], State::Exited),
            (&[READY, HEARTBEAT, PANIC, "!"], State::Exited),
            (&["~"], State::Failed(Failure::Silent(TIME))),
            (
                &["qemu: warning: slow", "~"],
                State::Failed(Failure::Silent(TIME)),
            ),
            (
                &["Linux version 6.12", "~"],
                State::Failed(Failure::NotReady(TIME)),
            ),
            (&["!"], State::Failed(ended())),
            (&["~", READY, "!"], State::Failed(Failure::Silent(TIME))),
            (
                &[PANIC, "!"],
                State::Failed(Failure::KernelPanic("No working init found.".to_owned())),
            ),
            (
                &[kvm],
                State::Failed(Failure::KvmInternalError(kvm.to_owned())),
            ),
            (
                &[READY, kvm],
                State::Failed(Failure::KvmInternalError(kvm.to_owned())),
            ),
            (
                &[PANIC, "~"],
                State::Failed(Failure::KernelPanic("No working init found.".to_owned())),
            ),
        ];
        for (lines, state) in table {
            assert_eq!(*after(lines).state(), state, "{lines:?}");
        }
        assert_eq!(
            *after(&[FATAL, "!"]).state(),
            State::Failed(Failure::Fatal("mount /proc: no such device".to_owned()))
        );
    }

    #[test]
    fn what_a_guest_says_cannot_move_the_cursor() {
        let fatal = FATAL.replace("mount", "\\u001b[2J\\u0007mount");
        let State::Failed(failure) = after(&[&fatal, "!"]).state().clone() else {
            panic!("it failed");
        };
        assert_eq!(
            failure.to_string(),
            "init gave up: [2Jmount /proc: no such device"
        );
    }

    #[test]
    fn the_last_status_is_kept() {
        let rounds = |lines| after(lines).status().map(|status| status.burn.rounds);
        assert_eq!(rounds(&[]), None);
        assert_eq!(rounds(&[READY]), Some(0));
        assert_eq!(rounds(&[READY, HEARTBEAT]), Some(7));
    }

    #[test]
    fn only_a_change_is_told() {
        let mut guest = after(&[READY]);
        let message = parse(READY.as_bytes()).unwrap();
        assert!(!guest.apply(&Event::Message(&message)));
        assert!(guest.apply(&Event::Ended(String::new())));
        assert!(!guest.apply(&Event::Ended(String::new())));
    }

    #[test]
    fn a_flood_of_text_is_kept_in_bounds() {
        let long = "x".repeat(100_000);
        let guest = after(&[long.as_str(); 100]);
        assert_eq!(guest.tail().count(), TAIL_LINES);
        assert!(guest.tail().all(|line| line.len() == TAIL_WIDTH));
    }
}
