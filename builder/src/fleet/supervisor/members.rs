//! The guests of a fleet, each with its VMM while that lives, and how many are
//! in which state.

use std::ops::{Index, IndexMut};
use std::time::Instant;

use crate::control::types::Totals;
use crate::guest::counts::{Counts, recount};
use crate::guest::{Actions, Event, Guest, Phase, Policy};
use crate::placement::Class;
use crate::units::GuestIndex;
use crate::vmm::running::Running;

/// A guest of the fleet.
#[derive(Debug)]
pub struct Member {
    index: GuestIndex,
    guest: Guest,
    running: Option<Running>,
    /// A heartbeat was asked for and has not come.
    asked: bool,
    /// It was told to burn since its last start.
    told_to_burn: bool,
    /// It is `urgent` for somebody who asks it.
    attended: u32,
}

impl Member {
    fn new(index: GuestIndex) -> Self {
        Self {
            index,
            guest: Guest::default(),
            running: None,
            asked: false,
            told_to_burn: false,
            attended: 0,
        }
    }

    /// Its place in the fleet.
    pub fn index(&self) -> GuestIndex {
        self.index
    }

    /// Its state machine.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Process id of its VMM, while that lives.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::pid)
    }

    /// Whether its VMM lives.
    pub fn lives(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it was asked for a heartbeat that has not come.
    pub fn owes_an_answer(&self) -> bool {
        self.asked && self.is_ready()
    }

    /// Whether it reported ready and answers.
    pub fn is_ready(&self) -> bool {
        self.guest.phase() == Phase::Ready
    }

    /// Its VMM, while that lives.
    pub(crate) fn running(&mut self) -> Option<&mut Running> {
        self.running.as_mut()
    }

    /// Its VMM was started or adopted.
    pub(crate) fn runs(&mut self, running: Running, told_to_burn: bool) {
        self.running = Some(running);
        self.told_to_burn = told_to_burn;
    }

    pub(crate) fn ended(&mut self) -> Option<Running> {
        self.running.take()
    }

    /// Types a line on its console; `false` if it has none, or one that takes no
    /// more.
    pub(crate) fn type_line(&mut self, line: &str) -> bool {
        let running = self.running.as_mut();
        running.is_some_and(|running| running.type_line(line))
    }

    /// Sends a command of our own; `false` as above.
    fn send(&mut self, command: &str) -> bool {
        let running = self.running.as_mut();
        running.is_some_and(|running| running.send(command))
    }

    /// Asks it for a heartbeat, if it is ready.
    pub(crate) fn ask_for_heartbeat(&mut self) {
        self.asked = self.is_ready();
        if self.asked {
            self.send("heartbeat");
        }
    }

    pub(crate) fn answered(&mut self) {
        self.asked = false;
    }

    /// Tells it to burn, once in each of its lives.
    pub(crate) fn burn(&mut self, duty: u8) {
        if !self.told_to_burn {
            self.told_to_burn = self.send(&format!("burn {duty}"));
        }
    }

    pub(crate) fn attend(&mut self) {
        self.attended += 1;
    }

    /// Somebody does not ask it any more.
    pub(crate) fn leave(&mut self) {
        self.attended = self.attended.saturating_sub(1);
    }

    /// Its CPU class: `running` while it is ready and nobody asks it, else
    /// `urgent`.
    pub(crate) fn class(&self) -> Class {
        let is_quiet = matches!(self.guest.phase(), Phase::Ready | Phase::Unresponsive);
        if is_quiet && self.attended == 0 {
            Class::Running
        } else {
            Class::Urgent
        }
    }
}

/// The guests of a fleet.
///
/// State machines are fed here alone, so that the counts hold.
#[derive(Debug, Default)]
pub(crate) struct Members {
    all: Vec<Member>,
    /// Members in each state.
    counts: Counts,
    /// What happened to those that went with a smaller number of guests.
    gone: Totals,
}

impl Members {
    /// The guests, in order.
    pub(super) fn all(&self) -> &[Member] {
        &self.all
    }

    /// The same, to change them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.all.iter_mut()
    }

    /// A guest, if there is one of this number.
    pub(super) fn get_mut(&mut self, which: usize) -> Option<&mut Member> {
        self.all.get_mut(which)
    }

    /// How many guests are in each state; states without any are left out.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many guests are in one of these states.
    pub(super) fn count(&self, phases: &[Phase]) -> usize {
        let counted = phases.iter().filter_map(|phase| self.counts.get(phase));
        counted.sum::<u32>() as usize
    }

    /// What happened to guests in all.
    pub(super) fn totals(&self) -> Totals {
        let guests = self.all.iter().map(Member::guest);
        guests.fold(self.gone, and)
    }

    /// Adds guests, planned and not started.
    pub(super) fn extend(&mut self, guests: impl IntoIterator<Item = GuestIndex>) {
        for index in guests {
            self.all.push(Member::new(index));
            recount(&mut self.counts, None, Some(Phase::Planned));
        }
    }

    /// Drops the last members down to `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        for which in count..self.all.len() {
            recount(&mut self.counts, Some(self.all[which].guest.phase()), None);
            self.gone = and(self.gone, &self.all[which].guest);
        }
        self.all.truncate(count);
    }

    /// See [`Guest::remember`].
    pub(super) fn remember(&mut self, which: usize, restarts: u32, over: Option<Phase>) {
        let before = self.all[which].guest.phase();
        self.all[which].guest.remember(restarts, over);
        self.recount(which, before);
    }

    /// Feeds a guest's state machine, as [`Guest::apply`] says.
    pub(super) fn apply(
        &mut self,
        which: usize,
        now: Instant,
        jitter: f64,
        event: &Event<'_>,
        policy: &Policy,
    ) -> Actions {
        let before = self.all[which].guest.phase();
        let actions = self.all[which].guest.apply(now, jitter, event, policy);
        self.recount(which, before);
        actions
    }

    /// Counts a guest where it stands now, and not where it stood before.
    fn recount(&mut self, which: usize, before: Phase) {
        let now = self.all[which].guest.phase();
        recount(&mut self.counts, Some(before), Some(now));
    }
}

/// The totals with one more guest.
fn and(totals: Totals, guest: &Guest) -> Totals {
    Totals {
        restarts: totals.restarts + u64::from(guest.restarts()),
        unresponsive: totals.unresponsive + u64::from(guest.unresponsive()),
    }
}

impl Index<usize> for Members {
    type Output = Member;

    fn index(&self, which: usize) -> &Member {
        &self.all[which]
    }
}

impl IndexMut<usize> for Members {
    fn index_mut(&mut self, which: usize) -> &mut Member {
        &mut self.all[which]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::GuestRange;

    #[test]
    fn totals_keep_what_happened_to_guests_that_went() {
        let mut members = Members::default();
        members.extend(GuestRange::first(3).unwrap().iter());
        members.remember(0, 1, None);
        members.remember(2, 5, Some(Phase::Exited));
        assert_eq!(
            *members.counts(),
            Counts::from([(Phase::Planned, 2), (Phase::Exited, 1)])
        );
        assert_eq!(members.totals().restarts, 6);
        members.truncate(1);
        assert_eq!(*members.counts(), Counts::from([(Phase::Planned, 1)]));
        assert_eq!(members.totals().restarts, 6);
        members.extend(GuestRange::new(1, 3).unwrap().iter());
        assert_eq!(members.totals().restarts, 6);
    }
}
