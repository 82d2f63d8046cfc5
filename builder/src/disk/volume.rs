//! The ext4 file system that mke2fs just made, opened to put files into it: which
//! blocks and inodes are in use, and where inodes lie.
//!
//! The file system holds only the root and `lost+found`. Their blocks are freed,
//! and their directories are written again. Inodes are given out in order and never
//! freed, so all inodes in use are below the next one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::record::{BLOCK, GROUP, INODE, Inode, get16, get32, group_checksum, put16, put32};

pub(crate) const ROOT: u32 = 2;
/// The inode of `lost+found`, and the first that is not ext4's own.
pub(crate) const LOST_FOUND: u32 = 11;

const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
/// Bytes of a group's descriptor, without the feature `64bit`.
const DESCRIPTOR: usize = 32;
/// Where the checksum stands in it.
const CHECKSUM: usize = 0x1e;
const FLAGS: usize = 0x12;
const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;

/// An ext4 file system in a file.
pub(crate) struct Volume<'a> {
    raw: &'a File,
    superblock: Vec<u8>,
    inodes_per_group: u32,
    groups: Vec<Group>,
    /// Every free block lies here or behind.
    cursor: u32,
}

/// What a block is for.
#[derive(Clone, Copy)]
enum Use {
    Free,
    Taken,
}

struct Group {
    descriptor: Vec<u8>,
    /// How many blocks it has: the last group may be shorter.
    blocks: u32,
    /// Which of its blocks are taken, once that matters.
    bitmap: Option<Vec<u8>>,
    directories: u16,
}

impl<'a> Volume<'a> {
    pub(crate) fn open(raw: &'a File) -> io::Result<Self> {
        let mut superblock = vec![0; SUPERBLOCK_BYTES];
        raw.read_exact_at(&mut superblock, SUPERBLOCK)?;
        let blocks = get32(&superblock, 0x04);
        expect(get16(&superblock, 0x38) == 0xef53, "the magic number")?;
        expect(get32(&superblock, 0x14) == 0, "the first block")?;
        expect(get32(&superblock, 0x18) == 2, "the block size")?;
        expect(get32(&superblock, 0x20) == GROUP, "the group size")?;
        expect(
            usize::from(get16(&superblock, 0x58)) == INODE,
            "the inode size",
        )?;
        let mut groups = Vec::new();
        for first in (0..blocks).step_by(GROUP as usize) {
            let mut descriptor = vec![0; DESCRIPTOR];
            let place = BLOCK + groups.len() * DESCRIPTOR;
            raw.read_exact_at(&mut descriptor, place as u64)?;
            groups.push(Group {
                descriptor,
                blocks: (blocks - first).min(GROUP),
                bitmap: None,
                directories: 0,
            });
        }
        let mut volume = Self {
            raw,
            inodes_per_group: get32(&superblock, 0x28),
            superblock,
            groups,
            cursor: 0,
        };
        volume.give_free(ROOT)?;
        volume.give_free(LOST_FOUND)?;
        Ok(volume)
    }

    /// How many inodes it has.
    pub(crate) fn inodes(&self) -> u32 {
        get32(&self.superblock, 0)
    }

    /// How many blocks are free.
    pub(crate) fn free_blocks(&self) -> u32 {
        get32(&self.superblock, 0x0c)
    }

    /// Takes up to `wanted` free blocks that lie one behind the other: the first
    /// one, and how many. `None` on a full disk.
    pub(crate) fn take(&mut self, wanted: u32) -> io::Result<Option<(u32, u32)>> {
        loop {
            let index = (self.cursor / GROUP) as usize;
            let Some(group) = self.groups.get(index) else {
                return Ok(None);
            };
            let blocks = group.blocks;
            let offset = self.cursor % GROUP;
            let base = self.cursor - offset;
            let bitmap = self.bitmap(index)?;
            let is_free = |block: &u32| bitmap[*block as usize / 8] >> (block % 8) & 1 == 0;
            let Some(first) = (offset..blocks).find(is_free) else {
                self.cursor = base.saturating_add(GROUP);
                continue;
            };
            let limit = blocks.min(first.saturating_add(wanted));
            let end = (first..limit).find(|block| !is_free(block));
            let end = end.unwrap_or(limit);
            for block in first..end {
                self.mark(index, block, Use::Taken)?;
            }
            self.cursor = base + end;
            return Ok(Some((base + first, end - first)));
        }
    }

    /// Writes to blocks that were taken, from `start` on.
    pub(crate) fn write(&self, start: u32, bytes: &[u8]) -> io::Result<()> {
        self.raw.write_all_at(bytes, offset(start))
    }

    pub(crate) fn write_inode(&mut self, number: u32, inode: &Inode) -> io::Result<()> {
        let place = self.inode_place(number);
        self.raw.write_all_at(&inode.bytes(), place)?;
        if inode.is_directory() {
            let group = self.group_of(number);
            self.groups[group].directories += 1;
        }
        Ok(())
    }

