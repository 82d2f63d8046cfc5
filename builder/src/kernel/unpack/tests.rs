use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::*;
use crate::durable::trace;

/// One entry: kind, name, content or link target.
type Item<'a> = (EntryType, &'a str, &'a str);

const KCONFIG: Item<'_> = (EntryType::Regular, "linux-1/Kconfig", "config A\n");

/// Written by hand where `tar` refuses to make such an archive.
fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (kind, name, content) in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if name.contains(".sh") { 0o775 } else { 0o600 });
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.set_link_name_literal(content).unwrap();
        }
        let data = if is_link { "" } else { content };
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

struct Case {
    cache: tempfile::TempDir,
    interrupt: Interrupt,
}

impl Case {
    fn new() -> Self {
        Self {
            cache: tempfile::tempdir().unwrap(),
            interrupt: Interrupt::never().unwrap(),
        }
    }

    fn unpack(&self, bytes: &[u8]) -> Result<PathBuf, UnpackError> {
        let path = self.cache.path().join("archive");
        fs::write(&path, bytes).unwrap();
        let sha256 = Sha256::of_bytes(bytes);
        unpack(
            &path,
            &sha256,
            self.cache.path(),
            NonZero::<usize>::MIN,
            &self.interrupt,
        )
    }

    /// What is in the source folder beside locks.
    fn trees(&self) -> usize {
        fs::read_dir(self.cache.path().join("source"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().is_dir())
            .count()
    }
}

#[test]
fn unpacks_what_is_needed_without_the_top_folder() {
    let case = Case::new();
    let items = [
        (EntryType::XGlobalHeader, "pax_global_header", ""),
        (EntryType::Directory, "linux-1/", ""),
        KCONFIG,
        (EntryType::Regular, "linux-1/scripts/run.sh", "#!/bin/sh\n"),
        (EntryType::Regular, "linux-1/Documentation/a.rst", "text"),
        (EntryType::Symlink, "linux-1/scripts/link", "../Kconfig"),
    ];
    let tree = case.unpack(&archive(&items)).unwrap();
    assert_eq!(fs::read(tree.join("Kconfig")).unwrap(), b"config A\n");
    assert_eq!(fs::read(tree.join("scripts/link")).unwrap(), b"config A\n");
    assert!(!tree.join("Documentation").exists());
    let is_executable = |path: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(tree.join(path)).unwrap().permissions().mode() & EXECUTABLE != 0
    };
    assert!(is_executable("scripts/run.sh") && !is_executable("Kconfig"));
    assert_eq!(case.trees(), 1);
}

