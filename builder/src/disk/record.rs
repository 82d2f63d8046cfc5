//! ext4's records on disk, as bytes: inodes, extents, directory entries and
//! the checksum of a group (kernel document `filesystems/ext4`).

use crate::tree::node::{Attributes, Device, DeviceClass};

pub(crate) const BLOCK: usize = 4096;
pub(crate) const INODE: usize = 256;
/// Blocks of a group, and the most of an extent.
pub(crate) const GROUP: u32 = 32768;
/// Most bytes of a target that is kept in the inode itself.
pub(crate) const FAST_SYMLINK_MAX: usize = 59;
/// Most links of an inode: `EXT4_LINK_MAX` of Linux's `fs/ext4/ext4.h`.
pub(crate) const LINKS_MAX: u32 = 65000;

/// Bytes of `i_block`, and the extents that fit there and in a block.
const I_BLOCK: usize = 60;
pub(crate) const INLINE_EXTENTS: usize = 4;
pub(crate) const BLOCK_EXTENTS: usize = (BLOCK - EXTENT) / EXTENT;
/// Bytes of an extent, an index entry, and the header before them.
const EXTENT: usize = 12;

const EXTENTS_FLAG: u32 = 0x8_0000;
/// Bytes of an inode that are used beyond the first 128.
const EXTRA_ISIZE: u16 = 32;

/// The types of a file, in a directory's entry and in an inode's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileType {
    Regular = 1,
    Directory = 2,
    Character = 3,
    Block = 4,
    Symlink = 7,
}

impl FileType {
    const fn mode(self) -> u16 {
        match self {
            Self::Regular => 0x8000,
            Self::Directory => 0x4000,
            Self::Character => 0x2000,
            Self::Block => 0x6000,
            Self::Symlink => 0xa000,
        }
    }
}

/// Blocks of a file that lie one behind the other on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first block within the file.
    pub(crate) logical: u32,
    pub(crate) length: u32,
    /// The first block on the disk.
    pub(crate) start: u32,
}

/// What an inode holds in `i_block`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Data {
    bytes: [u8; I_BLOCK],
    flags: u32,
    blocks: u32,
}

impl Data {
    /// Extents that fit in the inode; `blocks` on the disk.
    pub(crate) fn extents(extents: &[Extent], blocks: u32) -> Self {
        let mut bytes = [0; I_BLOCK];
        put_extents(&mut bytes, INLINE_EXTENTS, extents);
        Self {
            bytes,
            flags: EXTENTS_FLAG,
            blocks,
        }
    }

    /// Extents that lie in the block `leaf`; `blocks` on the disk besides.
    pub(crate) fn leaf(leaf: u32, blocks: u32) -> Self {
        let mut bytes = [0; I_BLOCK];
        put_header(&mut bytes, 1, INLINE_EXTENTS, 1);
        put32(&mut bytes, EXTENT + 4, leaf);
        Self {
            bytes,
            flags: EXTENTS_FLAG,
            blocks: blocks + 1,
        }
    }

    /// A target of at most [`FAST_SYMLINK_MAX`] bytes.
    pub(crate) fn symlink(target: &[u8]) -> Self {
        let mut bytes = [0; I_BLOCK];
        bytes[..target.len()].copy_from_slice(target);
        Self {
            bytes,
            flags: 0,
            blocks: 0,
        }
    }

    /// A device's number, in the old form where it fits, as Linux writes it.
    pub(crate) fn device(device: Device) -> Self {
        let Device { major, minor, .. } = device;
        let mut bytes = [0; I_BLOCK];
        if major < 256 && minor < 256 {
            put32(&mut bytes, 0, major << 8 | minor);
        } else {
            put32(
                &mut bytes,
                4,
                minor & 0xff | major << 8 | (minor & !0xff) << 12,
            );
        }
        Self {
            bytes,
            flags: 0,
            blocks: 0,
        }
    }
}

/// A block full of extents.
pub(crate) fn leaf(extents: &[Extent]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    put_extents(&mut block, BLOCK_EXTENTS, extents);
    block
}

fn put_extents(bytes: &mut [u8], max: usize, extents: &[Extent]) {
    put_header(bytes, extents.len(), max, 0);
    for (extent, place) in extents.iter().zip((EXTENT..).step_by(EXTENT)) {
        put32(bytes, place, extent.logical);
        put16(bytes, place + 4, low16(extent.length));
        put32(bytes, place + 8, extent.start);
    }
}

fn put_header(bytes: &mut [u8], entries: usize, max: usize, depth: u16) {
    const MAGIC: u16 = 0xf30a;
    let count = |count| u16::try_from(count).expect("a block holds some hundred extents");
    put16(bytes, 0, MAGIC);
    put16(bytes, 2, count(entries));
    put16(bytes, 4, count(max));
    put16(bytes, 6, depth);
}

