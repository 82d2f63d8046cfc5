//! A root file system's tar, as `docker export`, debootstrap and distributions
//! make it, read into a tree.

use std::cell::Cell;
use std::io::{self, Cursor, Read};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use tar::{Archive, Entry, EntryType, Header};

use super::sparse::{self, Sparse};
use super::zstd::{Frames, is_zstd};
use crate::text::{printable, printable_bytes, printable_error};
use crate::tree::Tree;
use crate::tree::error::{Problem, TreeError};
use crate::tree::node::{Attributes, Device, DeviceClass};

/// Most bytes of headers before one entry: names, links and extended attributes
/// of a real one stay far below, and the tar crate holds them in memory.
const MAX_HEADERS: u64 = 1 << 20;

/// Most bytes after the end of an archive: tar pads it to its record size.
const MAX_PADDING: u64 = 64 << 20;

/// Most memory that the xz decoder may take, in KiB; `xz -9` asks for 65 MiB.
const MAX_XZ_MEMORY: u32 = 192 << 10;

/// How the streams begin that are distinguished here.
const GZIP: &[u8] = b"\x1f\x8b";
const XZ: &[u8] = b"\xfd7zXZ\0";
const UNSUPPORTED: [(&[u8], &str); 4] = [
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    // Properties of LZMA's default, and a dictionary of whole pages.
    (b"\x5d\x00\x00", "lzma"),
    (b"PK\x03\x04", "zip"),
];

/// Why a root file system was not added to a tree.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A compression that is not read here.
    #[error("{archive} is a file of {format}: give a tar, plain or compressed by gzip, xz or zstd")]
    Compression {
        /// The archive.
        archive: String,
        /// What it is.
        format: &'static str,
    },
    /// The archive could not be read or makes no sense.
    #[error("cannot read the root file system {archive}, {place}: {source}")]
    Read {
        /// The archive.
        archive: String,
        /// How far it could be read.
        place: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The archive ends too early.
    #[error(
        "the root file system {archive} is incomplete: it stops {place} \
         without tar's end mark; get it again"
    )]
    Truncated {
        /// The archive.
        archive: String,
        /// How far it could be read.
        place: String,
    },
    /// One of its entries cannot be in an initramfs.
    #[error("the root file system {archive} cannot be used: {source}")]
    Entry {
        /// The archive.
        archive: String,
        /// Which, and why.
        source: TreeError,
    },
}

impl Tree {
    /// Adds all that the tar `input` holds, plain or compressed by gzip, xz or zstd;
    /// `archive` is its name, for messages.
    ///
    /// Modes, owners, links and devices are kept; times and extended attributes
    /// are not, since cpio has no room for them or the archive must not depend on
    /// them, nor is the mode of the root itself, which the kernel makes. Contents
    /// go through a temporary file and take no memory.
    pub fn add_rootfs_tar(&mut self, input: impl Read, archive: &str) -> Result<(), RootfsError> {
        let gauge = Rc::new(Gauge::default());
        let read_error = |last: &Option<Vec<u8>>, source| RootfsError::Read {
            archive: archive.to_owned(),
            place: place(last.as_deref()),
            source: printable_error(source),
        };
        let mut last = None;
        let input = decompress(input, archive)?;
        let mut tar = Archive::new(Metered {
            inner: input,
            gauge: Rc::clone(&gauge),
        });
        gauge.allow(MAX_HEADERS);
        for entry in tar.entries().map_err(|error| read_error(&last, error))? {
            let mut entry = entry.map_err(|error| read_error(&last, error))?;
            gauge.allow(u64::MAX);
            let path = entry.path_bytes().into_owned();
            add_entry(self, &mut entry).map_err(|source| RootfsError::Entry {
                archive: archive.to_owned(),
                source,
            })?;
            last = Some(path);
            io::copy(&mut entry, &mut io::sink()).map_err(|error| read_error(&last, error))?;
            gauge.allow(MAX_HEADERS);
        }
        if gauge.ended.get() {
            return Err(RootfsError::Truncated {
                archive: archive.to_owned(),
                place: place(last.as_deref()),
            });
        }
        // A damaged stream shows only when it is read to the end.
        gauge.allow(MAX_PADDING);
        io::copy(&mut tar.into_inner(), &mut io::sink())
            .map_err(|error| read_error(&last, error))?;
        Ok(())
    }
}

fn place(last: Option<&[u8]>) -> String {
    match last {
        Some(path) => format!("after `{}`", printable_bytes(path)),
        None => "at its start".to_owned(),
    }
}

fn decompress<'a>(
    mut input: impl Read + 'a,
    archive: &str,
) -> Result<Box<dyn Read + 'a>, RootfsError> {
    let mut start = Vec::new();
    input
        .by_ref()
        .take(XZ.len() as u64)
        .read_to_end(&mut start)
        .map_err(|source| RootfsError::Read {
            archive: archive.to_owned(),
            place: place(None),
            source,
        })?;
    let unsupported = UNSUPPORTED
        .iter()
        .find(|(magic, _)| start.starts_with(magic));
    if let Some((_, format)) = unsupported {
        return Err(RootfsError::Compression {
            archive: archive.to_owned(),
            format,
        });
    }
    let is_gzip = start.starts_with(GZIP);
    let is_xz = start.starts_with(XZ);
    let zstd = is_zstd(&start);
    let whole = Cursor::new(start).chain(input);
    Ok(if is_gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if is_xz {
        let buffered = io::BufReader::new(whole);
        Box::new(XzReader::new_mem_limit(buffered, true, MAX_XZ_MEMORY))
    } else if zstd {
        Box::new(Frames::new(io::BufReader::new(whole)))
    } else {
        Box::new(whole)
    })
}

