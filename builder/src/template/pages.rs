//! The pages of a guest's RAM that are not empty, in a file with holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::digest::{Hasher, Sha256};

const PAGE: usize = 4096;
/// So much is read at a time.
const CHUNK: usize = 64 * PAGE;

/// Does something with each page that is not empty, by its offset, and gives the
/// digest of all of them and their offsets. Holes are passed over, and where zeros
/// are written out is of no matter.
pub(super) fn each(
    file: &File,
    mut with: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<Sha256> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some((begin, end)) = data_from(file, at)? {
        at = begin;
        while at < end {
            let length = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = &mut buffer[..length];
            file.read_exact_at(chunk, at)?;
            for page in chunk.chunks(PAGE) {
                if page.iter().any(|byte| *byte != 0) {
                    hasher.update(at.to_le_bytes());
                    hasher.update(page);
                    with(at, page)?;
                }
                at += page.len() as u64;
            }
        }
    }
    Ok(hasher.finish())
}

/// Where the next data is that is not a hole, from page to page (lseek(2),
/// `SEEK_DATA`).
fn data_from(file: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(begin) => Ok(Some((begin, seek(file, SeekFrom::Hole(begin))?))),
        // Holes up to the end.
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes a page.
pub(super) fn write(file: &File, at: u64, page: &[u8]) -> io::Result<()> {
    file.write_all_at(page, at)
}
