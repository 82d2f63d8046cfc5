//! What the output of a guest's console and of its VMM says about the guest.

use std::time::Instant;

use tty_init::protocol::{Message, NOT_IDENTIFIED};

use super::state::{Progress, Stage, State, after};
use super::{Action, Guest, Policy, Reason, Trouble, has_burned};
use crate::text::printable;
use crate::units::Duty;
use crate::vmm::qemu::Complaint;

/// Console lines that are kept for the message about a guest that fails.
pub(crate) const TAIL_LINES: usize = 4;
/// Longest of them, and of a line that is a reason, in characters.
pub(crate) const LINE_WIDTH: usize = 160;

impl Guest {
    /// Takes what its console said; `None` is text.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        message: Option<&Message<String>>,
        policy: &Policy,
    ) {
        if !self.phase().lives() {
            return;
        }
        if let Some(Message::Ready { stamp, status } | Message::Heartbeat { stamp, status }) =
            message
        {
            (self.status, self.status_ms) = (Some(*status), stamp.ms);
            if has_burned(status.burn) {
                self.duty = Some(Duty::at_most_whole(status.burn.duty));
            }
        }
        let answers = match message {
            Some(Message::Ready { .. } | Message::Heartbeat { .. }) => true,
            Some(message @ Message::Reply { .. }) => !does_not_know_itself(message),
            _ => false,
        };
        self.settle(now);
        let State::Alive { stage, symptom } = &mut self.state else {
            return;
        };
        match message {
            Some(Message::Fatal { reason, .. }) => {
                *symptom = Some(Reason::Fatal(excerpt(&printable(reason))));
            }
            Some(Message::PowerOff { .. }) => *symptom = Some(Reason::PoweredOff),
            Some(Message::Reboot { .. }) => *symptom = Some(Reason::Rebooted),
            // Whatever its console said before, it goes on.
            _ if answers => *symptom = None,
            _ => {}
        }
        let is_ready = match (&mut *stage, message) {
            (Stage::Booting(boot), Some(Message::Ready { .. })) => {
                self.ready_after = Some(now.saturating_duration_since(boot.started));
                // What kept it is over; why it was started again stays.
                self.reason = (self.reason.take()).filter(|reason| !reason.is_delay());
                true
            }
            (Stage::Booting(boot), _) => {
                if boot.progress == Progress::Silent {
                    boot.progress = Progress::Runs;
                }
                false
            }
            (Stage::Adopted(_), message) => matches!(
                message,
                Some(Message::Ready { .. } | Message::Heartbeat { .. })
            ),
            // Any sign of life puts the next question off, but is not an answer.
            (Stage::Ready { .. }, _) => true,
            (Stage::Asked(_), _) => answers,
            (Stage::Late { .. }, _) => {
                if answers {
                    self.reason = None;
                }
                answers
            }
        };
        if is_ready {
            self.tries = 0;
            let ask_at = policy.health.map(|health| after(now, health));
            *stage = Stage::Ready { ask_at };
        }
    }

    /// Has a guest be told who it is whose supervisor died before it could do so.
    pub(crate) fn who_is_it(&self, message: &Message<String>) -> Option<Action> {
        let State::Alive { stage, .. } = &self.state else {
            return None;
        };
        let is_asked = stage.question().is_some();
        (is_asked && does_not_know_itself(message)).then_some(Action::Identify)
    }

    pub(crate) fn read(&mut self, now: Instant, line: &str, policy: &Policy) {
        self.keep(line);
        let was_ready = self.was_ready();
        if let State::Alive { symptom, .. } = &mut self.state {
            if let Some((_, reason)) = line.split_once("Kernel panic - not syncing: ") {
                *symptom = Some(Reason::KernelPanic(excerpt(reason)));
            } else if was_ready && line.contains("reboot: Power down") {
                // By a kernel that can switch a machine off.
                symptom.get_or_insert(Reason::PoweredOff);
            }
        }
        if !line.is_empty() {
            self.hear(now, None, policy);
        }
    }

    pub(crate) fn complain(&mut self, line: &str) -> Option<Action> {
        let complaint = Complaint::of(line);
        // What is not a complaint would be shown as what its guest said last.
        if complaint == Complaint::Progress {
            return None;
        }
        self.keep(line);
        let State::Alive { stage, symptom } = &mut self.state else {
            return None;
        };
        if complaint == Complaint::NotRestored && Trouble::in_message(line).is_none() {
            *symptom = Some(Reason::NotRestored(excerpt(line)));
        } else if complaint == Complaint::Terminated {
            *symptom = Some(Reason::Terminated(excerpt(line)));
        } else if let Stage::Booting(_) = stage
            && let Some(trouble) = Trouble::in_message(&excerpt(line))
        {
            // If it ends by that; it may only have said so, and go on.
            symptom.get_or_insert(Reason::Host(trouble));
        }
        // QEMU only stops the vCPU and waits; nothing more will come.
        let is_fatal = complaint == Complaint::KvmInternalError;
        is_fatal.then(|| self.kill(Reason::KvmInternalError(excerpt(line))))
    }

    fn keep(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(excerpt(line));
    }
}

/// Whether a guest replies that it was not told who it is.
fn does_not_know_itself(message: &Message<String>) -> bool {
    matches!(message, Message::Reply { tag: None, output, .. } if output == NOT_IDENTIFIED)
}

/// The beginning of a line, so that a flood is kept in bounds.
fn excerpt(line: &str) -> String {
    line.chars().take(LINE_WIDTH).collect()
}
