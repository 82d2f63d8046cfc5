//! What tar, cpio and gzip make of it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::Path;

use tar::EntryType as Type;

use super::*;
use crate::disk::tool;

fn base() -> Tree {
    let mut tree = Tree::new();
    // As incompressible as a stripped executable.
    let init = (0..10_000_u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes());
    tree.add_base(init.collect(), &[]).unwrap();
    tree
}

fn packed(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    let stats = pack(tree, 7, &mut bytes).unwrap();
    assert_eq!(stats.packed, bytes.len() as u64);
    bytes
}

/// What `script` prints with the unpacked archive of `tree` on its input.
fn shell(tree: &Tree, dir: &Path, script: &str) -> String {
    fs::write(dir.join("archive.gz"), packed(tree)).unwrap();
    let script = format!("cd \"$1\" && gzip -t archive.gz && gzip -dc archive.gz | {script}");
    tool::run(
        "sh",
        [
            "-c".as_ref(),
            script.as_ref(),
            "sh".as_ref(),
            dir.as_os_str(),
        ],
    )
}

/// The archive's entries as `ls -l` shows them, without dates.
fn listing(tree: &Tree) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    shell(tree, dir.path(), "TZ=UTC cpio -itvn --quiet")
        .lines()
        .map(|line| {
            assert!(line.contains("Jan  1  1970"), "{line}");
            let line = line.replace("Jan  1  1970", "");
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// A tar of `dir` made by GNU tar with `options`.
fn tar(dir: &Path, options: &[&str]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let target = [
        "-cf".as_ref(),
        file.path().as_os_str(),
        "-C".as_ref(),
        dir.as_os_str(),
    ];
    let options = options.iter().map(AsRef::as_ref);
    tool::run("tar", target.into_iter().chain(options));
    fs::read(file.path()).unwrap()
}

fn from_tar(bytes: &[u8]) -> Result<Tree, RootfsError> {
    let mut tree = Tree::new();
    tree.add_rootfs_tar(bytes, "rootfs.tar")?;
    Ok(tree)
}

fn message(bytes: &[u8]) -> String {
    from_tar(bytes).unwrap_err().to_string()
}

/// A tar of hand-made entries: type, path, link target, content.
fn crafted(entries: &[(Type, &str, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, path, target, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_uid(3);
        header.set_gid(4);
        // The crate's own setters refuse what an attacker would write.
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn the_base_set_is_what_init_needs() {
    assert_eq!(
        listing(&base()),
        [
            "drwxr-xr-x 1 0 0 0 dev",
            "crw------- 1 0 0 5, 1 dev/console",
            "drwxr-xr-x 1 0 0 0 disk",
            "-rwxr-xr-x 1 0 0 40000 init",
            "dr-xr-xr-x 1 0 0 0 proc",
            "dr-xr-xr-x 1 0 0 0 sys",
            "drwxrwxrwt 1 0 0 0 tmp",
        ]
    );
}

#[test]
fn the_header_of_the_compressed_archive_tells_nothing() {
    assert_eq!(&packed(&base())[..10], b"\x1f\x8b\x08\x00\0\0\0\0\x02\xff");
}

#[test]
fn equal_trees_are_equal_bytes_in_any_order() {
    let entries = [("a/b", 0o644), ("a/c", 0o600), ("z", 0o755)];
    let archive = |order: &[usize]| {
        let mut tree = Tree::new();
        for &index in order {
            let (path, mode) = entries[index];
            tree.add_file(path, mode, path.into()).unwrap();
            tree.add_base(b"init".to_vec(), &[]).unwrap();
        }
        packed(&tree)
    };
    let first = archive(&[0, 1, 2]);
    assert!(first == archive(&[0, 1, 2]));
    assert!(first == archive(&[2, 1, 0]));
}

#[test]
fn compression_is_not_lost_between_entries() {
    let mut tree = Tree::new();
    for index in 0..1000 {
        tree.add_file(format!("f{index}"), 0o644, b"x".to_vec())
            .unwrap();
    }
    // A flush after each entry would add 5 bytes to each, and much more.
    let size = packed(&tree).len();
    assert!(size < 16_000, "{size} bytes");
}

/// A small root file system with all that may be in one.
fn rootfs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("usr/bin")).unwrap();
    fs::create_dir(at("etc")).unwrap();
    fs::write(at("usr/bin/busybox"), "#!busybox".repeat(20_000)).unwrap();
    fs::hard_link(at("usr/bin/busybox"), at("usr/bin/ls")).unwrap();
    fs::hard_link(at("usr/bin/busybox"), at("usr/bin/cat")).unwrap();
    symlink("/usr/bin/busybox", at("usr/bin/sh")).unwrap();
    symlink("usr/bin", at("bin")).unwrap();
    fs::write(at("etc/empty"), "").unwrap();
    fs::write(at(&format!("etc/{}", "long".repeat(40))), "long").unwrap();
    tool::run(
        "chmod",
        ["4755".as_ref(), at("usr/bin/busybox").as_os_str()],
    );
    dir
}

#[test]
fn a_root_file_system_survives_the_way_from_tar_to_cpio() {
    let source = rootfs();
    for options in [
        &["--format=gnu", "."][..],
        &["--format=pax", "."],
        &["--format=gnu", "-z", "."],
        &["--format=gnu", "-J", "."],
        &["--format=gnu", "--transform=s,^\\./,/,", "-P", "."],
    ] {
        let tree = from_tar(&tar(source.path(), options)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        shell(
            &tree,
            dir.path(),
            "(cd root && cpio -id --quiet --no-absolute-filenames)",
        );
        let script = "diff -r --no-dereference \"$1\" \"$2\" && \
                      for d in \"$1\" \"$2\"; do \
                          (cd \"$d\" && find . -mindepth 1 -printf '%p %m %n %y %l\n' | \
                          grep -v ' d $' | sort >\"$3/$(basename \"$d\").list\"); \
                      done; cd \"$3\" && diff \"$(basename \"$1\")\".list root.list";
        let folders = [source.path(), &root, dir.path()].map(Path::as_os_str);
        let script = ["-c", script, "sh"].map(AsRef::as_ref);
        tool::run("sh", script.into_iter().chain(folders));
        let inode = |name: &str| fs::metadata(root.join("usr/bin").join(name)).unwrap().ino();
        assert!(inode("ls") == inode("busybox") && inode("cat") == inode("ls"));
    }
}

#[test]
fn owners_modes_and_devices_are_kept() {
    let mut bytes = crafted(&[
        (Type::Directory, "./srv/", "", b""),
        (Type::Regular, "/srv/file", "", b"content"),
        (Type::Link, "srv/link", "./srv/file", b""),
        (Type::Symlink, "srv/symlink", "file", b""),
    ]);
    bytes.truncate(bytes.len() - 1024);
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(Type::Block);
    header.set_path("dev/sda").unwrap();
    header.set_mode(0o660);
    header.set_device_major(8).unwrap();
    header.set_device_minor(1).unwrap();
    header.set_uid(0);
    header.set_gid(6);
    header.set_size(0);
    header.set_cksum();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 1024, 0);
    assert_eq!(
        listing(&from_tar(&bytes).unwrap()),
        [
            "drwxr-xr-x 1 0 0 0 dev",
            "brw-rw---- 1 0 6 8, 1 dev/sda",
            "drw-r----- 1 3 4 0 srv",
            "-rw-r----- 2 3 4 0 srv/file",
            "-rw-r----- 2 3 4 7 srv/link",
            "lrw-r----- 1 3 4 4 srv/symlink -> file",
        ]
    );
}

#[test]
fn sparse_files_come_out_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = vec![0; 3 << 20];
    content[1 << 20] = 1;
    let file = fs::File::create(dir.path().join("sparse")).unwrap();
    file.set_len(content.len() as u64).unwrap();
    file.write_all_at(&[1], 1 << 20).unwrap();
    let is_whole = |archive: &[u8]| {
        assert!(archive.len() < content.len() / 2);
        let tree = from_tar(archive).unwrap();
        let out = tempfile::tempdir().unwrap();
        shell(&tree, out.path(), "cpio -id --quiet");
        assert!(fs::read(out.path().join("sparse")).unwrap() == content);
    };
    for options in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
    ] {
        is_whole(&tar(dir.path(), &[options, &["-S", "sparse"]].concat()));
    }
    let archive = dir.path().join("bsdtar.tar");
    let arguments = ["-cf".as_ref(), archive.as_os_str(), "-C".as_ref()];
    let rest = [dir.path().as_os_str(), "sparse".as_ref()];
    tool::run("bsdtar", arguments.into_iter().chain(rest));
    is_whole(&fs::read(archive).unwrap());
}

#[test]
fn names_keep_their_bytes_through_cpio() {
    let name = OsStr::from_bytes(b"Pr\xfcfung.txt");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), "x").unwrap();
    symlink(name, dir.path().join("l")).unwrap();
    let bytes = tar(dir.path(), &["."]);
    let out = tempfile::tempdir().unwrap();
    shell(&from_tar(&bytes).unwrap(), out.path(), "cpio -id --quiet");
    assert_eq!(fs::read(out.path().join(name)).unwrap(), b"x");
    assert_eq!(fs::read_link(out.path().join("l")).unwrap(), name);
}

