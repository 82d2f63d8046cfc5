//! The steps by which a guest starts and ends.

use std::mem;
use std::time::{Duration, Instant};

use super::state::{AfterEnd, Boot, Progress, Question, Stage, Start, State, after};
use super::{Action, Desired, Guest, OnTrouble, Phase, Policy, Reason, SETTLED, TRY_ON, Trouble};
use crate::vmm::{End, StartMethod};

impl Guest {
    pub(crate) fn start(&mut self, now: Instant, method: StartMethod, policy: &Policy) {
        // One with a backoff ahead of it was asked for in an earlier life.
        let State::Waiting { start, until: None } = self.state else {
            return;
        };
        self.restarts += u32::from(start == Start::Again);
        self.state = State::alive(Stage::Booting(Boot {
            start,
            started: now,
            look_at: after(now, policy.boot_timeout),
            progress: method.into(),
            was_stopped: false,
        }));
        self.ready_after = None;
        self.status = None;
        self.tail.clear();
    }

    /// It may have been ready for long, or be about to boot: it has the time for
    /// either.
    pub(crate) fn adopt(&mut self, now: Instant, policy: &Policy) -> Option<Action> {
        if self.phase() != Phase::Planned {
            return None;
        }
        self.state = State::alive(Stage::Adopted(Question {
            asked: now,
            due: after(now, policy.boot_timeout.max(policy.answer_within)),
        }));
        Some(Action::Ask)
    }

    /// Whether its VMM restores it, and is to go on.
    pub(crate) fn is_restoring(&self) -> bool {
        matches!(&self.state, State::Alive { stage: Stage::Booting(boot), .. }
            if boot.progress == Progress::Restoring)
    }

    /// Its VMM has restored it, and it is told who it is.
    pub(crate) fn restored(&mut self) -> Option<Action> {
        match &mut self.state {
            State::Alive {
                stage: Stage::Booting(boot),
                ..
            } if boot.progress == Progress::Restoring => {
                boot.progress = Progress::Runs;
                Some(Action::Identify)
            }
            _ => None,
        }
    }

