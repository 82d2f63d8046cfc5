//! Judges whether a guest that is late got the CPU time to come up or to answer.

use std::time::{Duration, Instant};

use super::state::{Finding, Progress, Question, Stage, State, after};
use super::{Action, Guest, Phase, Policy, Reason};
use crate::vmm::{Chance, MachineState};

/// A VMM has this part of the time for an answer to say what its guest does not:
/// nothing keeps it but the want of CPU time.
const INSPECTION: u32 = 4;
/// How often a guest is looked at, at most, in the time that it has to boot.
const LOOKS: u32 = 10;

impl Guest {
    /// Tells a guest that hangs from one that could not answer.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        chance: Chance,
        policy: &Policy,
    ) -> Option<Action> {
        let was_late = self.phase() == Phase::Unresponsive;
        let State::Alive { stage, .. } = &mut self.state else {
            return None;
        };
        let (question, before) = match stage {
            Stage::Booting(_) => return self.judge_boot(now, chance, policy),
            Stage::Ready { .. } => return None,
            Stage::Adopted(question) | Stage::Asked(question) => (*question, Finding::Starved),
            Stage::Late { question, finding } => (*question, *finding),
        };
        self.unresponsive += u32::from(!was_late);
        if chance.got.stopped {
            *stage = Stage::Late {
                question,
                finding: Finding::Stopped,
            };
            self.reason = Some(Reason::VmmStopped);
            return None;
        }
        if before == Finding::Stopped {
            return Some(self.ask_again(now, question, policy));
        }
        if !before.was_paused() {
            self.reason = Some(Reason::Late(question.silence(now)));
        }
        let inspected = after(now, policy.answer_within / INSPECTION);
        let (due, finding) = match (chance.was_had(), before.was_paused()) {
            (true, false) => (inspected, Finding::Suspected),
            (true, true) => (inspected, Finding::SuspectedAfterPause),
            (false, false) => (question.due, Finding::Starved),
            (false, true) => (question.due, Finding::Paused),
        };
        *stage = Stage::Late {
            question: Question { due, ..question },
            finding,
        };
        // A machine that is paused looks as idle as one that hangs.
        Some(Action::Inspect)
    }

    /// Tells a guest that does not come up from one that could not: that one has
    /// what is left of its time.
    fn judge_boot(&mut self, now: Instant, chance: Chance, policy: &Policy) -> Option<Action> {
        let State::Alive {
            stage: Stage::Booting(boot),
            ..
        } = &mut self.state
        else {
            return None;
        };
        let time = now.saturating_duration_since(boot.started);
        let was_stopped = std::mem::replace(&mut boot.was_stopped, chance.got.stopped);
        if chance.got.stopped {
            self.reason = Some(Reason::VmmStopped);
            return None;
        }
        // What it did not do while it was stopped does not count.
        if !was_stopped {
            let left = policy.boot_timeout.saturating_sub(chance.had());
            if left.is_zero() {
                let reason = match boot.progress {
                    Progress::Silent => Reason::Silent(time),
                    Progress::Restoring | Progress::Runs => Reason::NotReady(time),
                };
                return Some(self.fail(reason));
            }
            boot.look_at = after(now, left.max(policy.boot_timeout / LOOKS));
        }
        self.reason = Some(Reason::SlowBoot(time));
        None
    }

    /// Takes what its VMM says of a guest that is late.
    pub(crate) fn explain(
        &mut self,
        now: Instant,
        machine: MachineState,
        policy: &Policy,
    ) -> Option<Action> {
        let State::Alive {
            stage: Stage::Late { question, finding },
            ..
        } = self.state
        else {
            return None;
        };
        match machine {
            MachineState::Running if finding.was_paused() => {
                Some(self.ask_again(now, question, policy))
            }
            MachineState::Running if finding.is_suspicion() => {
                Some(self.hang(question.silence(now)))
            }
            MachineState::Running => None,
            MachineState::DiskFailed => self.pause(now, Reason::DiskFailed, policy),
            MachineState::Paused => self.pause(now, Reason::Paused, policy),
            // Who was to have it restored died meanwhile.
            MachineState::Restoring => Some(self.fail_late(Reason::HalfRestored)),
            MachineState::Dead => Some(self.fail_late(Reason::Dead)),
        }
    }

    /// Leaves a guest alone that is late, and that nobody can ask.
    pub(crate) fn lose_sight(&mut self, now: Instant, policy: &Policy) -> Option<Action> {
        self.pause(now, Reason::OutOfReach, policy)
    }

    /// Leaves a guest alone that is late and cannot answer, until it is looked at
    /// again.
    fn pause(&mut self, now: Instant, reason: Reason, policy: &Policy) -> Option<Action> {
        if let State::Alive { stage, .. } = &mut self.state
            && let Stage::Late { question, finding } = stage
        {
            question.due = after(now, policy.answer_within);
            *finding = Finding::Paused;
            self.reason = Some(reason);
        }
        None
    }

    /// Gives a guest that can run again all of its time: what it did not do while
    /// it could not does not count.
    fn ask_again(&mut self, now: Instant, question: Question, policy: &Policy) -> Action {
        self.reason = Some(Reason::Late(question.silence(now)));
        if let State::Alive { stage, .. } = &mut self.state {
            *stage = Stage::Late {
                question: Question::ask(now, policy),
                finding: Finding::Starved,
            };
        }
        Action::Ask
    }

    /// Ends a guest that could have answered.
    pub(crate) fn hang(&mut self, silence: Duration) -> Action {
        self.fail_late(Reason::NoAnswer(silence))
    }

    /// Ends a guest that is unresponsive, and tells why before it is gone.
    fn fail_late(&mut self, reason: Reason) -> Action {
        let reason = self.cause(reason);
        self.reason = Some(reason.clone());
        self.kill(reason)
    }
}
