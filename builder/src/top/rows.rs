//! Which guests are listed, in which order: pure.

use std::cmp::Ordering;
use std::time::Instant;

use super::model::{Model, Uses};
use crate::control::types::Guest;
use crate::units::GuestIndex;

/// By what guests are ordered, in the order of the columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Column {
    #[default]
    Guest,
    State,
    Age,
    Starts,
    Burn,
    Cpu,
    Waits,
    Memory,
    Reason,
}

impl Column {
    pub(super) const ALL: [Self; 9] = [
        Self::Guest,
        Self::State,
        Self::Age,
        Self::Starts,
        Self::Burn,
        Self::Cpu,
        Self::Waits,
        Self::Memory,
        Self::Reason,
    ];

    /// The column so many to the right, as far as there are.
    pub(super) fn beside(self, right: bool) -> Self {
        let place = Self::ALL.iter().position(|one| *one == self).unwrap_or(0);
        let place = if right {
            (place + 1).min(Self::ALL.len() - 1)
        } else {
            place.saturating_sub(1)
        };
        Self::ALL[place]
    }

    /// Whether it ends where its column ends.
    pub(super) fn is_number(self) -> bool {
        !matches!(self, Self::Guest | Self::State | Self::Reason)
    }

    /// Its name, and characters; the last one has the rest.
    pub(super) fn head(self) -> (&'static str, usize) {
        match self {
            Self::Guest => ("GUEST", 6),
            Self::State => ("STATE", 12),
            Self::Age => ("FOR", 6),
            Self::Starts => ("STARTS", 6),
            Self::Burn => ("BURN/s", 8),
            Self::Cpu => ("CPU%", 5),
            Self::Waits => ("WAIT%", 5),
            Self::Memory => ("MEMORY", 9),
            Self::Reason => ("REASON", 0),
        }
    }
}

/// A guest that is listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub guest: &'a Guest,
    pub uses: Uses,
    /// Seconds in its state.
    pub age: f64,
}

/// The guests of which the id, the state or the reason has `filter` in it, in order.
pub(super) fn rows<'a>(
    model: &'a Model,
    filter: &str,
    column: Column,
    descending: bool,
    now: Instant,
) -> Vec<Row<'a>> {
    let filter = filter.to_lowercase();
    let is_listed = |guest: &&Guest| {
        let reason = why(guest).unwrap_or_default();
        filter.is_empty()
            || guest.id.to_string().contains(&filter)
            || guest.state.name().contains(&filter)
            || reason.to_lowercase().contains(&filter)
    };
    let guests = model.picture.guests().filter(is_listed);
    let mut rows: Vec<_> = guests
        .map(|guest| Row {
            guest,
            uses: model.uses(guest),
            age: model
                .picture
                .standing(guest.id)
                .map_or(0.0, |standing| standing.age(now).as_secs_f64()),
        })
        .collect();
    // They are in order of their numbers, and stay so where they are equal.
    rows.sort_by(|one, other| {
        let order = order(column, one, other);
        if descending { order.reverse() } else { order }
    });
    rows
}

fn order(column: Column, one: &Row<'_>, other: &Row<'_>) -> Ordering {
    let numbers = |number: fn(&Row<'_>) -> Option<f64>| {
        // What is not known is least.
        let number = |row| number(row).unwrap_or(-1.0);
        number(one).total_cmp(&number(other))
    };
    match column {
        Column::Guest => one.guest.id.cmp(&other.guest.id),
        Column::State => one.guest.state.cmp(&other.guest.state),
        Column::Age => one.age.total_cmp(&other.age),
        Column::Starts => starts(one.guest).cmp(&starts(other.guest)),
        Column::Burn => numbers(|row| row.uses.burn),
        Column::Cpu => numbers(|row| row.uses.cpu),
        Column::Waits => numbers(|row| row.uses.waits),
        Column::Memory => one.uses.own.cmp(&other.uses.own),
        // Those with one first.
        Column::Reason => {
            let key = |row: &Row<'_>| (why(row.guest).is_none(), why(row.guest).map(str::to_owned));
            key(one).cmp(&key(other))
        }
    }
}

/// The place of a guest among those that are listed.
pub(super) fn place(rows: &[Row<'_>], guest: GuestIndex) -> Option<usize> {
    rows.iter().position(|row| row.guest.id == guest)
}

pub(super) use crate::report::fleet::{starts, why};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::model::tests::model;
    use super::*;
    use crate::control::picture::tests::guest;
    use crate::control::types::Event;
    use crate::guest::Phase;
    use crate::sample::usage::Usage;

    fn listed(model: &Model, filter: &str, column: Column, descending: bool) -> Vec<u32> {
        let rows = rows(model, filter, column, descending, Instant::now());
        rows.iter().map(|row| row.guest.id.get()).collect()
    }

    #[test]
    fn guests_are_ordered_and_those_alike_stay_in_their_order() {
        let (mut model, now) = model(&[Phase::Ready, Phase::Booting, Phase::Ready]);
        for (number, own) in [(0, 8192), (2, 4096)] {
            let usage = Usage {
                cpu: Duration::ZERO,
                waited: Duration::ZERO,
                own,
            };
            model.saw(GuestIndex::new(number).unwrap(), 1000 + number, usage, now);
        }
        assert_eq!(listed(&model, "", Column::Guest, true), [2, 1, 0]);
        assert_eq!(listed(&model, "", Column::Memory, true), [0, 2, 1]);
        assert_eq!(listed(&model, "", Column::Memory, false), [1, 2, 0]);
        assert_eq!(listed(&model, "", Column::Cpu, true), [0, 1, 2]);
        let order = listed(&model, "", Column::State, false);
        assert_eq!(order, [1, 0, 2], "as far as guests go");
    }

    #[test]
    fn a_filter_is_of_ids_states_and_reasons() {
        let (mut model, now) = model(&[Phase::Ready, Phase::Booting, Phase::Ready]);
        let mut restarting = guest(2, Phase::Restarting);
        restarting.reason = Some("Killed by signal 9".to_owned());
        model.hear(Event::Guest(restarting), now);
        for (filter, found) in [
            ("", &[0, 1, 2][..]),
            ("g00001", &[1]),
            ("boot", &[1]),
            ("BOOT", &[1]),
            ("killed", &[2]),
            ("nothing", &[]),
        ] {
            assert_eq!(
                listed(&model, filter, Column::Guest, false),
                found,
                "{filter}"
            );
        }
        assert_eq!(listed(&model, "", Column::Reason, false)[0], 2);
    }

    #[test]
    fn columns_end_at_both_sides() {
        assert_eq!(Column::Guest.beside(false), Column::Guest);
        assert_eq!(Column::Guest.beside(true), Column::State);
        assert_eq!(Column::Reason.beside(true), Column::Reason);
    }
}