pub(crate) struct Inode {
    pub(crate) kind: FileType,
    pub(crate) attributes: Attributes,
    pub(crate) size: u64,
    pub(crate) links: u32,
    pub(crate) data: Data,
    /// All its times, in seconds since 1970.
    pub(crate) time: u32,
}

impl Inode {
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub(crate) fn bytes(&self) -> [u8; INODE] {
        const SECTORS: u32 = 8;
        const TIMES: [usize; 4] = [0x08, 0x0c, 0x10, 0x90];

        let mut bytes = [0; INODE];
        let Attributes { mode, uid, gid } = self.attributes;
        put16(&mut bytes, 0, self.kind.mode() | mode);
        put16(&mut bytes, 0x02, low16(uid));
        put16(&mut bytes, 0x18, low16(gid));
        put16(&mut bytes, 0x78, low16(uid >> 16));
        put16(&mut bytes, 0x7a, low16(gid >> 16));
        let size = self.size.to_le_bytes();
        bytes[0x04..0x08].copy_from_slice(&size[..4]);
        bytes[0x6c..0x70].copy_from_slice(&size[4..]);
        for place in TIMES {
            put32(&mut bytes, place, self.time);
        }
        put16(&mut bytes, 0x1a, low16(self.links));
        put32(&mut bytes, 0x1c, self.data.blocks * SECTORS);
        put32(&mut bytes, 0x20, self.data.flags);
        bytes[0x28..0x28 + I_BLOCK].copy_from_slice(&self.data.bytes);
        put16(&mut bytes, 0x80, EXTRA_ISIZE);
        bytes
    }
}

/// A directory in the making: blocks of entries, in the order they are added.
#[derive(Default)]
pub(crate) struct Directory {
    bytes: Vec<u8>,
    /// Where the last entry of the last block begins.
    last: usize,
}

impl Directory {
    pub(crate) fn add(&mut self, name: &[u8], inode: u32, kind: FileType) {
        let length = entry_length(name);
        let room = self.bytes.len().next_multiple_of(BLOCK) - self.bytes.len();
        if length > room {
            self.end_block();
        }
        self.last = self.bytes.len();
        self.bytes.resize(self.last + length, 0);
        let entry = &mut self.bytes[self.last..];
        put32(entry, 0, inode);
        put16(
            entry,
            4,
            u16::try_from(length).expect("a name has 255 bytes at most"),
        );
        entry[6] = u8::try_from(name.len()).expect("a name has 255 bytes at most");
        entry[7] = kind as u8;
        entry[8..8 + name.len()].copy_from_slice(name);
    }

    /// Gives the room that is left in the last block to its last entry.
    fn end_block(&mut self) {
        let end = self.bytes.len().next_multiple_of(BLOCK);
        if end > self.bytes.len() {
            let length = u16::try_from(end - self.last).expect("a block has 4096 bytes");
            put16(&mut self.bytes, self.last + 4, length);
            self.bytes.resize(end, 0);
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.end_block();
        self.bytes
    }
}

const fn entry_length(name: &[u8]) -> usize {
    (8 + name.len()).next_multiple_of(4)
}

/// The type of a device's class.
pub(crate) const fn device_type(device: Device) -> FileType {
    match device.class {
        DeviceClass::Block => FileType::Block,
        DeviceClass::Character => FileType::Character,
    }
}

/// The checksum of a group's descriptor, of which `bytes` are those before it
/// (kernel document `filesystems/ext4/checksums`).
pub(crate) fn group_checksum(uuid: &[u8], group: u32, bytes: &[u8]) -> u16 {
    const POLYNOMIAL: u16 = 0xa001;
    let mut crc = u16::MAX;
    for byte in uuid.iter().chain(&group.to_le_bytes()).chain(bytes) {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 0 {
                crc >> 1
            } else {
                crc >> 1 ^ POLYNOMIAL
            };
        }
    }
    crc
}

pub(crate) fn put16(bytes: &mut [u8], place: usize, value: u16) {
    bytes[place..place + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put32(bytes: &mut [u8], place: usize, value: u32) {
    bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn get16(bytes: &[u8], place: usize) -> u16 {
    u16::from_le_bytes([bytes[place], bytes[place + 1]])
}

pub(crate) fn get32(bytes: &[u8], place: usize) -> u32 {
    u32::from(get16(bytes, place)) | u32::from(get16(bytes, place + 2)) << 16
}

const fn low16(value: u32) -> u16 {
    (value & 0xffff) as u16
}