fn add_entry(tree: &mut Tree, entry: &mut Entry<impl Read>) -> Result<(), TreeError> {
    let kind = entry.header().entry_type();
    if kind.is_pax_global_extensions() {
        return Ok(());
    }
    let mut pax = Pax::of(entry).map_err(|error| damaged(&entry.path_bytes(), &error))?;
    let path = pax.sparse.name.take().or(pax.path.take());
    let path = path.unwrap_or_else(|| entry.path_bytes().into_owned());
    let refuse = |kind: String| Err(TreeError::entry(&path, Problem::Unsupported { kind }));
    let attributes = attributes(entry.header(), &pax).map_err(|error| damaged(&path, &error))?;
    let target = || {
        let target = pax.link.as_deref().map(Into::into);
        let target = target.or_else(|| entry.link_name_bytes());
        target.ok_or_else(|| TreeError::entry(&path, Problem::NoTarget))
    };
    if pax.sparse.is_without_size() {
        let missing = io::Error::other("it is sparse, and its size with the holes is missing");
        return Err(damaged(&path, &missing));
    }
    if let Some(size) = pax.sparse.size {
        let sparse = Sparse::new(entry, pax.sparse, size);
        let content = sparse.map_err(|error| damaged(&path, &error))?;
        return tree.add_large_file(&path, attributes, size, content);
    }
    match kind {
        // Before POSIX, a slash at the end made a directory.
        EntryType::Regular if path.ends_with(b"/") => tree.add_directory(&path, attributes),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            tree.add_large_file(&path, attributes, entry.size(), entry)
        }
        EntryType::Directory => tree.add_directory(&path, attributes),
        EntryType::Symlink => tree.add_symlink(&path, attributes, &target()?),
        EntryType::Link => tree.add_hard_link(&path, &target()?),
        EntryType::Char | EntryType::Block => {
            let class = match kind {
                EntryType::Char => DeviceClass::Character,
                _ => DeviceClass::Block,
            };
            let device = device(entry.header(), class).map_err(|error| damaged(&path, &error))?;
            tree.add_device(&path, attributes, device)
        }
        EntryType::Fifo => refuse("a named pipe".to_owned()),
        other => refuse(format!(
            "of tar's type `{}`",
            printable_bytes(&[other.as_byte()])
        )),
    }
}

fn attributes(header: &Header, pax: &Pax) -> io::Result<Attributes> {
    let id = |id: u64| {
        u32::try_from(id).map_err(|_| io::Error::other(format!("no user or group has number {id}")))
    };
    Ok(Attributes {
        mode: (header.mode()? & 0o7777) as u16,
        uid: id(pax.uid.map_or_else(|| header.uid(), Ok)?)?,
        gid: id(pax.gid.map_or_else(|| header.gid(), Ok)?)?,
    })
}

fn device(header: &Header, class: DeviceClass) -> io::Result<Device> {
    let missing = || io::Error::other("it has no device number");
    Ok(Device {
        class,
        major: header.device_major()?.ok_or_else(missing)?,
        minor: header.device_minor()?.ok_or_else(missing)?,
    })
}

fn damaged(path: &[u8], error: &io::Error) -> TreeError {
    let reason = printable(&error.to_string());
    TreeError::entry(path, Problem::Header { reason })
}

/// What an entry's pax records say.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    sparse: sparse::Records,
}

impl Pax {
    /// Reads all records, also those that stand behind an extended attribute
    /// with line feeds in it, such as a signature: the tar crate splits at line
    /// feeds, and ends at an empty line.
    fn of(entry: &mut Entry<impl Read>) -> io::Result<Self> {
        const MAX_EMPTY_LINES: u32 = 64;

        let mut pax = Self::default();
        let Some(mut records) = entry.pax_extensions()? else {
            return Ok(pax);
        };
        let mut empty_lines = 0;
        while empty_lines < MAX_EMPTY_LINES {
            let Some(record) = records.next() else {
                empty_lines += 1;
                continue;
            };
            empty_lines = 0;
            // A piece of an attribute, which is not kept anyway.
            let Ok(record) = record else { continue };
            let number = || record.value().ok().and_then(|value| value.parse().ok());
            match record.key_bytes() {
                b"path" => pax.path = Some(record.value_bytes().to_vec()),
                b"linkpath" => pax.link = Some(record.value_bytes().to_vec()),
                b"uid" => pax.uid = number(),
                b"gid" => pax.gid = number(),
                key => {
                    if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                        pax.sparse.take(key, record.value_bytes())?;
                    }
                }
            }
        }
        Ok(pax)
    }
}

/// How much a [`Metered`] reader may still hand out, and whether its input ended.
#[derive(Default)]
struct Gauge {
    left: Cell<u64>,
    ended: Cell<bool>,
}

impl Gauge {
    fn allow(&self, bytes: u64) {
        self.left.set(bytes);
    }
}

/// Hands out no more than its gauge allows: the tar crate takes the length of an
/// extension from its header and holds all of it.
struct Metered<R> {
    inner: R,
    gauge: Rc<Gauge>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.gauge.left.get();
        if left == 0 {
            return Err(io::Error::other(
                "there is no end to its headers or padding",
            ));
        }
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let found = self.inner.read(&mut buffer[..wanted])?;
        self.gauge.left.set(left - found as u64);
        if found == 0 && wanted > 0 {
            self.gauge.ended.set(true);
        }
        Ok(found)
    }
}
