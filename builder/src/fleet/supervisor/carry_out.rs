//! Carries out what the state machines of guests ask for.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tty_init::wall_time::WallTime;

use super::Supervisor;
use crate::fleet::supervisor::{CLASSIFY_AGAIN, COMING_UP, Observation, SILENCE};
use crate::guest::{Action, Event, Phase, Trouble};
use crate::units::GuestIndex;

impl Supervisor {
    /// Feeds the state machine, does what it asks for and
    /// tells of a change.
    pub(super) fn apply(&mut self, guest: GuestIndex, event: &Event<'_>) {
        let now = Instant::now();
        let before = self.members[guest].guest().phase();
        let jitter = self.jitter.next();
        let actions = self.members.apply(guest, now, jitter, event, &self.policy);
        if actions.changed {
            if COMING_UP.contains(&before) {
                // There may be room for another.
                self.starts.look_now();
            }
            self.classify(guest);
            let after = self.members[guest].guest().phase();
            self.notice(guest, Observation::State(after));
            self.judge_start(guest, before, event);
        }
        for action in actions {
            self.act(guest, action, now);
        }
        self.arm(guest);
    }

    /// Takes note of a start that came to nothing, or of one that went well.
    pub(super) fn judge_start(&mut self, guest: GuestIndex, before: Phase, event: &Event<'_>) {
        let machine = self.members[guest].guest();
        if machine.phase() == Phase::Ready {
            // One that answers late again tells nothing of starts.
            if COMING_UP.contains(&before) {
                self.starts.end_trouble();
            }
            return;
        }
        if !before.lives() {
            return;
        }
        let trouble = machine.trouble();
        if let Some(trouble @ Trouble::Short(_)) = trouble {
            let jitter = self.jitter.next();
            self.starts.meet_trouble(Instant::now(), jitter, trouble);
        }
        if trouble.is_some() || matches!(event, Event::SpawnFailed(_)) {
            let (phase, restarts) = (machine.phase(), machine.restarts());
            self.notice(guest, Observation::NotStarted { phase, restarts });
        }
    }

    pub(super) fn act(&mut self, guest: GuestIndex, action: Action, now: Instant) {
        let Some(running) = self.members[guest].running() else {
            if action == Action::Spawn {
                self.enqueue(guest);
            }
            return;
        };
        match action {
            Action::Spawn => {}
            Action::Ask => {
                running.ask();
                self.times.arm(guest, now + SILENCE);
            }
            Action::Measure => {
                let chance = running.chance(now);
                self.apply(guest, &Event::Chance(chance));
            }
            Action::Inspect => self.inspect(guest),
            Action::Identify => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let time = WallTime(now.unwrap_or_default());
                // One that does not hear it is not ready in time.
                let _ = running.send(&format!("identify {time}"));
            }
            // Where its console takes nothing, force comes after the grace.
            Action::PowerOff => drop(running.send("poweroff")),
            Action::Kill => running.kill(),
        }
    }

    /// Puts a guest into its CPU class.
    pub(super) fn classify(&mut self, guest: GuestIndex) {
        // It may have gone with a smaller number of guests.
        let Some(member) = self.members().get(guest) else {
            return;
        };
        if let Some(pid) = member.pid()
            && !self.site.classify(member.class(), pid)
            && !self.unclassed.contains(&guest)
        {
            self.unclassed.push_back(guest);
            self.classify_at = Instant::now() + CLASSIFY_AGAIN;
        }
    }

    /// Puts those into their CPU classes that have waited for it.
    pub(super) fn classify_again(&mut self, now: Instant) {
        if self.classify_at <= now
            && let Some(guest) = self.unclassed.pop_front()
        {
            self.classify_at = now + CLASSIFY_AGAIN;
            self.classify(guest);
        }
    }
}
