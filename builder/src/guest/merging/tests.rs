use super::*;

const ALL: Population = Population { up: 10, living: 10 };

fn ksm(full_scans: u64, merged: u64) -> KsmSeen {
    KsmSeen {
        full_scans,
        shared: 1000,
        merged,
        unmerged: 100_000 - merged,
        left_out: 0,
    }
}

fn up(up: usize) -> Population {
    Population { up, ..ALL }
}

/// What is said of the last of what was seen.
fn settles(seen: &[(KsmSeen, Population)]) -> bool {
    let mut merging = Merging::default();
    for (ksm, guests) in seen {
        merging.see(ksm, *guests);
    }
    let (ksm, guests) = seen[seen.len() - 1];
    merging.has_settled(&ksm, guests)
}

#[test]
fn ksm_has_settled_once_three_passes_found_nothing_more() {
    let table: [(&[(u64, u64)], bool); 8] = [
        (&[(7, 500)], false),
        (&[(7, 50_000), (9, 50_000)], false),
        (&[(7, 50_000), (10, 50_000)], true),
        // A hundredth of all pages comes and goes.
        (&[(7, 50_000), (8, 50_900), (10, 50_000)], true),
        (&[(7, 50_000), (8, 52_000), (10, 50_000)], false),
        (&[(7, 40_000), (8, 50_000), (10, 50_000)], false),
        (
            &[(7, 40_000), (8, 50_000), (10, 50_000), (11, 50_000)],
            true,
        ),
        // Pages that were merged are no longer.
        (&[(7, 50_000), (10, 50_000), (11, 45_000)], false),
    ];
    for (seen, expected) in table {
        let rows = seen
            .iter()
            .map(|(scans, merged)| (ksm(*scans, *merged), ALL));
        assert_eq!(settles(&rows.collect::<Vec<_>>()), expected, "{seen:?}");
    }
}

#[test]
fn ksm_has_not_settled_while_guests_are_new_or_it_leaves_pages_out() {
    let at = |scans| ksm(scans, 50_000);
    // It has not been over the guest that came up last.
    assert!(!settles(&[(at(7), up(9)), (at(10), ALL), (at(11), ALL)]));
    assert!(settles(&[(at(7), up(9)), (at(10), ALL), (at(13), ALL)]));
    assert!(!settles(&[(at(7), ALL), (at(12), up(9))]));
    // More pages than there were: it looks at them, and has merged none.
    let more = KsmSeen {
        unmerged: 90_000,
        ..at(10)
    };
    assert!(!settles(&[(at(7), ALL), (more, ALL)]));
    let smart = |scans| KsmSeen {
        left_out: LEFT_OUT,
        ..at(scans)
    };
    assert!(!settles(&[(smart(7), ALL), (smart(17), ALL)]));
    assert!(settles(&[(smart(7), ALL), (smart(18), ALL)]));
}

#[test]
fn ksm_is_done_with_a_guest_three_passes_after_it_came_up() {
    let mut merging = Merging::default();
    let mut pending = |scans, up, living| {
        merging.see(&ksm(scans, 0), Population { up, living });
        merging.pending(living)
    };
    assert_eq!(pending(5, 0, 0), 0);
    assert_eq!(pending(5, 0, 4), 4);
    assert_eq!(pending(5, 4, 4), 4);
    assert_eq!(pending(6, 4, 6), 6);
    assert_eq!(pending(8, 6, 6), 6);
    assert_eq!(pending(9, 6, 6), 2);
    // One is started again: which, is of no matter.
    assert_eq!(pending(10, 5, 6), 2);
    assert_eq!(pending(11, 6, 6), 1);
    assert_eq!(pending(13, 6, 6), 1);
    assert_eq!(pending(14, 6, 6), 0);
    // Passes may be many between two looks.
    assert_eq!(pending(900, 7, 7), 1);
    assert_eq!(pending(1900, 7, 7), 0);
}

#[test]
fn guests_of_an_earlier_supervisor_are_done_with() {
    let mut merging = Merging::default();
    merging.see(&ksm(5, 0), ALL);
    assert_eq!(merging.pending(10), 0);
    assert_eq!(merging.pending(12), 2);
    assert_eq!(Merging::default().pending(3), 3);
}
