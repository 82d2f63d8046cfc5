use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

use super::*;

fn log() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs/g00007.log");
    fs::create_dir(path.parent().unwrap()).unwrap();
    (folder, path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_full_log_is_put_aside() {
    let (_folder, path) = log();
    for line in ["one\n", "two\n", "three\n"] {
        append(&path, line.as_bytes(), 8).unwrap();
    }
    assert_eq!(read(&path), "three\n");
    assert_eq!(read(&older(&path)), "one\ntwo\n");
    append(&path, b"four\n", 8).unwrap();
    append(&path, b"", 8).unwrap();
    assert_eq!(read(&path), "four\n");
    assert_eq!(read(&older(&path)), "three\n");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
}

#[test]
fn a_line_longer_than_the_cap_loses_its_beginning() {
    let (_folder, path) = log();
    append(&path, b"0123456789\n", 4).unwrap();
    assert_eq!(read(&path), "789\n");
    append(&path, b"x\n", 4).unwrap();
    append(&path, &[b'y'; 10_000], 4).unwrap();
    assert_eq!(read(&path), "yyyy");
    assert_eq!(read(&older(&path)), "x\n");
}

#[test]
fn a_log_that_cannot_be_written_is_an_error() {
    let (_folder, path) = log();
    assert!(append(&path.join("below"), b"x\n", CAP).is_err());
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let error = append(&path, b"x\n", CAP).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn the_last_lines_are_found_across_both_files() {
    // What was put aside, the log, lines asked for, lines found.
    type Case = (
        Option<&'static str>,
        Option<&'static str>,
        usize,
        &'static str,
    );
    let cases: [Case; 12] = [
        (None, None, 5, ""),
        (None, Some(""), 5, ""),
        (None, Some("a\nb\n"), 0, ""),
        (None, Some("a\nb\n"), 1, "b\n"),
        (None, Some("a\nb\n"), 2, "a\nb\n"),
        (None, Some("a\nb\n"), usize::MAX, "a\nb\n"),
        (Some("a\nb\n"), Some("c\n"), 2, "b\nc\n"),
        (Some("a\nb\n"), Some("c\n"), 1, "c\n"),
        (Some("a\nb\n"), None, 1, "b\n"),
        (Some("a\nb\n"), Some(""), 9, "a\nb\n"),
        (None, Some("a\n\n\nb\nunfin"), 4, "\n\nb\nunfin"),
        (
            None,
            Some("x\n\x1b[2J\u{7}\ta\0\r\n"),
            1,
            "\x1b[2J\u{7}\ta\0\r\n",
        ),
    ];
    for (aside, newer, lines, expected) in cases {
        let (_folder, path) = log();
        for (path, text) in [(older(&path), aside), (path.clone(), newer)] {
            if let Some(text) = text {
                fs::write(path, text).unwrap();
            }
        }
        let found = tail(&path, lines).unwrap();
        assert_eq!(found, expected.as_bytes(), "{aside:?} {newer:?} {lines}");
    }
}

#[test]
fn no_more_than_four_mebibytes_are_looked_at() {
    let (_folder, path) = log();
    let huge = File::create(&path).unwrap();
    huge.set_len(1 << 40).unwrap();
    fs::write(older(&path), "old\n").unwrap();
    let found = tail(&path, usize::MAX).unwrap();
    assert_eq!(found.len(), 4 << 20);
    fs::write(&path, b"\xff\xfe\n").unwrap();
    assert_eq!(tail(&path, 1).unwrap(), b"\xff\xfe\n");
    assert!(tail(path.parent().unwrap(), 1).is_err());
}

/// Someone who follows a log.
struct Follower {
    interrupt: Interrupt,
    thread: JoinHandle<io::Result<()>>,
    said: Receiver<Vec<u8>>,
}

impl Follower {
    fn start(path: &Path, lines: usize) -> Self {
        let interrupt = Interrupt::never().unwrap();
        let (sender, said) = mpsc::channel();
        let path = path.to_path_buf();
        let theirs = interrupt.clone();
        let thread = thread::spawn(move || {
            follow(&path, lines, File::open("/dev/null")?, &theirs, |bytes| {
                sender.send(bytes.to_vec()).map_err(io::Error::other)
            })
        });
        Self {
            interrupt,
            thread,
            said,
        }
    }

    /// Waits until exactly this was said next.
    fn hears(&self, expected: &str) {
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            heard.extend(self.said.recv().unwrap());
        }
        assert_eq!(String::from_utf8(heard).unwrap(), expected);
    }

    fn end(self) -> io::Result<()> {
        self.thread.join().unwrap()
    }
}

#[test]
fn a_log_is_followed_as_it_grows_and_is_put_aside() {
    let (_folder, path) = log();
    append(&path, b"one\ntwo\n", 16).unwrap();
    let follower = Follower::start(&path, 1);
    follower.hears("two\n");
    append(&path, b"three\n", 16).unwrap();
    follower.hears("three\n");
    for round in 0..50 {
        let line = format!("line {round:02}\n");
        append(&path, line.as_bytes(), 16).unwrap();
        follower.hears(&line);
    }
    // Others' logs are of no interest.
    append(&path.with_file_name("g00008.log"), b"other\n", 16).unwrap();
    append(&path, b"last\n", 16).unwrap();
    follower.hears("last\n");
    follower.interrupt.raise();
    follower.end().unwrap();
}

#[test]
fn a_log_is_followed_from_before_its_first_line_to_the_end_of_its_folder() {
    let (folder, path) = log();
    let follower = Follower::start(&path, 10);
    assert_eq!(follower.said.recv().unwrap(), b"");
    append(&path, b"first\n", CAP).unwrap();
    follower.hears("first\n");
    append(&path, b"last words\n", CAP).unwrap();
    drop(folder);
    follower.hears("last words\n");
    follower.end().unwrap();
}

#[test]
fn following_ends_with_its_reader_and_not_without_a_folder() {
    let (_folder, path) = log();
    append(&path, b"one\n", CAP).unwrap();
    let interrupt = Interrupt::never().unwrap();
    let null = File::open("/dev/null").unwrap();
    let closed = |_: &[u8]| Err(io::ErrorKind::BrokenPipe.into());
    let error = follow(&path, 1, &null, &interrupt, closed).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    let nowhere = path.join("below/g00000.log");
    assert!(follow(&nowhere, 1, &null, &interrupt, |_| Ok(())).is_err());
    // A guest that says nothing more does not keep it, either.
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    follow(&path, 1, &writer, &interrupt, |_| Ok(())).unwrap();
    interrupt.raise();
    follow(&path, 1, &null, &interrupt, |_| Ok(())).unwrap();
}
