//! The guests of a fleet, each with its VMM while that lives, and the number of
//! guests in each state.

use std::ops::{Index, IndexMut};
use std::time::Instant;

use crate::control::types::Totals;
use crate::guest::counts::{Counts, recount};
use crate::guest::{Actions, Event, Guest, Phase, Policy};
use crate::placement::Class;
use crate::units::{Duty, GuestIndex, GuestRange};
use crate::vmm::running::Running;

/// Whether this supervisor had a guest burn since its last start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BurnOrder {
    /// Not yet.
    ToCome,
    /// It was.
    Given,
}

/// Whether a guest was asked for a heartbeat that has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heartbeat {
    Owed,
    NotOwed,
}

/// A guest of the fleet.
#[derive(Debug)]
pub struct Member {
    index: GuestIndex,
    guest: Guest,
    running: Option<Running>,
    heartbeat: Heartbeat,
    burn: BurnOrder,
    /// It is `urgent` for somebody who asks it.
    attended: u32,
}

impl Member {
    fn new(index: GuestIndex) -> Self {
        Self {
            index,
            guest: Guest::default(),
            running: None,
            heartbeat: Heartbeat::NotOwed,
            burn: BurnOrder::ToCome,
            attended: 0,
        }
    }

    /// Its number.
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
        self.heartbeat == Heartbeat::Owed && self.is_ready()
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
    pub(crate) fn runs(&mut self, running: Running) {
        self.running = Some(running);
        self.burn = BurnOrder::ToCome;
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
        self.heartbeat = if self.is_ready() {
            self.send("heartbeat");
            Heartbeat::Owed
        } else {
            Heartbeat::NotOwed
        };
    }

    pub(crate) fn answered(&mut self) {
        self.heartbeat = Heartbeat::NotOwed;
    }

    /// Has it burn, once in each of its lives: as users had it burn in the life
    /// before, or else as its recipe says. A user may have been faster.
    pub(crate) fn burn(&mut self, recipe: Duty) {
        let duty = self.guest.duty().unwrap_or(recipe);
        let is_to_come = self.burn == BurnOrder::ToCome && !self.guest.has_burned();
        if is_to_come && duty.burns() && self.send(&format!("burn {duty}")) {
            self.burn = BurnOrder::Given;
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
pub struct Members {
    /// Which guests these are.
    guests: GuestRange,
    /// Each at its place among them.
    all: Vec<Member>,
    /// Members in each state.
    counts: Counts,
    /// What happened to those that went with a smaller number of guests.
    gone: Totals,
    /// Starts that were begun.
    starts: u64,
    /// Rounds of work that guests reported, those of earlier lives among them.
    burned: u64,
    /// The place of the guest that was asked for a heartbeat last.
    next_asked: usize,
}

impl Members {
    /// Which guests these are.
    pub fn guests(&self) -> GuestRange {
        self.guests
    }

    /// How many guests there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Each guest, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.all.iter()
    }

    /// A guest, if there is one of this number.
    pub fn get(&self, guest: GuestIndex) -> Option<&Member> {
        self.all.get(self.guests.place_of(guest)?)
    }

    /// Each guest, in order, to change it.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.all.iter_mut()
    }

    /// A guest, if there is one of this number.
    pub(super) fn get_mut(&mut self, guest: GuestIndex) -> Option<&mut Member> {
        self.all.get_mut(self.guests.place_of(guest)?)
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
        Totals {
            starts: self.starts,
            rounds: self.burned,
            ..guests.fold(self.gone, and)
        }
    }

    /// Asks so many of the guests that burn for a heartbeat, each in its turn.
    pub(super) fn ask_in_turn(&mut self, count: usize) {
        let all = self.all.len();
        for _ in 0..count.min(all) {
            self.next_asked = (self.next_asked + 1) % all;
            let member = &mut self.all[self.next_asked];
            let status = member.guest.status();
            if status.is_some_and(|status| status.burn.duty > 0) {
                member.ask_for_heartbeat();
            }
        }
    }

    /// Has the members be these guests, which begin as those before did: new ones
    /// are planned and not started, and the last ones go.
    pub(super) fn become_these(&mut self, guests: GuestRange) {
        for index in guests.iter().skip(self.all.len()) {
            self.all.push(Member::new(index));
            recount(&mut self.counts, None, Some(Phase::Planned));
        }
        while self.all.len() > guests.count() as usize
            && let Some(member) = self.all.pop()
        {
            recount(&mut self.counts, Some(member.guest.phase()), None);
            self.gone = and(self.gone, &member.guest);
        }
        self.guests = guests;
    }

    /// See [`Guest::remember`].
    pub(super) fn remember(
        &mut self,
        guest: GuestIndex,
        restarts: u32,
        duty: Option<Duty>,
        over: Option<Phase>,
    ) {
        let before = self[guest].guest.phase();
        self[guest].guest.remember(restarts, duty, over);
        self.recount(guest, before);
    }

    /// Feeds a guest's state machine, as [`Guest::apply`] says.
    pub(super) fn apply(
        &mut self,
        guest: GuestIndex,
        now: Instant,
        jitter: f64,
        event: &Event<'_>,
        policy: &Policy,
    ) -> Actions {
        let before = self[guest].guest.phase();
        let burned = rounds(&self[guest].guest);
        let actions = self[guest].guest.apply(now, jitter, event, policy);
        self.recount(guest, before);
        // Rounds count from the guest's start; those of before it was adopted are not
        // of this supervisor's time.
        if let (Some(then), Some(now)) = (burned, rounds(&self[guest].guest)) {
            let more = now.checked_sub(then).unwrap_or(now);
            self.burned = self.burned.saturating_add(more);
        }
        actions
    }

    /// Counts a guest where it stands now, and not where it stood before.
    fn recount(&mut self, guest: GuestIndex, before: Phase) {
        let now = self[guest].guest.phase();
        self.starts += u64::from(now == Phase::Starting && before != Phase::Starting);
        recount(&mut self.counts, Some(before), Some(now));
    }
}

/// The totals with one more guest.
fn and(totals: Totals, guest: &Guest) -> Totals {
    Totals {
        restarts: totals.restarts + u64::from(guest.restarts()),
        unresponsive: totals.unresponsive + u64::from(guest.unresponsive()),
        ..totals
    }
}

/// Rounds of work since the guest's start, as it last reported.
fn rounds(guest: &Guest) -> Option<u64> {
    guest.status().map(|status| status.burn.rounds)
}

impl Index<GuestIndex> for Members {
    type Output = Member;

