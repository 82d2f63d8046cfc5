use super::*;
use crate::sample::source::Source;

fn ranges(ranges: &[(u32, u32)]) -> Vec<IdRange> {
    let ranges = ranges.iter();
    ranges
        .map(|&(first, count)| IdRange::new(first, count))
        .collect()
}

fn mapped(of: &[(u32, u32)]) -> Mapped {
    ranges(of).into()
}

const ALL: &[(u32, u32)] = &[(0, u32::MAX)];
/// Of a container of LXC or rootless Podman.
const FEW: &[(u32, u32)] = &[(0, 65_536)];

#[test]
fn the_first_ids_are_chosen_that_nobody_has() {
    for (there, taken, guests, first, count) in [
        (ALL, &[][..], 10, 2_000_000, 100_000),
        (ALL, &[(2_000_000, 100_000)], 10, 2_100_000, 100_000),
        (
            ALL,
            &[(2_100_000, 100_000), (2_000_000, 100_000)],
            10,
            2_200_000,
            100_000,
        ),
        (ALL, &[(2_050_000, 100_000)], 10, 2_200_000, 100_000),
        (ALL, &[(1_900_001, 100_000)], 10, 2_100_000, 100_000),
        (
            ALL,
            &[(1_900_000, 100_000), (u32::MAX - 100_001, 100_000)],
            10,
            2_000_000,
            100_000,
        ),
        // A container's, and one that some process runs under.
        (
            ALL,
            &[(100_000, 1_965_536), (2_165_000, 1)],
            10,
            2_200_000,
            100_000,
        ),
        // Where more were taken than there are, what is left.
        (ALL, &[(2_000_000, u32::MAX)], 10, 10_000, 4_096),
        (FEW, &[], 10, 10_000, 4_096),
        (FEW, &[], 4_097, 10_000, 8_192),
        (FEW, &[(10_000, 4_096), (0, 1_001)], 10, 14_096, 4_096),
        (FEW, &[(12_000, 1), (9_000, 1_001)], 10, 12_001, 4_096),
        (FEW, &[(12_000, 1)], 47_000, 12_001, 49_152),
        (FEW, &[(12_000, 1)], 53_533, 12_001, 53_533),
        // Beyond what people and services have, where that is too little.
        (FEW, &[], 64_534, 1_000, 64_534),
        (&[(0, 1), (1, 65_536)], &[], 64_534, 1_000, 64_534),
        (&[(3_000, 2_000)], &[], 10, 3_000, 10),
    ] {
        let chosen = mapped(there).free(&ranges(taken), guests);
        assert_eq!(
            chosen,
            Some(IdRange::new(first, count)),
            "{taken:?} {guests}"
        );
    }
}

#[test]
fn no_ids_are_chosen_where_there_are_too_few() {
    for (there, taken, guests, most) in [
        (&[(0, 1)][..], &[][..], 1, 0),
        (&[(0, 1_000)], &[], 1, 0),
        (&[(0, 1_001)], &[], 2, 1),
        // The user nobody is not a guest.
        (&[(65_534, 2)], &[], 1, 0),
        (FEW, &[], 64_535, 64_534),
        (FEW, &[(30_000, 10)], 36_000, 35_524),
        (FEW, &[(0, 65_536)], 1, 0),
        (&[(0, 5_000), (7_000, 3_000)], &[], 5_000, 4_000),
        (&[], &[], 1, 0),
    ] {
        let (there, taken) = (mapped(there), ranges(taken));
        assert_eq!(there.free(&taken, guests), None, "{there} {taken:?}");
        assert_eq!(there.most(&taken), most, "{there} {taken:?}");
        assert_eq!(
            there.free(&taken, most).is_some(),
            most > 0,
            "{there} {taken:?}"
        );
    }
    assert_eq!(mapped(ALL).most(&[]), 100_000);
    assert_eq!(mapped(ALL).count(), u64::from(u32::MAX));
}