    /// Writes what is taken; `inodes` are, from the first on.
    pub(crate) fn finish(mut self, inodes: u32) -> io::Result<()> {
        for number in (0..).take(self.groups.len()) {
            self.finish_group(number, inodes)?;
        }
        let free = self.inodes() - inodes;
        put32(&mut self.superblock, 0x10, free);
        self.raw.write_all_at(&self.superblock, SUPERBLOCK)
    }

    fn finish_group(&mut self, number: u32, inodes: u32) -> io::Result<()> {
        let index = number as usize;
        let per_group = self.inodes_per_group;
        let used = inodes.saturating_sub(number * per_group).min(per_group);
        let group = &mut self.groups[index];
        let mut flags = get16(&group.descriptor, FLAGS);
        if let Some(bitmap) = &group.bitmap {
            flags &= !BLOCK_UNINIT;
            let block = get32(&group.descriptor, 0);
            self.raw.write_all_at(bitmap, offset(block))?;
        }
        if used > 0 {
            flags &= !INODE_UNINIT;
            let mut bitmap = vec![0; BLOCK];
            for inode in (0..used).chain(per_group..GROUP) {
                bitmap[inode as usize / 8] |= 1 << (inode % 8);
            }
            let block = get32(&group.descriptor, 4);
            self.raw.write_all_at(&bitmap, offset(block))?;
            let free = u16::try_from(per_group - used).map_err(io::Error::other)?;
            put16(&mut group.descriptor, 0x0e, free);
            put16(&mut group.descriptor, 0x1c, free);
        }
        put16(&mut group.descriptor, 0x10, group.directories);
        put16(&mut group.descriptor, FLAGS, flags);
        let uuid = &self.superblock[0x68..0x78];
        let checksum = group_checksum(uuid, number, &group.descriptor[..CHECKSUM]);
        put16(&mut group.descriptor, CHECKSUM, checksum);
        let place = BLOCK + index * DESCRIPTOR;
        self.raw.write_all_at(&group.descriptor, place as u64)
    }

    /// Gives free the blocks of an inode that mke2fs made: one extent of them.
    fn give_free(&mut self, number: u32) -> io::Result<()> {
        let mut inode = [0; INODE];
        self.raw
            .read_exact_at(&mut inode, self.inode_place(number))?;
        let extents = &inode[0x28..];
        expect(
            get16(extents, 0) == 0xf30a && get16(extents, 2) == 1 && get16(extents, 6) == 0,
            "a directory's extent",
        )?;
        let start = get32(extents, 20);
        for block in start..start + u32::from(get16(extents, 16)) {
            let index = (block / GROUP) as usize;
            expect(index < self.groups.len(), "a directory's block")?;
            self.mark(index, block % GROUP, Use::Free)?;
            self.write(block, &[0; BLOCK])?;
        }
        Ok(())
    }

    fn mark(&mut self, index: usize, block: u32, now: Use) -> io::Result<()> {
        let bit = 1 << (block % 8);
        let byte = &mut self.bitmap(index)?[block as usize / 8];
        let more_free = match now {
            Use::Taken => {
                *byte |= bit;
                -1
            }
            Use::Free => {
                *byte &= !bit;
                1
            }
        };
        let descriptor = &mut self.groups[index].descriptor;
        let free = get16(descriptor, 0x0c).wrapping_add_signed(more_free);
        put16(descriptor, 0x0c, free);
        let free = self.free_blocks().wrapping_add_signed(more_free.into());
        put32(&mut self.superblock, 0x0c, free);
        Ok(())
    }

    /// Which blocks of a group are taken. A group whose bitmap mke2fs left out
    /// is free: it packs what ext4 itself needs into the first groups.
    fn bitmap(&mut self, index: usize) -> io::Result<&mut Vec<u8>> {
        let group = &mut self.groups[index];
        if group.bitmap.is_none() {
            let mut bitmap = vec![0; BLOCK];
            if get16(&group.descriptor, FLAGS) & BLOCK_UNINIT == 0 {
                let block = get32(&group.descriptor, 0);
                self.raw.read_exact_at(&mut bitmap, offset(block))?;
            } else {
                let free = u32::from(get16(&group.descriptor, 0x0c));
                expect(free == group.blocks, "a free group")?;
                for block in group.blocks..GROUP {
                    bitmap[block as usize / 8] |= 1 << (block % 8);
                }
            }
            group.bitmap = Some(bitmap);
        }
        Ok(group.bitmap.as_mut().expect("it was just put there"))
    }

    fn group_of(&self, inode: u32) -> usize {
        ((inode - 1) / self.inodes_per_group) as usize
    }

    fn inode_place(&self, number: u32) -> u64 {
        let table = get32(&self.groups[self.group_of(number)].descriptor, 8);
        offset(table) + u64::from((number - 1) % self.inodes_per_group) * INODE as u64
    }
}

fn offset(block: u32) -> u64 {
    u64::from(block) * BLOCK as u64
}

/// This module knows the file systems that our own mke2fs call makes, and no
/// others.
fn expect(holds: bool, what: &str) -> io::Result<()> {
    if holds {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "mke2fs laid it out in an unknown way: {what}"
        )))
    }
}
