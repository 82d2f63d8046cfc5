//! Starts guests as admission allows.

use std::path::Path;
use std::time::Instant;

use super::Supervisor;
use crate::fleet::site::SpawnError;
use crate::fleet::supervisor::{AT_WORK, COMING_UP, Observation, STARTS_A_TURN, token};
use crate::guest::{Event, Phase, admission};
use crate::units::GuestIndex;
use crate::vmm::StartMethod;
use crate::vmm::running::Source;

impl Supervisor {
    pub(super) fn enqueue(&mut self, guest: GuestIndex) {
        if !self.members[guest].lives() {
            self.starts.enqueue(guest);
        }
    }

    /// Starts guests in turn, as long as admission lets one more start.
    pub(super) fn start_admitted(&mut self) {
        if self.is_hopeless() {
            if !self.gave_up {
                self.starts.clear();
            }
            self.gave_up = true;
        } else if self.gave_up && self.count(&AT_WORK) > 0 {
            // The user has guests started all the same.
            self.gave_up = false;
            self.start_planned();
        }
        for _ in 0..STARTS_A_TURN {
            let booting = self.count(&COMING_UP);
            let Some(guest) = self.starts.first(Instant::now(), booting) else {
                return;
            };
            let member = &self.members[guest];
            // What was stopped in the meantime, or lives.
            let is_wanted = matches!(member.guest().phase(), Phase::Planned | Phase::Restarting)
                && !member.lives();
            if is_wanted {
                let living = booting + self.count(&[Phase::Ready, Phase::Unresponsive]);
                let seen =
                    admission::look(Path::new("/"), self.site.memory_room(), booting, living);
                if !self.starts.admits(Instant::now(), &seen) {
                    return;
                }
            }
            self.starts.pop();
            if is_wanted {
                self.start(guest);
            }
        }
    }

    pub(super) fn start(&mut self, guest: GuestIndex) {
        let method = self.site.start_method();
        self.apply(guest, &Event::Start(method));
        if !self.members[guest].guest().phase().is_starting() {
            return;
        }
        if self.members[guest].guest().has_lost_its_own() {
            self.site.replace_port(guest);
        }
        let spawned = self.site.spawn(guest).and_then(|mut running| {
            match running.register(self.poll.registry(), |source| token(guest, source)) {
                Ok(()) => Ok(running),
                Err(error) => {
                    running.kill_and_wait();
                    Err(SpawnError::Process(error))
                }
            }
        });
        match spawned {
            Ok(running) => {
                self.members[guest].runs(running);
                self.notice(guest, Observation::Started);
                if method == StartMethod::Clone {
                    self.restore(guest);
                }
            }
            Err(error) => self.apply(guest, &Event::SpawnFailed(error.reason())),
        }
    }

    /// Has the VMM just started restore its guest.
    fn restore(&mut self, guest: GuestIndex) {
        let token = token(guest, Source::Monitor);
        let Some(running) = self.members[guest].running() else {
            return;
        };
        let begun = self
            .site
            .connect_monitor(guest, running.pid())
            .and_then(|monitor| (running.monitor()).restore(monitor, self.poll.registry(), token));
        // One that ended at once says why on stderr.
        if let Err(error) = begun {
            tracing::debug!("{guest}: its monitor is out of reach: {error}");
        }
    }
}