#[test]
fn pax_records_are_found_behind_attributes_that_look_like_text() {
    let record = |key: &str, value: &[u8]| {
        let rest = [format!(" {key}=").as_bytes(), value, b"\n"].concat();
        let length = (rest.len()..rest.len() + 9).find(|n| n.to_string().len() + rest.len() == *n);
        [length.unwrap().to_string().as_bytes(), &rest[..]].concat()
    };
    let name = format!("etc/{}", "x".repeat(150));
    let records = [
        record("SCHILY.xattr.security.ima", b"\x03\x04\n\n\xff\n"),
        record("path", name.as_bytes()),
        record("uid", b"4000000"),
    ]
    .concat();
    let bytes = crafted(&[
        (
            Type::XGlobalHeader,
            "pax_global_header",
            "",
            b"19 comment=release\n",
        ),
        (Type::XHeader, "PaxHeaders/x", "", &records),
        (Type::Regular, "etc/xxx", "", b"x"),
    ]);
    let listed = listing(&from_tar(&bytes).unwrap());
    assert_eq!(listed[1], format!("-rw-r----- 1 4000000 4 1 {name}"));
    assert_eq!(listed.len(), 2);
}

#[test]
fn entries_that_would_escape_or_cannot_be_packed_are_refused_by_name() {
    for (kind, path, target, reason) in [
        (Type::Regular, "../etc/passwd", "", "leads through `..`"),
        (Type::Regular, "a/../../b", "", "leads through `..`"),
        (
            Type::Link,
            "shadow",
            "../etc/shadow",
            "hard link to `../etc/shadow`",
        ),
        (Type::Link, "nothing", "missing", "hard link to `missing`"),
        (Type::Symlink, "empty", "", "link to nothing"),
        (Type::Fifo, "run/initctl", "", "a named pipe"),
        (Type::new(b'M'), "volume", "", "of tar's type `M`"),
        (Type::Regular, "TRAILER!!!", "", "end of a cpio archive"),
        (Type::Char, "null", "", "device"),
    ] {
        let mut bytes = crafted(&[(kind, path, target, b"")]);
        if kind == Type::Char {
            bytes[329..337].copy_from_slice(b"garbage\0");
            bytes[148..156].copy_from_slice(b"        ");
            let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let error = message(&bytes);
        assert!(error.contains(reason), "{path}: {error}");
        assert!(error.contains(&format!("`{path}`")), "{path}: {error}");
        assert!(error.contains("rootfs.tar"), "{path}: {error}");
    }
}

#[test]
fn a_file_behind_a_link_lands_inside_the_tree() {
    let tree = from_tar(&crafted(&[
        (Type::Symlink, "escape", "/etc", b""),
        (Type::Regular, "escape/passwd", "", b"guest"),
    ]));
    let listed = listing(&tree.unwrap());
    assert!(listed.contains(&"-rw-r----- 1 3 4 5 etc/passwd".to_owned()));
}

#[test]
fn truncated_and_damaged_archives_are_refused() {
    let source = rootfs();
    let plain = tar(source.path(), &["."]);
    let whole_entries = crafted(&[(Type::Regular, "one", "", b"1")]);
    for bytes in [
        &whole_entries[..whole_entries.len() - 1024],
        &[],
        &plain[..plain.len() / 2],
        &plain[..700],
    ] {
        let error = message(bytes);
        assert!(
            ["incomplete", "ends after", "EOF", "entire block"]
                .iter()
                .any(|word| error.contains(word)),
            "{error}"
        );
    }
    for option in ["-z", "-J"] {
        let packed = tar(source.path(), &[option, "."]);
        for cut in [packed.len() - 4, packed.len() / 2, 20] {
            assert!(from_tar(&packed[..cut]).is_err(), "{option} cut at {cut}");
        }
        let mut damaged = packed.clone();
        let last = damaged.len() - 6;
        damaged[last] ^= 1;
        assert!(from_tar(&damaged).is_err(), "{option} damaged");
    }
    let mut bad_sum = whole_entries.clone();
    bad_sum[0] ^= 1;
    assert!(message(&bad_sum).contains("checksum"));
}

#[test]
fn hostile_sizes_cost_neither_memory_nor_time() {
    let claim = |kind: Type, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path("claim").unwrap();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let error = message(&claim(Type::Regular, 1 << 32));
    assert!(
        error.contains("`claim`") && error.contains("below 4 GiB"),
        "{error}"
    );
    // An endless extension header, which the tar crate would hold in memory.
    let mut tree = Tree::new();
    for kind in [Type::XHeader, Type::GNULongName, Type::GNULongLink] {
        let start = io::Cursor::new(claim(kind, 1 << 40));
        let long = io::repeat(b'x').take(64 << 20);
        let endless = start.chain(long);
        let error = tree.add_rootfs_tar(endless, "endless.tar").unwrap_err();
        assert!(
            error.to_string().contains("no end to its headers"),
            "{error}"
        );
    }
    let end = io::Cursor::new(crafted(&[]));
    let padded = end.chain(io::repeat(0));
    assert!(tree.add_rootfs_tar(padded, "padded.tar").is_err());
}

#[test]
fn zstd_is_read_in_every_form_and_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let plain = crafted(&[(Type::Regular, "a", "", b"content")]);
    let file = dir.path().join("plain");
    fs::write(&file, &plain).unwrap();
    let zstd = |options: &[&str]| {
        let out = dir.path().join("out.zst");
        let options = options.iter().map(AsRef::as_ref);
        let paths = [file.as_os_str(), "-o".as_ref(), out.as_os_str()];
        tool::run(
            "zstd",
            ["-qf".as_ref()].into_iter().chain(options).chain(paths),
        );
        fs::read(out).unwrap()
    };
    let listed = listing(&from_tar(&plain).unwrap());
    let same = |bytes: &[u8]| assert_eq!(listing(&from_tar(bytes).unwrap()), listed);
    for options in [&["-1"][..], &["-19"], &["--no-check"], &["--ultra", "-22"]] {
        same(&zstd(options));
    }
    // Frames one after the other, the first of which is skipped (RFC 8878, 3.1.2).
    let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
    let whole = zstd(&[]);
    fs::write(&file, &plain[..700]).unwrap();
    let first = zstd(&[]);
    fs::write(&file, &plain[700..]).unwrap();
    same(&[skipped, &first[..], skipped, &zstd(&[])].concat());

    for end in [5, whole.len() / 2, whole.len() - 1] {
        let error = message(&whole[..end]);
        assert!(error.contains("rootfs.tar"), "{end}: {error}");
    }
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let error = message(&damaged);
    assert!(error.contains("checksum"), "{error}");
    assert!(message(&skipped[..9]).contains("rootfs.tar"));
    // A window of 4 GiB, which nobody has.
    let error = message(b"\x28\xb5\x2f\xfd\x00\xb0rest");
    assert!(error.contains("4096 MiB"), "{error}");
}

#[test]
fn other_compressions_are_named() {
    for (start, name) in [
        (&b"BZh91AY"[..], "bzip2"),
        (b"\x04\x22\x4d\x18rest", "lz4"),
        (b"\x5d\x00\x00\x80\x00rest", "lzma"),
        (b"PK\x03\x04rest", "zip"),
    ] {
        assert_eq!(
            message(start),
            format!(
                "rootfs.tar is a file of {name}: give a tar, plain or compressed by gzip, xz or zstd"
            )
        );
    }
}
