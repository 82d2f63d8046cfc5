//! How many guests are in which phase.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Phase;
use crate::units::grouped;

/// Guests in each phase; phases without any are left out.
pub(crate) type Counts = BTreeMap<Phase, u32>;

/// Counts guests by their phases.
pub(crate) fn count(phases: impl Iterator<Item = Phase>) -> Counts {
    phases.fold(Counts::new(), |mut counts, phase| {
        recount(&mut counts, None, Some(phase));
        counts
    })
}

/// Counts a guest where it stands now, if it is there, and not where it stood
/// before, if it was.
pub(crate) fn recount(counts: &mut Counts, before: Option<Phase>, now: Option<Phase>) {
    if let Some(now) = now {
        *counts.entry(now).or_default() += 1;
    }
    if let Some(before) = before
        && let Entry::Occupied(mut counted) = counts.entry(before)
    {
        *counted.get_mut() -= 1;
        if *counted.get() == 0 {
            counted.remove();
        }
    }
}

/// Such as `1 booting, 1,098 ready`.
pub(crate) fn listed(counts: &Counts) -> String {
    let words = counts
        .iter()
        .map(|(phase, count)| format!("{} {}", grouped((*count).into()), phase.name()));
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_counted_once_and_an_empty_phase_is_left_out() {
        let mut counts = count([Phase::Booting, Phase::Ready, Phase::Ready].into_iter());
        assert_eq!(listed(&counts), "1 booting, 2 ready");
        recount(&mut counts, Some(Phase::Booting), Some(Phase::Ready));
        recount(&mut counts, Some(Phase::Ready), Some(Phase::Ready));
        assert_eq!(counts, Counts::from([(Phase::Ready, 3)]));
        recount(&mut counts, Some(Phase::Ready), None);
        recount(&mut counts, Some(Phase::Failed), None);
        assert_eq!(counts, Counts::from([(Phase::Ready, 2)]));
        assert_eq!(listed(&Counts::from([(Phase::Ready, 1098)])), "1,098 ready");
    }
}
