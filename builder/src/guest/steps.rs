//! The steps of a guest's state machine, one for each kind of event.

use std::time::{Duration, Instant};

use tty_init::protocol::Message;

use super::{Action, Guest, OnTrouble, Phase, Policy, Reason, SETTLED, TRY_ON, Trouble};
use crate::guest::Desired;
use crate::text::printable;
use crate::vmm::qemu::Complaint;
use crate::vmm::{Chance, End, Machine};

/// Console lines that are kept for the message about a guest that fails.
pub(crate) const TAIL_LINES: usize = 4;
/// Longest of them, and of a line that is a reason, in characters.
pub(crate) const LINE_WIDTH: usize = 160;
/// A VMM has this part of the time for an answer to say what its guest does not:
/// nothing keeps it but the want of CPU time.
const INSPECTION: u32 = 4;
/// How often a guest is looked at, at most, in the time that it has to boot.
const LOOKS: u32 = 10;
/// A longer time is as good as none, and one that a clock can still take.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Guest {
    pub(crate) fn start(&mut self, now: Instant, policy: &Policy) {
        // One with a backoff ahead of it was asked for in an earlier life.
        if self.due.is_some() || !matches!(self.phase, Phase::Planned | Phase::Restarting) {
            return;
        }
        self.is_again = self.phase == Phase::Restarting;
        self.restarts += u32::from(self.is_again);
        self.phase = Phase::Starting;
        self.started = Some(now);
        self.ready_after = None;
        self.due = Some(after(now, policy.boot_timeout));
        self.omen = None;
        self.status = None;
        self.tail.clear();
    }

    /// It may have been ready for long, or be about to boot: it has the time for
    /// either.
    pub(crate) fn adopt(&mut self, now: Instant, policy: &Policy) -> Option<Action> {
        if self.phase != Phase::Planned {
            return None;
        }
        self.phase = Phase::Starting;
        self.asked = Some(now);
        self.due = Some(after(now, policy.boot_timeout.max(policy.answer_within)));
        Some(Action::Ask)
    }

    /// Takes what its console said; `None` is text.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        message: Option<&Message<String>>,
        policy: &Policy,
    ) {
        if !self.phase.lives() {
            return;
        }
        if let Some(Message::Ready { status, .. } | Message::Heartbeat { status, .. }) = message {
            self.status = Some(*status);
        }
        if let Some(Message::Fatal { reason, .. }) = message {
            self.omen = Some(Reason::Fatal(excerpt(&printable(reason))));
        }
        if self.fate.is_some() {
            return;
        }
        let answers = matches!(
            message,
            Some(Message::Ready { .. } | Message::Heartbeat { .. } | Message::Reply { .. })
        );
        if answers {
            // Whatever its console said before, it goes on.
            self.omen = None;
        }
        match (self.phase, message) {
            (Phase::Starting | Phase::Booting, Some(Message::Ready { .. })) => {
                self.ready_after = self.started.map(|at| now.saturating_duration_since(at));
                // What kept it is over; why it was started again is still told.
                self.reason = (self.reason.take()).filter(|reason| !reason.is_delay());
                self.be_ready();
            }
            (Phase::Starting, Some(Message::Heartbeat { .. })) if self.is_adopted() => {
                self.be_ready();
            }
            (Phase::Starting, _) if !self.is_adopted() => self.phase = Phase::Booting,
            (Phase::Unresponsive, _) if answers => {
                self.reason = None;
                self.be_ready();
            }
            (Phase::Ready, _) => {
                self.asked = self.asked.filter(|_| !answers);
                self.settle(now);
            }
            _ => {}
        }
        // Any sign of life puts the next question off, but not the answer.
        if self.phase == Phase::Ready && self.asked.is_none() {
            self.due = policy.health.map(|health| after(now, health));
        }
    }

    pub(crate) fn read(&mut self, now: Instant, line: &str, policy: &Policy) {
        self.keep(line);
        if let Some((_, reason)) = line.split_once("Kernel panic - not syncing: ") {
            self.omen = Some(Reason::KernelPanic(excerpt(reason)));
        } else if self.was_ready() && line.contains("reboot: Power down") {
            // Of an adopted guest, no exit status tells.
            self.omen.get_or_insert(Reason::PoweredOff);
        }
        if !line.is_empty() {
            self.hear(now, None, policy);
        }
    }

    pub(crate) fn complain(&mut self, line: &str) -> Option<Action> {
        let complaint = Complaint::of(line);
        // What is no complaint would be shown as what its guest said last.
        if complaint == Complaint::Progress {
            return None;
        }
        self.keep(line);
        if self.is_booting()
            && let Some(trouble) = Trouble::told_by(&excerpt(line))
        {
            // If it ends by that; it may only have said so, and go on.
            self.omen.get_or_insert(Reason::Host(trouble));
        }
        let fatal = complaint == Complaint::KvmInternalError;
        if !fatal || !self.phase.lives() || self.fate.is_some() {
            return None;
        }
        // QEMU only stops the vCPU and waits; nothing more will come.
        Some(self.kill(Reason::KvmInternalError(excerpt(line))))
    }

    pub(crate) fn tick(&mut self, now: Instant, policy: &Policy) -> Option<Action> {
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.due = None;
        if let Some(fate) = self.fate.take() {
            return Some(self.kill(fate));
        }
        match self.phase {
            Phase::Planned | Phase::Restarting => Some(Action::Spawn),
            // Its VMM has nothing to say for it.
            Phase::Unresponsive if self.suspected => Some(self.hang(now)),
            _ if self.asked.is_some() => {
                self.due = Some(after(now, policy.answer_within));
                Some(Action::Measure)
            }
            Phase::Ready => {
                self.asked = Some(now);
                self.due = Some(after(now, policy.answer_within));
                Some(Action::Ask)
            }
            Phase::Starting | Phase::Booting => {
                self.due = Some(after(now, policy.boot_timeout));
                Some(Action::Measure)
            }
            Phase::Unresponsive | Phase::Exited | Phase::Failed => None,
        }
    }

    /// Tells a guest that hangs from one that could not answer.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        chance: Chance,
        policy: &Policy,
    ) -> Option<Action> {
        if self.fate.is_some() {
            return None;
        }
        if self.is_booting() {
            return self.judge_boot(now, chance, policy);
        }
        let asked = self.asked?;
        let silence = now.saturating_duration_since(asked);
        let was_stopped = self.reason == Some(Reason::VmmStopped);
        if self.phase != Phase::Unresponsive {
            self.phase = Phase::Unresponsive;
            self.unresponsive += 1;
        }
        if chance.got.stopped {
            self.reason = Some(Reason::VmmStopped);
            return None;
        }
        if was_stopped {
            // What it did not do while it was stopped does not count.
            self.reason = Some(Reason::Late(silence));
            self.asked = Some(now);
            self.due = Some(after(now, policy.answer_within));
            return Some(Action::Ask);
        }
        if !self.is_paused() {
            self.reason = Some(Reason::Late(silence));
        }
        // A machine that is paused looks as idle as one that hangs.
        self.suspected = chance.was_had();
        if self.suspected {
            self.due = Some(after(now, policy.answer_within / INSPECTION));
        }
        Some(Action::Inspect)
    }

    /// Tells a guest that does not come up from one that could not: that one has
    /// what is left of its time.
    fn judge_boot(&mut self, now: Instant, chance: Chance, policy: &Policy) -> Option<Action> {
        let time = self.started.map_or(Duration::ZERO, |started| {
            now.saturating_duration_since(started)
        });
        // What it did not do while it was stopped does not count.
        let was_stopped = self.reason == Some(Reason::VmmStopped);
        if chance.got.stopped {
            self.reason = Some(Reason::VmmStopped);
            return None;
        }
        let left = policy.boot_timeout.saturating_sub(chance.had());
        if !was_stopped && left.is_zero() {
            return Some(self.fail(match self.phase {
                Phase::Starting => Reason::Silent(time),
                _ => Reason::NotReady(time),
            }));
        }
        if !was_stopped {
            self.due = Some(after(now, left.max(policy.boot_timeout / LOOKS)));
        }
        self.reason = Some(Reason::SlowBoot(time));
        None
    }

    /// Takes what its VMM says of a guest that is late.
    pub(crate) fn explain(
        &mut self,
        now: Instant,
        machine: Machine,
        policy: &Policy,
    ) -> Option<Action> {
        let asked = self.asked?;
        if self.phase != Phase::Unresponsive || self.fate.is_some() {
            return None;
        }
        let was_paused = self.is_paused();
        let was_suspected = std::mem::take(&mut self.suspected);
        match machine {
            Machine::Running if was_paused => {
                // What it did not do while it was paused does not count.
                self.reason = Some(Reason::Late(now.saturating_duration_since(asked)));
                self.asked = Some(now);
                self.due = Some(after(now, policy.answer_within));
                Some(Action::Ask)
            }
            Machine::Running if was_suspected => Some(self.hang(now)),
            Machine::Running => None,
            Machine::DiskFailed => self.pause(now, Reason::DiskFailed, policy),
            Machine::Paused => self.pause(now, Reason::Paused, policy),
            Machine::Dead => Some(self.fail_late(Reason::Dead)),
        }
    }

    /// Leaves a guest alone that is late, and that nobody can ask.
    pub(crate) fn lose_sight(&mut self, now: Instant, policy: &Policy) -> Option<Action> {
        self.asked?;
        if self.phase != Phase::Unresponsive || self.fate.is_some() {
            return None;
        }
        self.suspected = false;
        self.pause(now, Reason::OutOfReach, policy)
    }

    /// Leaves a guest alone that cannot answer, until it is looked at again.
    fn pause(&mut self, now: Instant, reason: Reason, policy: &Policy) -> Option<Action> {
        self.reason = Some(reason);
        self.due = Some(after(now, policy.answer_within));
        None
    }

    /// Ends a guest that could have answered.
    fn hang(&mut self, now: Instant) -> Action {
        let asked = self.asked.unwrap_or(now);
        self.fail_late(Reason::NoAnswer(now.saturating_duration_since(asked)))
    }

    /// Ends a guest that is unresponsive, and tells why before it is gone.
    fn fail_late(&mut self, reason: Reason) -> Action {
        let action = self.fail(reason);
        self.reason.clone_from(&self.fate);
        action
    }

    pub(crate) fn stop(&mut self, now: Instant, grace: Duration) -> Option<Action> {
        self.desired = Desired::Down;
        self.anew = false;
        match self.phase {
            Phase::Exited => None,
            Phase::Planned | Phase::Restarting | Phase::Failed => {
                self.phase = Phase::Exited;
                self.reason = Some(Reason::Stopped);
                self.due = None;
                None
            }
            _ => self.power_off(now, grace),
        }
    }

    pub(crate) fn restart(&mut self, now: Instant, grace: Duration) -> Option<Action> {
        self.desired = Desired::Up;
        self.ends = 0;
        match self.phase {
            Phase::Planned | Phase::Restarting => {
                self.due = None;
                Some(Action::Spawn)
            }
            Phase::Exited | Phase::Failed => {
                self.phase = Phase::Restarting;
                Some(Action::Spawn)
            }
            _ => {
                self.anew = true;
                self.power_off(now, grace)
            }
        }
    }

    /// Ends a living guest by its own power-off where it listens.
    fn power_off(&mut self, now: Instant, grace: Duration) -> Option<Action> {
        let killed = self.fate.is_some() && self.due.is_none();
        if killed {
            return None;
        }
        if !self.was_ready() && !self.is_adopted() {
            return Some(self.kill(Reason::Stopped));
        }
        self.fate = Some(Reason::Stopped);
        self.due = Some(after(now, grace));
        Some(Action::PowerOff)
    }

    fn fail(&mut self, reason: Reason) -> Action {
        // A VMM that lives got what the host was short of.
        let omen = (self.omen.take()).filter(|omen| !matches!(omen, Reason::Host(_)));
        self.kill(omen.unwrap_or(reason))
    }

    pub(crate) fn kill(&mut self, fate: Reason) -> Action {
        self.fate = Some(fate);
        self.due = None;
        Action::Kill
    }

    /// Takes the end of its VMM, or that it has none.
    pub(crate) fn end(
        &mut self,
        now: Instant,
        jitter: f64,
        reason: Reason,
        policy: &Policy,
    ) -> Option<Action> {
        self.settle(now);
        self.due = None;
        self.asked = None;
        self.suspected = false;
        let mut reason = self.fate.take().unwrap_or(reason);
        let anew = std::mem::take(&mut self.anew);
        let mut action = None;
        if self.desired == Desired::Down {
            reason = Reason::Stopped;
            self.phase = Phase::Exited;
        } else if anew {
            self.ends = 0;
            self.phase = Phase::Restarting;
            action = Some(Action::Spawn);
        } else if let Reason::Host(trouble) = &reason
            && policy.on_trouble == OnTrouble::TryOn
        {
            action = self.hold_back(now, jitter, trouble);
        } else {
            // The user's wish is not held against it.
            self.ends += u32::from(reason != Reason::Killed);
            self.phase = if !policy.replaces(&reason) && !reason.is_failure() {
                Phase::Exited
            } else if !policy.replaces(&reason) || self.ends >= policy.give_up {
                Phase::Failed
            } else {
                self.due = Some(after(now, policy.backoff.delay(self.ends, jitter)));
                Phase::Restarting
            };
        }
        self.reason = Some(reason);
        action
    }

    /// Leaves a guest where it was before a start that the host kept from coming to
    /// anything. What all starts lack is waited for by all together.
    fn hold_back(&mut self, now: Instant, jitter: f64, trouble: &Trouble) -> Option<Action> {
        self.restarts -= u32::from(self.is_again);
        self.phase = if self.is_again {
            Phase::Restarting
        } else {
            Phase::Planned
        };
        match trouble {
            Trouble::Short(_) => Some(Action::Spawn),
            Trouble::Taken(_) => {
                self.tries = self.tries.saturating_add(1);
                self.due = Some(after(now, TRY_ON.delay(self.tries, jitter)));
                None
            }
        }
    }

    /// Why its VMM ended, where nobody asked for it.
    pub(crate) fn reason_of(&mut self, end: End) -> Reason {
        match (self.omen.take(), end) {
            (_, End::Signal { by_oom: true, .. }) if self.is_booting() => {
                Reason::Host(Trouble::Short(Reason::OomKilled.to_string()))
            }
            (_, End::Signal { by_oom: true, .. }) => Reason::OomKilled,
            (Some(omen), end) if end != End::Code(0) || !matches!(omen, Reason::Host(_)) => omen,
            // Before it is ready, a status of 0 is a reset of the machine.
            (_, End::Code(0)) if self.was_ready() => Reason::PoweredOff,
            (_, end) => Reason::Ended(end),
        }
    }

    fn be_ready(&mut self) {
        self.phase = Phase::Ready;
        self.tries = 0;
        self.asked = None;
        self.suspected = false;
    }

    /// Forgets earlier ends once it has been ready for long enough.
    fn settle(&mut self, now: Instant) {
        let ready = self.since.filter(|_| self.phase == Phase::Ready);
        if ready.is_some_and(|since| now.saturating_duration_since(since) >= SETTLED) {
            self.ends = 0;
        }
    }

    /// Whether it was ready in this life, and listens to its console.
    fn was_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Unresponsive)
    }

    /// Whether this supervisor started it, and it has not reported ready.
    fn is_booting(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Booting) && self.asked.is_none()
    }

    /// Whether its VMM last said that it is paused, or could not be asked.
    fn is_paused(&self) -> bool {
        matches!(
            self.reason,
            Some(Reason::DiskFailed | Reason::Paused | Reason::OutOfReach)
        )
    }

    /// Whether it was adopted, and has not answered yet.
    fn is_adopted(&self) -> bool {
        self.phase == Phase::Starting && self.asked.is_some()
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

/// The beginning of a line, so that a flood is kept in bounds.
fn excerpt(line: &str) -> String {
    line.chars().take(LINE_WIDTH).collect()
}

fn after(now: Instant, time: Duration) -> Instant {
    now + time.min(FOREVER)
}
