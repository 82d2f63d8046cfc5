//! Copies a file into a guest or out of it: over SSH, by the one line that init and
//! every shell take, `cat FILE` and `cat > FILE`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::ssh::{End, Reachable, late};
use crate::interrupt::Interrupt;
use crate::process::{self, Captured, ProcessError};
use crate::text::printable_bytes;
use crate::units::GuestIndex;

mod landing;

pub(crate) use landing::Landing;

/// Bytes that are read and written at a time.
const BLOCK: usize = 64 * 1024;

/// A copy that failed on this side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// The file here takes no more.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The file here cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file here could not be read to its end.
    #[error("cannot read {}: {source}; {guest} has only the first part of it", path.display())]
    Cut {
        path: PathBuf,
        guest: GuestIndex,
        source: io::Error,
    },
    /// ssh(1) was ended while it wrote into a guest; others may have been on their way.
    #[error("{0}; a guest that was being copied to may have a part of the file")]
    Halted(ProcessError),
    /// ssh(1) could not be run.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Why a path in a guest cannot be copied from or to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("give a path behind the colon")]
    Empty,
    /// There is no word for it that init reads.
    #[error("give a path without single quotes in it")]
    Quote,
    /// `~NAME`, which only some shells would resolve.
    #[error(
        "only `~/` is a home, that of the user who logs in; a file of that name is ./{}",
        .0.display()
    )]
    Home(PathBuf),
}

/// What became of a copy, as far as the guest goes.
#[derive(Debug)]
pub(crate) struct Copied {
    pub end: End,
    pub bytes: u64,
    /// Why it failed, in the last words of the guest, or of ssh(1).
    pub words: String,
}

/// A file of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuestPath {
    path: OsString,
    /// As a shell reads it, and init, which knows no escape.
    word: OsString,
}

