//! Reads bounded files below a root, and notes those that cannot be read.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::unseen::Unseen;

/// Most bytes of an ordinary file.
pub(crate) const ORDINARY: u64 = 1 << 20;
/// Most bytes of a file that grows with what runs on the host.
pub(crate) const LONG: u64 = 16 << 20;
/// Most of a text that a message shows, in characters.
const EXCERPT: usize = 40;

/// The files below a root, and what of them could not be seen.
///
/// Paths are relative to the root, and never lead out of it by `..`. A file
/// that is not there is `None`; one that cannot be read, or makes no sense, is
/// `None` too and noted.
pub(crate) struct Source<'a> {
    root: &'a Path,
    unseen: &'a mut Vec<Unseen>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(root: &'a Path, unseen: &'a mut Vec<Unseen>) -> Self {
        Self { root, unseen }
    }

    /// Where `path` stands below the root.
    pub(crate) fn place(&self, path: impl AsRef<Path>) -> PathBuf {
        let names = path.as_ref().components();
        let names = names.filter(|name| matches!(name, Component::Normal(_)));
        self.root.join(names.collect::<PathBuf>())
    }

    /// Opens a file; a pipe in its place is not waited for.
    fn open(&self, path: &Path) -> io::Result<File> {
        let mut options = File::options();
        options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        options.read(true).open(self.place(path))
    }

    /// Notes that `path` could not be seen.
    pub(crate) fn note(&mut self, path: impl AsRef<Path>, why: impl fmt::Display) {
        let path = path.as_ref().to_string_lossy();
        self.unseen.push(Unseen {
            what: format!("/{}", path.trim_start_matches('/')),
            why: why.to_string(),
        });
    }

    /// `result`, unless it failed: absence is silent, all else is noted.
    pub(crate) fn kept<T>(&mut self, path: impl AsRef<Path>, result: io::Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                if !is_absence(&error) {
                    self.note(path, reason(&error));
                }
            })
            .ok()
    }

    /// The bytes of a file of at most `limit`.
    pub(crate) fn bytes(&mut self, path: impl AsRef<Path>, limit: u64) -> Option<Vec<u8>> {
        let path = path.as_ref();
        let opened = self.open(path);
        let file = self.kept(path, opened)?;
        let bytes = read_bounded(file, limit);
        self.kept(path, bytes)
    }

    /// The text of an ordinary file; what is not UTF-8 becomes U+FFFD.
    pub(crate) fn text(&mut self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = self.bytes(path, ORDINARY)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What `parse` makes of an ordinary file's text without the white space
    /// around it; its error completes `"…" is not `.
    pub(crate) fn parsed<T>(
        &mut self,
        path: impl AsRef<Path>,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let path = path.as_ref();
        let text = self.text(path)?;
        let text = text.trim();
        let value = parse(text);
        if value.is_none() {
            self.note(path, unexpected(text, expected));
        }
        value
    }

    /// A file that holds one number.
    pub(crate) fn number(&mut self, path: impl AsRef<Path>) -> Option<u64> {
        self.parsed(path, "a number", |text| text.parse().ok())
    }

    /// A file that lists words of which the one in force stands in brackets.
    pub(crate) fn choice(&mut self, path: impl AsRef<Path>) -> Option<String> {
        self.parsed(path, "a choice, such as `a [b] c`", |text| {
            text.split_ascii_whitespace()
                .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
                .map(str::to_owned)
        })
    }

    /// Hands each line of a file to `take` until that breaks off; `None` if it
    /// could not be read so far, or is longer than `limit` so far.
    pub(crate) fn lines(
        &mut self,
        path: impl AsRef<Path>,
        limit: u64,
        take: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Option<()> {
        let path = path.as_ref();
        let opened = self.open(path);
        let file = self.kept(path, opened)?;
        let outcome = each_line(file, limit, take);
        self.kept(path, outcome)
    }

    /// The names in a folder, sorted; empty if it is not there.
    pub(crate) fn names(&mut self, path: impl AsRef<Path>) -> Vec<String> {
        let path = path.as_ref();
        let listed = fs::read_dir(self.place(path)).and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()
        });
        let mut names = self.kept(path, listed).unwrap_or_default();
        names.sort();
        names
    }
}

/// The number of `name` in a text whose lines are names and numbers.
pub(crate) fn counter(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(field, _)| *field == name)?.1.parse().ok()
}

/// Everything in `reader`, which holds at most `limit` bytes.
pub(crate) fn read_bounded(reader: impl io::Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_long(limit));
    }
    Ok(bytes)
}

fn each_line(
    file: File,
    limit: u64,
    mut take: impl FnMut(&str) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, file.take(limit + 1));
    let mut line = Vec::new();
    let mut read = 0;
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        read += length as u64;
        if read > limit {
            return Err(too_long(limit));
        }
        let text = String::from_utf8_lossy(&line);
        if length == 0 || take(text.trim_end_matches('\n')).is_break() {
            return Ok(());
        }
    }
}

fn too_long(limit: u64) -> io::Error {
    io::Error::other(format!("longer than {limit} bytes"))
}

/// Whether the system said that there is no such thing.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NOTDIR)
    )
}

/// What went wrong, without the number that std adds.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Says that `text` is not what was expected.
pub(crate) fn unexpected(text: &str, expected: &str) -> String {
    let cut: String = text.chars().take(EXCERPT).collect();
    let more = if cut.len() < text.len() { " …" } else { "" };
    format!("{cut:?}{more} is not {expected}")
}