    fn index(&self, guest: GuestIndex) -> &Member {
        self.get(guest).expect("the guest is of this fleet")
    }
}

impl IndexMut<GuestIndex> for Members {
    fn index_mut(&mut self, guest: GuestIndex) -> &mut Member {
        self.get_mut(guest).expect("the guest is of this fleet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many guests from the seventh on.
    fn guests(count: u32) -> GuestRange {
        GuestRange::starting_at(guest(7), count).unwrap()
    }

    fn guest(index: u32) -> GuestIndex {
        GuestIndex::new(index).unwrap()
    }

    #[test]
    fn members_are_found_by_their_numbers_wherever_those_begin() {
        let mut members = Members::default();
        members.become_these(guests(2));
        let numbers = |members: &Members| members.iter().map(Member::index).collect::<Vec<_>>();
        assert_eq!(numbers(&members), [guest(7), guest(8)]);
        assert_eq!(members[guest(8)].index(), guest(8));
        for other in [0, 1, 6, 9] {
            assert!(members.get(guest(other)).is_none(), "{other}");
        }
        // The same begin again after there was none.
        members.become_these(guests(0));
        assert_eq!((members.len(), members.get(guest(7)).is_none()), (0, true));
        members.become_these(guests(1));
        assert_eq!(numbers(&members), [guest(7)]);
    }

    #[test]
    fn totals_keep_what_happened_to_guests_that_went() {
        let mut members = Members::default();
        members.become_these(guests(3));
        members.remember(guest(7), 1, None, None);
        members.remember(guest(9), 5, None, Some(Phase::Exited));
        assert_eq!(
            *members.counts(),
            Counts::from([(Phase::Planned, 2), (Phase::Exited, 1)])
        );
        assert_eq!(members.totals().restarts, 6);
        members.become_these(guests(1));
        assert_eq!(*members.counts(), Counts::from([(Phase::Planned, 1)]));
        assert_eq!(members.totals().restarts, 6);
        members.become_these(guests(3));
        assert_eq!(members.totals().restarts, 6);
    }
}