#[test]
fn refuses_what_would_leave_the_tree() {
    let hostile: [&[Item<'_>]; 9] = [
        &[(EntryType::Regular, "linux-1/../../evil", "x")],
        &[(EntryType::Regular, "/etc/evil", "x")],
        &[(EntryType::Regular, "evil", "x")],
        &[(EntryType::Symlink, "linux-1/evil", "/etc")],
        &[(EntryType::Symlink, "linux-1/a/evil", "../../b")],
        &[(EntryType::Symlink, "linux-1/evil", "a/../..")],
        &[(EntryType::Link, "linux-1/evil", "/etc/passwd")],
        &[(EntryType::Fifo, "linux-1/evil", "")],
        &[
            (EntryType::Symlink, "linux-1/p/q", "../.."),
            (EntryType::Regular, "linux-1/evil", "x"),
        ],
    ];
    for items in hostile {
        let case = Case::new();
        let items = [&[KCONFIG], items].concat();
        let error = case.unpack(&archive(&items)).unwrap_err();
        let named = error.to_string().contains("evil") || error.to_string().contains("p/q");
        assert!(
            matches!(error, UnpackError::Hostile { .. }) && named,
            "{error}"
        );
        assert_eq!(case.trees(), 0);
    }
}

#[test]
fn writes_nothing_through_a_link() {
    for second in [EntryType::Regular, EntryType::Symlink] {
        let case = Case::new();
        let items = [
            KCONFIG,
            (EntryType::Symlink, "linux-1/a/b", ".."),
            (second, "linux-1/a/b/evil", "../x"),
        ];
        assert!(case.unpack(&archive(&items)).is_err());
        assert_eq!(case.trees(), 0);
    }
}

#[test]
fn refuses_a_name_that_is_there_twice() {
    let error = Case::new()
        .unpack(&archive(&[KCONFIG, KCONFIG]))
        .unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}

#[test]
fn a_truncated_archive_leaves_nothing() {
    let case = Case::new();
    let noise = (0..100_000u64).fold(String::new(), |text, n| text + &(n * n % 9973).to_string());
    let whole = archive(&[KCONFIG, (EntryType::Regular, "linux-1/noise", &noise)]);
    let error = case.unpack(&whole[..whole.len() / 2]).unwrap_err();
    assert!(matches!(error, UnpackError::Io { .. }), "{error}");
    assert_eq!(case.trees(), 0);
}

#[test]
fn what_is_no_archive_or_no_kernel_is_said_to_be_none() {
    for bytes in [&b""[..], b"text", &[0; 5000]] {
        let error = Case::new().unpack(bytes).unwrap_err();
        assert!(matches!(error, UnpackError::Format(_)), "{error}");
    }
    let other = archive(&[(EntryType::Regular, "other/README", "x")]);
    let error = Case::new().unpack(&other).unwrap_err();
    assert!(matches!(error, UnpackError::NoKernel(_)), "{error}");
}

#[test]
fn an_interrupt_leaves_nothing() {
    let case = Case::new();
    case.interrupt.raise();
    let error = case.unpack(&archive(&[KCONFIG])).unwrap_err();
    assert!(matches!(error, UnpackError::Interrupted(_)), "{error}");
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let case = Case::new();
    let bytes = archive(&[KCONFIG]);
    let left = format!("source/{}.tmp-dead/sub", Sha256::of_bytes(&bytes));
    fs::create_dir_all(case.cache.path().join(left)).unwrap();
    case.unpack(&bytes).unwrap();
    assert_eq!(case.trees(), 1);
}

#[test]
fn a_tree_that_lost_something_is_unpacked_again() {
    let case = Case::new();
    let items = [
        KCONFIG,
        (EntryType::Regular, "linux-1/scripts/run.sh", "#!/bin/sh\n"),
        (EntryType::Symlink, "linux-1/scripts/link", "../Kconfig"),
    ];
    let bytes = archive(&items);
    let tree = case.unpack(&bytes).unwrap();
    let script = tree.join("scripts/run.sh");
    let note = tree.with_extension("whole");
    let mark = |is_kept: bool| {
        // Unnoticed by the inventory, and gone with the tree.
        fs::write(tree.join("Kconfig"), "config B\n").unwrap();
        assert_eq!(case.unpack(&bytes).unwrap(), tree);
        let kconfig = fs::read_to_string(tree.join("Kconfig")).unwrap();
        assert_eq!(kconfig == "config B\n", is_kept);
        assert_eq!(fs::read(&script).unwrap(), b"#!/bin/sh\n");
    };
    mark(true);
    // As a power cut leaves it, or somebody who tidies up.
    fs::write(&script, "").unwrap();
    mark(false);
    fs::remove_file(&script).unwrap();
    mark(false);
    fs::remove_dir_all(tree.join("scripts")).unwrap();
    mark(false);
    fs::write(tree.join("scripts/another"), "x").unwrap();
    mark(false);
    fs::remove_file(tree.join("scripts/link")).unwrap();
    fs::write(tree.join("scripts/link"), "../Kconfig").unwrap();
    mark(false);
    fs::remove_file(&note).unwrap();
    mark(false);
    fs::write(&note, "").unwrap();
    mark(false);
    fs::remove_dir_all(&tree).unwrap();
    case.unpack(&bytes).unwrap();
    mark(true);
}

#[test]
fn a_folder_of_the_right_name_alone_is_not_used() {
    let case = Case::new();
    let bytes = archive(&[KCONFIG, (EntryType::Regular, "linux-1/Makefile", "all:\n")]);
    let planted = format!("source/{}", Sha256::of_bytes(&bytes));
    let planted = case.cache.path().join(planted);
    fs::create_dir_all(&planted).unwrap();
    fs::write(planted.join("Kconfig"), "config A\n").unwrap();
    let tree = case.unpack(&bytes).unwrap();
    assert_eq!(fs::read(tree.join("Makefile")).unwrap(), b"all:\n");
}

#[test]
fn a_tree_and_then_its_note_are_on_the_disk() {
    let case = Case::new();
    let bytes = archive(&[KCONFIG]);
    let _ = trace::take();
    let tree = case.unpack(&bytes).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let [settled, renamed, _, noted] = &trace::take()[..] else {
        panic!("other steps");
    };
    assert!(settled.starts_with(&format!("settled {}.tmp-", name(&tree))));
    assert_eq!(*renamed, format!("renamed {}", name(&tree)));
    assert_eq!(*noted, format!("renamed {}.whole", name(&tree)));
}