#[test]
fn ranges_share_ids_or_do_not() {
    let [one, next] = [IdRange::new(10, 10), IdRange::new(20, 1)];
    assert!(!one.overlaps(next) && !next.overlaps(one));
    assert!(one.overlaps(IdRange::new(19, 1)) && IdRange::new(0, 11).overlaps(one));
    assert!(!one.overlaps(IdRange::new(15, 0)));
    let last = IdRange::new(u32::MAX, u32::MAX);
    assert!(last.overlaps(last) && !last.overlaps(one));
    let text = mapped(&[(5, 1), (0, 5), (10, 10)]).to_string();
    assert_eq!(text, "0 to 5, 10 to 19");
}

/// What is read below a root with these files, and what of them was not.
fn read<T>(files: &[(&str, &str)], read: impl FnOnce(&mut Source) -> T) -> (T, usize) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut unseen = Vec::new();
    let found = read(&mut Source::new(root.path(), &mut unseen));
    (found, unseen.len())
}

#[test]
fn an_id_is_there_if_users_and_groups_have_it() {
    let line = "         0     100000      65536\n";
    for (users, groups, expected) in [
        (line, line, &[(0, 65_536)][..]),
        ("0 1000 1\n1 100000 65536\n", line, &[(0, 65_536)]),
        ("0 0 4294967295\n", "0 0 1\n", &[(0, 1)]),
        ("0 0 10\n20 20 10\n", "5 5 20\n", &[(5, 5), (20, 5)]),
        ("0 0 10\n", "20 20 10\n", &[]),
        ("", line, &[]),
    ] {
        let files = [("proc/self/uid_map", users), ("proc/self/gid_map", groups)];
        let (found, unseen) = read(&files, Mapped::read);
        assert_eq!((found, unseen), (mapped(expected), 0), "{users}");
    }
    // A kernel without user namespaces, and what makes no sense.
    assert_eq!(read(&[], Mapped::read), (mapped(ALL), 0));
    for garbage in ["x", "0 0", "0 0 99999999999", "0 0 -1"] {
        let files = [("proc/self/uid_map", garbage)];
        assert_eq!(read(&files, Mapped::read), (mapped(ALL), 1), "{garbage}");
    }
}

#[test]
fn ids_that_files_give_to_somebody_are_known() {
    let files = [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/:/bin/sh\n+::::::\nodd\n",
        ),
        ("etc/group", "root:x:0:\nkvm:x:104:ann\n"),
        (
            "etc/subuid",
            "ann:100000:65536\n# none\nbob:165536:65536\nodd:x:1\n",
        ),
        ("etc/subgid", "ann:2000000:65536\n"),
    ];
    let expected = [
        (0, 1),
        (104, 1),
        (1_000, 2),
        (100_000, 131_072),
        (2_000_000, 65_536),
    ];
    assert_eq!(read(&files, given), (ranges(&expected), 0));
    assert_eq!(read(&[], given), (Vec::new(), 0));
}

#[test]
fn ids_of_processes_are_known() {
    let status = |users: &str, groups: &str, others: &str| {
        format!("Name:\tx\nUid:\t{users}\nGid:\t{groups}\nGroups:\t{others} \n")
    };
    let root = tempfile::tempdir().unwrap();
    for (pid, status) in [
        ("1", status("0\t0\t0\t0", "0\t0\t0\t0", "")),
        ("2", status("7\t8\t8\t8", "50\t50\t50\t50", "60 61")),
        ("3", status("x", "", "")),
        ("self", status("9\t9\t9\t9", "9\t9\t9\t9", "")),
    ] {
        let folder = root.path().join("proc").join(pid);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("status"), status).unwrap();
    }
    std::fs::create_dir(root.path().join("proc/4")).unwrap();
    let expected = ranges(&[(0, 1), (7, 2), (50, 1), (60, 2)]);
    assert_eq!(running(root.path()), expected);
    assert_eq!(running(&root.path().join("nowhere")), []);
}
