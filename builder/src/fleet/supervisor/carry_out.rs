//! What guests' state machines ask for, carried out.

use std::time::Instant;

use super::Supervisor;
use crate::fleet::supervisor::{CLASSIFY_AGAIN, Observation, SILENCE};
use crate::guest::{Action, Event, Phase, Trouble};

impl Supervisor {
    /// Feeds the state machine, does what it asks for and
    /// tells of a change.
    pub(super) fn apply(&mut self, which: usize, event: &Event<'_>) {
        let now = Instant::now();
        let before = self.members[which].guest().phase();
        let jitter = self.jitter.next();
        let actions = self.members.apply(which, now, jitter, event, &self.policy);
        if actions.changed {
            if matches!(before, Phase::Starting | Phase::Booting) {
                // There may be room for another.
                self.starts.look_now();
            }
            self.classify(which);
            let after = self.members[which].guest().phase();
            self.notice(which, Observation::State(after));
            self.judge_start(which, before, event);
        }
        for action in actions {
            self.act(which, action, now);
        }
        self.arm(which);
    }

    /// Takes note of a start that came to nothing, or of one that went well.
    pub(super) fn judge_start(&mut self, which: usize, before: Phase, event: &Event<'_>) {
        let guest = self.members[which].guest();
        if guest.phase() == Phase::Ready {
            // One that answers late again tells nothing of starts.
            if matches!(before, Phase::Starting | Phase::Booting) {
                self.starts.end_trouble();
            }
            return;
        }
        if !before.lives() {
            return;
        }
        let trouble = guest.trouble();
        if let Some(trouble @ Trouble::Short(_)) = trouble {
            let jitter = self.jitter.next();
            self.starts.meet_trouble(Instant::now(), jitter, trouble);
        }
        if trouble.is_some() || matches!(event, Event::SpawnFailed(_)) {
            let (phase, restarts) = (guest.phase(), guest.restarts());
            self.notice(which, Observation::NotStarted { phase, restarts });
        }
    }

    pub(super) fn act(&mut self, which: usize, action: Action, now: Instant) {
        let Some(running) = self.members[which].running() else {
            if action == Action::Spawn {
                self.enqueue(which);
            }
            return;
        };
        match action {
            Action::Spawn => {}
            Action::Ask => {
                running.ask();
                self.times.arm(which, now + SILENCE);
            }
            Action::Measure => {
                let chance = running.chance(now);
                self.apply(which, &Event::Chance(chance));
            }
            Action::Inspect => self.inspect(which),
            // Where its console takes nothing, force comes after the grace.
            Action::PowerOff => drop(running.send("poweroff")),
            Action::Kill => running.kill(),
        }
    }

    /// Puts a guest into its CPU class.
    pub(super) fn classify(&mut self, which: usize) {
        // It may have gone with a smaller number of guests.
        let Some(member) = self.members().get(which) else {
            return;
        };
        if let Some(pid) = member.pid()
            && !self.site.classify(member.class(), pid)
            && !self.unclassed.contains(&which)
        {
            self.unclassed.push_back(which);
            self.classify_at = Instant::now() + CLASSIFY_AGAIN;
        }
    }

    /// Puts those into their CPU classes that have waited for it.
    pub(super) fn classify_again(&mut self, now: Instant) {
        if self.classify_at <= now
            && let Some(which) = self.unclassed.pop_front()
        {
            self.classify_at = now + CLASSIFY_AGAIN;
            self.classify(which);
        }
    }
}
