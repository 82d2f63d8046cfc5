//! Keeps file contents on disk on their way from one archive to another, because a
//! root file system may be larger than the free memory.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

const BUFFER: usize = 64 * 1024;

/// A temporary file without a name, made when the first content comes.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    file: Option<File>,
    end: u64,
    buffer: Vec<u8>,
}

/// Where in a spool a content lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spooled {
    offset: u64,
    pub(crate) size: u32,
}

/// Why a content is not in the spool.
#[derive(Debug)]
pub(crate) enum SpoolError {
    Read(io::Error),
    Short { found: u64 },
    Write(io::Error),
}

impl Spool {
    /// Takes exactly `size` bytes from `content`.
    pub(crate) fn store(
        &mut self,
        size: u32,
        mut content: impl Read,
    ) -> Result<Spooled, SpoolError> {
        let file = match &self.file {
            Some(file) => file,
            None => self
                .file
                .insert(tempfile::tempfile().map_err(SpoolError::Write)?),
        };
        self.buffer.resize(BUFFER, 0);
        let offset = self.end;
        let end = offset + u64::from(size);
        let mut position = offset;
        while position < end {
            let wanted = usize::try_from(end - position).map_or(BUFFER, |left| left.min(BUFFER));
            let found = match content.read(&mut self.buffer[..wanted]) {
                Ok(0) => {
                    return Err(SpoolError::Short {
                        found: position - offset,
                    });
                }
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(SpoolError::Read(error)),
            };
            file.write_all_at(&self.buffer[..found], position)
                .map_err(SpoolError::Write)?;
            position += found as u64;
        }
        self.end = end;
        Ok(Spooled { offset, size })
    }

    /// What [`Spool::store`] took.
    pub(crate) fn read(&self, spooled: Spooled) -> impl Read {
        SpoolReader {
            file: self.file.as_ref(),
            position: spooled.offset,
            left: spooled.size,
        }
    }
}

struct SpoolReader<'a> {
    file: Option<&'a File>,
    position: u64,
    left: u32,
}

impl Read for SpoolReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(file) = self.file else { return Ok(0) };
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let found = file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += found as u64;
        self.left -= u32::try_from(found).unwrap_or(self.left);
        Ok(found)
    }
}
