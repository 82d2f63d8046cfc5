//! A tree as a compressed cpio archive.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};
use flate2::{Compression, GzBuilder};

use crate::text::printable_bytes;
use crate::tree::node::{DeviceClass, Kind};
use crate::tree::{NodeId, Tree};

/// "Unknown", in the gzip header's field for the operating system: the archive
/// is the same wherever it is made.
const GZIP_OS: u8 = 255;

/// Why a tree was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// An entry could not be written, or its content not be read back.
    #[error("cannot pack `{path}` into the initramfs: {source}")]
    Entry {
        /// Its path in the guest.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The end of the archive could not be written.
    #[error("cannot write the end of the initramfs: {0}")]
    End(#[source] io::Error),
}

/// What an archive came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// How many entries it has.
    pub entries: u64,
    /// The size of the cpio archive in bytes.
    pub unpacked: u64,
    /// The size of the compressed archive in bytes.
    pub packed: u64,
}

/// Writes `tree` to `out`, every entry as of `epoch`, in seconds since 1970.
pub fn pack(tree: &Tree, epoch: u32, out: impl Write) -> Result<Stats, PackError> {
    let gzip = GzBuilder::new().operating_system(GZIP_OS);
    let mut archive = Counter::new(gzip.write(Counter::new(out), Compression::best()));
    let mut links = Links::of(tree);
    let mut entries = 0;
    for (path, id, node) in tree.entries() {
        let link = links.next(id);
        // The cpio crate takes names that are text. It gets one as long, and
        // [`Named`] puts the bytes in its place.
        let mut header = NewcBuilder::new(&"x".repeat(path.len()))
            .ino(link.inode)
            .nlink(link.total)
            .mode(node.attributes.mode.into())
            .set_mode_file_type(file_type(&node.kind))
            .uid(node.attributes.uid)
            .gid(node.attributes.gid)
            .mtime(epoch);
        if let Kind::Device(device) = node.kind {
            header = header.rdev_major(device.major).rdev_minor(device.minor);
        }
        let body = match &node.kind {
            // The last link has the content, as GNU cpio writes it.
            Kind::File(content) if link.is_last => Body {
                size: content.size(),
                bytes: tree.open(content),
            },
            Kind::Symlink(target) => Body::symlink(target),
            Kind::Directory | Kind::File(_) | Kind::Device(_) => Body::empty(),
        };
        let named = Named {
            inner: &mut archive,
            name: path,
            at: 0,
        };
        write_entry(named, header, body).map_err(|source| PackError::Entry {
            path: printable_bytes(path),
            source,
        })?;
        entries += 1;
    }
    trailer(&mut archive).map_err(PackError::End)?;
    let unpacked = archive.count;
    let mut packed = archive.inner.finish().map_err(PackError::End)?;
    packed.inner.flush().map_err(PackError::End)?;
    Ok(Stats {
        entries,
        unpacked,
        packed: packed.count,
    })
}

fn file_type(kind: &Kind) -> ModeFileType {
    match kind {
        Kind::Directory => ModeFileType::Directory,
        Kind::File(_) => ModeFileType::Regular,
        Kind::Symlink(_) => ModeFileType::Symlink,
        Kind::Device(device) => match device.class {
            DeviceClass::Block => ModeFileType::Block,
            DeviceClass::Character => ModeFileType::Char,
        },
    }
}

/// What follows an entry's header.
struct Body<'a> {
    size: u32,
    bytes: Box<dyn Read + 'a>,
}

impl<'a> Body<'a> {
    fn empty() -> Self {
        Self {
            size: 0,
            bytes: Box::new(io::empty()),
        }
    }

    fn symlink(target: &'a [u8]) -> Self {
        Self {
            size: u32::try_from(target.len()).expect("a tree holds no target above 4,095 bytes"),
            bytes: Box::new(target),
        }
    }
}

/// Writes one entry whole, or fails: on its own the cpio crate takes a body that
/// is too short without complaint, and everything after it is then misread.
fn write_entry(out: impl Write, header: NewcBuilder, body: Body<'_>) -> io::Result<()> {
    let mut writer = header.write(out, body.size);
    let written = io::copy(&mut body.bytes.take(body.size.into()), &mut writer)?;
    if written != u64::from(body.size) {
        let reason = format!("its content ended after {written} of {} bytes", body.size);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
    }
    writer.finish()?;
    Ok(())
}

/// Length of an entry's header, behind which its name stands.
const HEADER: usize = 110;

/// Writes an entry with `name` in the place of the one that it has.
struct Named<'a, W> {
    inner: W,
    name: &'a [u8],
    /// How many bytes of the entry were written.
    at: usize,
}

impl<W: Write> Write for Named<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let end = HEADER + self.name.len();
        let written = if self.at < HEADER {
            let header = buffer.len().min(HEADER - self.at);
            self.inner.write(&buffer[..header])?
        } else if self.at < end {
            let name = &self.name[self.at - HEADER..];
            self.inner.write(&name[..name.len().min(buffer.len())])?
        } else {
            self.inner.write(buffer)?
        };
        self.at += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The hard links of a tree on their way into an archive.
struct Links {
    nodes: HashMap<NodeId, Link>,
    inodes: u32,
}

#[derive(Default)]
struct Link {
    total: u32,
    seen: u32,
    inode: u32,
}

/// One link of a node: its inode number, how many there are, and whether it is
/// the last of them.
struct NextLink {
    inode: u32,
    total: u32,
    is_last: bool,
}

impl Links {
    fn of(tree: &Tree) -> Self {
        let mut nodes = HashMap::<_, Link>::new();
        for (_, id, _) in tree.entries() {
            nodes.entry(id).or_default().total += 1;
        }
        Self { nodes, inodes: 0 }
    }

    /// Inodes are numbered as they come, from 1, so that the numbers depend only
    /// on the paths.
    fn next(&mut self, id: NodeId) -> NextLink {
        let link = self.nodes.entry(id).or_default();
        if link.seen == 0 {
            self.inodes += 1;
            link.inode = self.inodes;
        }
        link.seen += 1;
        NextLink {
            inode: link.inode,
            total: link.total,
            is_last: link.seen == link.total,
        }
    }
}

/// Counts what passes through, and keeps flushes back: the cpio crate flushes
/// after each entry, and a compressor that does so compresses badly.
struct Counter<W> {
    inner: W,
    count: u64,
}

impl<W> Counter<W> {
    fn new(inner: W) -> Self {
        Self { inner, count: 0 }
    }
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_too_short_fails() {
        let body = Body {
            size: 5,
            bytes: Box::new(&b"four"[..]),
        };
        let mut out = Vec::new();
        let error = write_entry(&mut out, NewcBuilder::new("x"), body).unwrap_err();
        assert_eq!(error.to_string(), "its content ended after 4 of 5 bytes");
    }

    #[test]
    fn a_body_that_is_too_long_is_cut_where_its_header_says() {
        let body = Body {
            size: 5,
            bytes: Box::new(&b"sixsix"[..]),
        };
        let mut out = Vec::new();
        write_entry(&mut out, NewcBuilder::new("x"), body).unwrap();
        assert!(out.ends_with(b"sixsi\0\0\0"));
    }
}