    pub(crate) fn tick(&mut self, now: Instant, policy: &Policy) -> Option<Action> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        match &mut self.state {
            State::Waiting { until, .. } => {
                *until = None;
                Some(Action::Spawn)
            }
            State::Alive { stage, .. } => match stage {
                Stage::Booting(boot) => {
                    boot.look_at = after(now, policy.boot_timeout);
                    Some(Action::Measure)
                }
                Stage::Ready { .. } => {
                    *stage = Stage::Asked(Question::ask(now, policy));
                    Some(Action::Ask)
                }
                // Its VMM has nothing to say for it.
                Stage::Late { question, finding } if finding.is_suspicion() => {
                    let silence = question.silence(now);
                    Some(self.hang(silence))
                }
                Stage::Adopted(question)
                | Stage::Asked(question)
                | Stage::Late { question, .. } => {
                    question.due = after(now, policy.answer_within);
                    Some(Action::Measure)
                }
            },
            State::PoweringOff { .. } => Some(self.kill(Reason::Stopped)),
            State::Exited(_) | State::Failed | State::Killed { .. } => None,
        }
    }

    pub(crate) fn stop(&mut self, now: Instant, grace: Duration) -> Option<Action> {
        match self.state {
            State::Exited(_) => {
                self.state = State::Exited(Desired::Down);
                None
            }
            State::Waiting { .. } | State::Failed => {
                self.state = State::Exited(Desired::Down);
                self.reason = Some(Reason::Stopped);
                None
            }
            _ => self.power_off(now, grace, AfterEnd::StayDown),
        }
    }

    pub(crate) fn restart(&mut self, now: Instant, grace: Duration) -> Option<Action> {
        self.ends = 0;
        let start = match self.state {
            State::Waiting { start, .. } => start,
            State::Exited(_) | State::Failed => Start::Again,
            _ => return self.power_off(now, grace, AfterEnd::ComeBack),
        };
        self.state = State::Waiting { start, until: None };
        Some(Action::Spawn)
    }

    /// Ends a living guest by its own power-off where it listens.
    fn power_off(&mut self, now: Instant, grace: Duration, then: AfterEnd) -> Option<Action> {
        let phase = self.phase();
        match &mut self.state {
            State::Killed { then: later, .. } => {
                *later = Some(then);
                None
            }
            State::Alive {
                stage: Stage::Booting(_),
                ..
            } => {
                self.state = State::Killed {
                    phase,
                    fate: Reason::Stopped,
                    then: Some(then),
                };
                Some(Action::Kill)
            }
            _ => {
                self.state = State::PoweringOff {
                    phase,
                    deadline: after(now, grace),
                    then,
                };
                Some(Action::PowerOff)
            }
        }
    }

    /// Ends a guest that did what it could not go on after.
    pub(crate) fn fail(&mut self, reason: Reason) -> Action {
        let reason = self.cause(reason);
        self.kill(reason)
    }

    /// Why a guest fails: what it gave away, or else `reason`.
    pub(crate) fn cause(&mut self, reason: Reason) -> Reason {
        // A VMM that lives got what the host was short of.
        let symptom = (self.take_symptom()).filter(|symptom| !matches!(symptom, Reason::Host(_)));
        symptom.unwrap_or(reason)
    }

    /// Has a living guest's VMM killed. Where its end was asked for before, the
    /// reason for that stays, and so does what the user wants after it.
    pub(crate) fn kill(&mut self, fate: Reason) -> Action {
        let phase = self.phase();
        let (fate, then) = match mem::take(&mut self.state) {
            State::PoweringOff { then, .. } => (Reason::Stopped, Some(then)),
            State::Killed { fate, then, .. } => (fate, then),
            _ => (fate, None),
        };
        self.state = State::Killed { phase, fate, then };
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
        let start = self.state.start();
        let (reason, then) = match mem::take(&mut self.state) {
            State::PoweringOff { then, .. } => (Reason::Stopped, Some(then)),
            State::Killed { fate, then, .. } => (fate, then),
            _ => (reason, None),
        };
        let again = |until| State::Waiting {
            start: Start::Again,
            until,
        };
        let mut action = None;
        let (state, reason) = match (then, reason) {
            (Some(AfterEnd::StayDown), _) => (State::Exited(Desired::Down), Reason::Stopped),
            (Some(AfterEnd::ComeBack), reason) => {
                self.ends = 0;
                action = Some(Action::Spawn);
                (again(None), reason)
            }
            (None, Reason::Host(trouble)) if policy.on_trouble == OnTrouble::TryOn => {
                let until = self.hold_back(now, jitter, start, &trouble);
                action = until.is_none().then_some(Action::Spawn);
                (State::Waiting { start, until }, Reason::Host(trouble))
            }
            (None, reason) => {
                // What the user asked for does not count against it.
                self.ends += u32::from(reason != Reason::Killed);
                let state = if !policy.replaces(&reason) && !reason.is_failure() {
                    State::Exited(Desired::Up)
                } else if !policy.replaces(&reason) || self.ends >= policy.give_up {
                    State::Failed
                } else {
                    again(Some(after(now, policy.backoff.delay(self.ends, jitter))))
                };
                (state, reason)
            }
        };
        self.state = state;
        self.reason = Some(reason);
        action
    }

    /// Undoes a start that the host kept from coming to anything, and gives how
    /// long the guest waits alone. What all starts lack is waited for by all
    /// together.
    fn hold_back(
        &mut self,
        now: Instant,
        jitter: f64,
        start: Start,
        trouble: &Trouble,
    ) -> Option<Instant> {
        self.restarts -= u32::from(start == Start::Again);
        match trouble {
            Trouble::Short(_) => None,
            Trouble::Taken(_) => {
                self.tries = self.tries.saturating_add(1);
                Some(after(now, TRY_ON.delay(self.tries, jitter)))
            }
        }
    }

    /// Why its VMM ended, where nobody asked for it.
    pub(crate) fn reason_of(&mut self, end: End) -> Reason {
        match (self.take_symptom(), end) {
            (_, End::Signal { by_oom: true, .. }) if self.is_booting() => {
                Reason::Host(Trouble::Short(Reason::OomKilled.to_string()))
            }
            (_, End::Signal { by_oom: true, .. }) => Reason::OomKilled,
            (Some(symptom), end) if end != End::Code(0) || !matches!(symptom, Reason::Host(_)) => {
                symptom
            }
            // An init that ends says so before. A kernel that panics may reset its
            // machine too, but before it is ready more may have gone wrong.
            (_, End::Code(0)) if self.was_ready() => Reason::Reset,
            (_, end) => Reason::Ended(end),
        }
    }

    /// Forgets earlier ends once it has been ready for long enough.
    pub(crate) fn settle(&mut self, now: Instant) {
        let ready = self.since.filter(|_| self.phase() == Phase::Ready);
        if ready.is_some_and(|since| now.saturating_duration_since(since) >= SETTLED) {
            self.ends = 0;
        }
    }

    /// Whether it was ready in this life, and listens to its console.
    pub(crate) fn was_ready(&self) -> bool {
        matches!(self.phase(), Phase::Ready | Phase::Unresponsive)
    }

    /// Whether this supervisor started it, and it has not reported ready.
    fn is_booting(&self) -> bool {
        matches!(
            self.state,
            State::Alive {
                stage: Stage::Booting(_),
                ..
            }
        )
    }

    fn take_symptom(&mut self) -> Option<Reason> {
        match &mut self.state {
            State::Alive { symptom, .. } => symptom.take(),
            _ => None,
        }
    }
}
