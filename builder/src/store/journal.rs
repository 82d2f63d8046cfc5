//! A fleet's journal: which guests were started and which ended. The next
//! supervisor needs it if this one dies.
//!
//! One line is one record: the CRC-32 of the rest as 8 hexadecimal digits, a space,
//! the record as JSON. The file only grows, until a shorter one with the same
//! content replaces it. The death of a process leaves whole lines, because each
//! line is one write(2); a power cut may leave anything. A reader trusts the lines
//! before the first wrong one and ignores the rest: the guests of lost records are
//! found by their processes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::Crc;

use crate::durable;

mod history;

pub use history::{History, Past, Record, Run};

/// Longest line, in bytes; those written take a fortieth of it.
const LINE_MAX: u64 = 4096;
/// A file of no more than these bytes is never rewritten.
const COMPACT_FROM: u64 = 1 << 20;
/// A file is rewritten when it has more lines than this many times those needed.
const SURPLUS: usize = 4;

/// A journal that could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read.
    #[error(
        "cannot read the journal {}: {source}; resume the fleet as the user who launched \
         it",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(
        "cannot write the journal {}: {source}; make room: a supervisor that resumes the fleet \
         needs it",
        path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A journal that is written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    lines: usize,
    /// From which length on it is looked whether a shorter file would do.
    compact_at: u64,
    history: History,
}

/// What a journal's file holds.
#[derive(Debug)]
struct Scan {
    history: History,
    /// Bytes up to the first wrong line.
    length: u64,
    lines: usize,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    /// A last line that is wrong.
    Torn,
    /// A wrong line, and more behind it.
    Corrupt,
}

impl Journal {
    /// Opens a journal to go on with it; makes one that is not there.
    ///
    /// A wrong last line is cut off. A wrong line before others is moved to
    /// `journal.damaged`, with all that follows it. Both are logged as warnings.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(unwritable(path))?;
        let found = scan(BufReader::new(&file)).map_err(unreadable(path))?;
        repair(&mut file, path, &found).map_err(unwritable(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            length: found.length,
            lines: found.lines,
            compact_at: COMPACT_FROM,
            history: found.history,
        })
    }

    /// What was recorded up to now.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Records what happened. It outlives this process, and not a power cut,
    /// which no guest outlives either.
    ///
    /// What could not be recorded leaves the journal as it was.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        self.write(&[*record], |_| Ok(()))
    }

    /// Records what is to outlive a power cut too: what a user asked for. All of
    /// it or nothing: who reads that it failed finds none of it done later.
    pub fn append_durably(
        &mut self,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<(), JournalError> {
        let records: Vec<_> = records.into_iter().collect();
        self.write(&records, File::sync_data)
    }

    /// Writes these records, which count once `settle` went well too.
    fn write(
        &mut self,
        records: &[Record],
        settle: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), JournalError> {
        let text: String = records.iter().map(line).collect();
        // Where the last whole line ends, whatever a failed write left behind it.
        let written = self.file.write_all_at(text.as_bytes(), self.length);
        if let Err(source) = written.and_then(|()| settle(&self.file)) {
            let _ = self.file.set_len(self.length);
            return Err(unwritable(&self.path)(source));
        }
        self.length += text.len() as u64;
        self.lines += records.len();
        for record in records {
            self.history.apply(record);
        }
        if self.length > self.compact_at {
            self.compact();
        }
        Ok(())
    }

    /// Writes a shorter file in the place of this one, if one would do.
    fn compact(&mut self) {
        let records = self.history.records();
        if self.lines > SURPLUS * records.len() {
            let text: String = records.iter().map(line).collect();
            match durable::replace(&self.path, text.as_bytes()) {
                Ok(file) => {
                    self.file = file;
                    self.length = text.len() as u64;
                    self.lines = records.len();
                }
                Err(error) => {
                    let path = self.path.display();
                    tracing::warn!("cannot shorten the journal {path}, which grows: {error}");
                }
            }
        }
        self.compact_at = COMPACT_FROM.max(2 * self.length);
    }
}

/// Reads a journal that another process may be writing, and leaves it as it is.
pub fn replay(path: &Path) -> Result<History, JournalError> {
    let scanned = File::open(path).and_then(|file| scan(BufReader::new(file)));
    Ok(scanned.map_err(unreadable(path))?.history)
}

fn scan(mut file: impl BufRead) -> io::Result<Scan> {
    let mut found = Scan {
        history: History::default(),
        length: 0,
        lines: 0,
        end: End::Clean,
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(found);
        }
        let Some(record) = parse(&line) else {
            found.end = if file.fill_buf()?.is_empty() {
                End::Torn
            } else {
                End::Corrupt
            };
            return Ok(found);
        };
        found.history.apply(&record);
        found.length += line.len() as u64;
        found.lines += 1;
    }
}

/// Leaves only right lines in `file`.
fn repair(file: &mut File, path: &Path, found: &Scan) -> io::Result<()> {
    let shown = path.display();
    let line = found.lines + 1;
    match found.end {
        End::Clean => return Ok(()),
        End::Torn => tracing::warn!("{shown}: line {line}, the last, is wrong and was cut off"),
        End::Corrupt => {
            let aside = path.with_extension("damaged");
            let mut damaged = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&aside)?;
            file.seek(SeekFrom::Start(found.length))?;
            io::copy(file, &mut damaged)?;
            damaged.sync_all()?;
            tracing::warn!(
                "{shown}: line {line} is wrong; moved it and the lines after it to {}, and looking \
                 for guests among the processes",
                aside.display()
            );
        }
    }
    file.set_len(found.length)
}

fn line(record: &Record) -> String {
    let json = serde_json::to_string(record).expect("a record has no map with other keys");
    format!("{:08x} {json}\n", checksum(json.as_bytes()))
}

fn parse(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = line.split_at_checked(9)?;
    let right = format!("{:08x} ", checksum(json));
    if sum != right.as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |source| JournalError::Unreadable {
        path: path.to_path_buf(),
        source,
    }
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |source| JournalError::Unwritable {
        path: path.to_path_buf(),
        source,
    }
}

#[cfg(test)]
mod tests;