impl GuestPath {
    /// Reads a path as it is typed. As for scp(1), `~/` is the folder that a log-in
    /// starts in.
    pub(crate) fn new(path: &OsStr) -> Result<Self, PathError> {
        let (folder, bytes): (&[u8], _) = match path.as_bytes() {
            [] => return Err(PathError::Empty),
            bytes if bytes.contains(&b'\'') => return Err(PathError::Quote),
            // Init knows no home, and a shell finds none in quotes.
            [b'~', b'/', rest @ ..] => (b"./", rest),
            [b'~'] => (b"./", &[][..]),
            [b'~', ..] => return Err(PathError::Home(path.into())),
            // Not an option of cat(1).
            bytes @ [b'-', ..] => (b"./", bytes),
            bytes => (b"", bytes),
        };
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%".contains(byte);
        let quote: &[u8] = if bytes.iter().all(is_plain) {
            b""
        } else {
            b"'"
        };
        let word = [quote, folder, bytes, quote].concat();
        Ok(Self {
            path: path.to_owned(),
            word: OsString::from_vec(word),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// The name of the file alone.
    pub(crate) fn name(&self) -> Option<&OsStr> {
        self.path().file_name()
    }

    /// The same file, or that of the name `name` if it is a folder by its last
    /// character.
    pub(crate) fn or_in_folder(self, name: Option<&OsStr>) -> Option<Self> {
        if !self.path.as_bytes().ends_with(b"/") {
            return Some(self);
        }
        Self::new(self.path().join(name?).as_os_str()).ok()
    }
}

/// How a guest is copied from or to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub fleet: &'a Reachable,
    /// How long it may take; as long as it likes without.
    pub within: Option<Duration>,
    pub interrupt: &'a Interrupt,
}

impl Terms<'_> {
    /// Hands what is in a guest's file to `sink`, as it comes.
    pub(crate) fn read(
        &self,
        guest: GuestIndex,
        path: &GuestPath,
        mut sink: impl FnMut(&[u8]) -> Result<(), CopyError>,
    ) -> Result<Copied, CopyError> {
        let words = ["cat".into(), path.word.clone()];
        let mut bytes = 0;
        let mut failed = None;
        let carried = self.carry(guest, &words, Stdio::null(), |block| {
            bytes += block.len() as u64;
            sink(block).map_err(|error| {
                failed = Some(error);
                io::ErrorKind::Other.into()
            })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(Copied { bytes, ..carried? }),
        }
    }

    /// Writes what is in `source`, which goes by this `name` here, into a guest's
    /// file; `on_bytes` is told of each part that went.
    pub(crate) fn write(
        &self,
        guest: GuestIndex,
        path: &GuestPath,
        source: File,
        name: &Path,
        on_bytes: impl Fn(u64) + Send + 'static,
    ) -> Result<Copied, CopyError> {
        let unreadable = |source| CopyError::Read {
            path: name.to_path_buf(),
            source,
        };
        let (reader, writer) = io::pipe().map_err(unreadable)?;
        // Not waited for if the guest takes no more: it may read a terminal.
        let pump = thread::spawn(move || pump(source, writer, on_bytes));
        let words = ["cat".into(), ">".into(), path.word.clone()];
        let copied = self.carry(guest, &words, Stdio::from(reader), |_| Ok(()));
        let copied = copied.map_err(|error| match error {
            ProcessError::Missing { .. } | ProcessError::Start { .. } => error.into(),
            error => CopyError::Halted(error),
        })?;
        if copied.end != End::Exited(0) {
            return Ok(copied);
        }
        let pumped = pump.join().expect("the pump does not panic");
        let bytes = pumped.map_err(|source| CopyError::Cut {
            path: name.to_path_buf(),
            guest,
            source,
        })?;
        Ok(Copied { bytes, ..copied })
    }

    fn carry(
        &self,
        guest: GuestIndex,
        words: &[OsString],
        input: Stdio,
        on_output: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Copied, ProcessError> {
        let command = self.fleet.unattended(guest, words);
        let carried = process::carry(command, input, self.within, self.interrupt, on_output);
        let (end, words) = match carried {
            Ok(captured) => (End::of(&captured), last_words(&captured)),
            Err(error) => (End::Late(late(error)?), String::new()),
        };
        Ok(Copied {
            end,
            bytes: 0,
            words,
        })
    }
}

/// The last line that tells something.
fn last_words(captured: &Captured) -> String {
    let lines = captured.stderr.split(|byte| *byte == b'\n').rev();
    let mut lines = lines.map(<[u8]>::trim_ascii);
    let last = lines.find(|line| !line.is_empty());
    printable_bytes(last.unwrap_or_default())
}

/// Writes all of `source` to `writer`; gives its length, or what of it was wanted.
fn pump(mut source: File, mut writer: io::PipeWriter, on_bytes: impl Fn(u64)) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut bytes = 0;
    loop {
        let length = match source.read(&mut block) {
            Ok(0) => return Ok(bytes),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if writer.write_all(&block[..length]).is_err() {
            return Ok(bytes);
        }
        bytes += length as u64;
        on_bytes(length as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_init_and_to_a_shell() {
        for (path, word) in [
            ("/disk/a-b_c.d", "/disk/a-b_c.d"),
            ("/a b", "'/a b'"),
            ("/$x\\", "'/$x\\'"),
            ("=f", "'=f'"),
            ("/ü", "'/ü'"),
            ("-n", "./-n"),
            ("- n", "'./- n'"),
            ("~/f", "./f"),
            ("~//a b", "'.//a b'"),
            ("~", "./"),
            ("./~f", "'./~f'"),
        ] {
            assert_eq!(GuestPath::new(path.as_ref()).unwrap().word, word);
        }
        for (path, error) in [
            ("", PathError::Empty),
            ("/it's", PathError::Quote),
            ("~user/f", PathError::Home("~user/f".into())),
        ] {
            assert_eq!(GuestPath::new(path.as_ref()), Err(error), "{path}");
        }
        let in_folder = |path: &str, name: Option<&str>| {
            let path = GuestPath::new(path.as_ref()).unwrap();
            let path = path.or_in_folder(name.map(OsStr::new))?;
            Some(path.path().to_owned())
        };
        assert_eq!(in_folder("/disk/", Some("f")), Some("/disk/f".into()));
        assert_eq!(in_folder("/disk", Some("f")), Some("/disk".into()));
        assert_eq!(in_folder("/disk/", None), None);
        assert_eq!(in_folder("~/", Some("~f")), Some("~/~f".into()));
    }
}
