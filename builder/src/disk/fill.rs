//! Puts a root file system into the empty ext4 file system of [`super::ext4`], with
//! the owners, modes, links and devices of the tree. Any user can run it, and it
//! writes the same bytes every time.
//!
//! mke2fs itself fills a file system only from a folder. Only root can make a
//! folder with files of other owners and devices, and the order and times of such a
//! folder would show in the image.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};

use super::ext4::Ext4;
use super::record::{
    BLOCK, BLOCK_EXTENTS, Data, Directory, Extent, FAST_SYMLINK_MAX, FileType, GROUP,
    INLINE_EXTENTS, Inode, LINKS_MAX, device_type, leaf,
};
use super::volume::{LOST_FOUND, ROOT, Volume};
use crate::interrupt::Interrupt;
use crate::text::printable_bytes;
use crate::tree::node::{Attributes, Kind, Node};
use crate::tree::{NodeId, Tree};
use crate::units::ByteSize;

/// What ext4 calls the folder that e2fsck(8) puts files without a name into.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// Blocks of content that are carried at a time.
const CHUNK: u32 = 256;

/// Why a root file system is not on a disk.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The disk is too small.
    #[error(
        "the root file system takes {needed}, and a disk of {size} has room for {room}: \
         make it larger with --disk-size, or disk.size in the recipe"
    )]
    TooSmall {
        needed: ByteSize,
        size: ByteSize,
        room: ByteSize,
    },
    /// Too many files for the disk's inodes.
    #[error(
        "the root file system has {files} files and folders, and a disk of {size} holds {room}: \
         make it larger with --disk-size, or disk.size in the recipe"
    )]
    TooManyFiles {
        files: u32,
        size: ByteSize,
        room: u32,
    },
    /// Too many hard links of one file.
    #[error("`{path}` is a file with too many hard links: ext4 allows {LINKS_MAX}")]
    TooManyLinks { path: String },
    /// A name that the file system itself needs.
    #[error(
        "`lost+found` is not a folder, and ext4 needs one of that name: leave it out of the tar"
    )]
    LostFound,
    /// A file's content could not be read back, or the disk not be written.
    #[error("cannot put `{path}` on the disk: {source}")]
    File {
        /// Its path in the guest.
        path: String,
        source: io::Error,
    },
    /// The file system around it could not be read or written.
    #[error("cannot fill the ext4 file system: {0}")]
    Volume(#[source] io::Error),
    /// The user asked to stop.
    #[error("interrupted while the root file system was put on the disk")]
    Interrupted,
}

/// Puts `tree` into the file system that `raw` holds and that was made from
/// `ext4`.
pub(crate) fn fill(
    raw: &File,
    ext4: &Ext4,
    tree: &Tree,
    interrupt: &Interrupt,
) -> Result<(), FillError> {
    let mut volume = Volume::open(raw).map_err(FillError::Volume)?;
    let plan = Plan::of(tree)?;
    plan.check_room(ext4.size, &volume)?;
    for (number, folder) in &plan.folders {
        let bytes = folder.bytes(*number);
        let size = bytes.len() as u64;
        let inode = |data| Inode {
            kind: FileType::Directory,
            attributes: folder.attributes,
            size,
            // More than fit are counted as 1 (`dir_nlink`).
            links: if folder.links < LINKS_MAX {
                folder.links
            } else {
                1
            },
            data,
            time: ext4.epoch,
        };
        put(&mut volume, &mut &*bytes, size)
            .and_then(|data| volume.write_inode(*number, &inode(data)))
            .map_err(FillError::Volume)?;
    }
    for (number, file) in &plan.files {
        if interrupt.requested() {
            return Err(FillError::Interrupted);
        }
        put_file(&mut volume, tree, *number, file, ext4.epoch).map_err(|source| {
            FillError::File {
                path: printable_bytes(file.path),
                source,
            }
        })?;
    }
    volume.finish(plan.last).map_err(FillError::Volume)
}

/// Every node and its inode's number, in the order of paths.
struct Plan<'a> {
    folders: BTreeMap<u32, Folder<'a>>,
    files: BTreeMap<u32, Leaf<'a>>,
    /// The last number that is given out.
    last: u32,
}

struct Folder<'a> {
    attributes: Attributes,
    parent: u32,
    links: u32,
    entries: Vec<(&'a [u8], u32, FileType)>,
}

struct Leaf<'a> {
    /// The first of its paths.
    path: &'a [u8],
    node: &'a Node,
    links: u32,
}

impl<'a> Plan<'a> {
    fn of(tree: &'a Tree) -> Result<Self, FillError> {
        let mut plan = Self {
            folders: BTreeMap::new(),
            files: BTreeMap::new(),
            last: LOST_FOUND,
        };
        let mut paths = HashMap::from([(&b""[..], ROOT)]);
        let mut nodes = HashMap::<NodeId, u32>::new();
        plan.add_folder(ROOT, ROOT, Attributes::root(0o755));
        let lost_found = tree.entries().find(|(path, ..)| *path == LOST_AND_FOUND);
        match lost_found.map(|(.., node)| &node.kind) {
            None => plan.link(ROOT, LOST_AND_FOUND, LOST_FOUND, FileType::Directory),
            Some(Kind::Directory) => {}
            Some(_) => return Err(FillError::LostFound),
        }
        plan.add_folder(LOST_FOUND, ROOT, Attributes::root(0o700));
        for (path, id, node) in tree.entries() {
            let slash = path.iter().rposition(|byte| *byte == b'/');
            let (parent, name) =
                slash.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
            let parent = paths[parent];
            let kind = file_type(&node.kind);
            let number = match (nodes.get(&id), path) {
                (_, LOST_AND_FOUND) => LOST_FOUND,
                (Some(number), _) => *number,
                (None, _) => {
                    plan.last += 1;
                    plan.last
                }
            };
            plan.link(parent, name, number, kind);
            if kind == FileType::Directory {
                paths.insert(path, number);
                plan.add_folder(number, parent, node.attributes);
                continue;
            }
            nodes.insert(id, number);
            let links = 0;
            let file = plan
                .files
                .entry(number)
                .or_insert(Leaf { path, node, links });
            file.links += 1;
            if file.links > LINKS_MAX {
                return Err(FillError::TooManyLinks {
                    path: printable_bytes(path),
                });
            }
        }
        Ok(plan)
    }

    fn add_folder(&mut self, number: u32, parent: u32, attributes: Attributes) {
        let folder = Folder {
            attributes,
            parent,
            links: 2,
            entries: Vec::new(),
        };
        self.folders.insert(number, folder);
    }

    /// Adds an entry to a directory.
    fn link(&mut self, parent: u32, name: &'a [u8], number: u32, kind: FileType) {
        let folder = self.folders.get_mut(&parent);
        let folder = folder.expect("a tree has the parents of all it holds");
        folder.entries.push((name, number, kind));
        if kind == FileType::Directory {
            folder.links += 1;
        }
    }

    /// Checks that the disk has inodes and blocks for everything.
    fn check_room(&self, size: ByteSize, volume: &Volume<'_>) -> Result<(), FillError> {
        if self.last > volume.inodes() {
            return Err(FillError::TooManyFiles {
                files: self.last,
                size,
                room: volume.inodes(),
            });
        }
        let folders = self.folders.iter();
        let folders = folders.map(|(number, folder)| blocks_of(folder.bytes(*number).len() as u64));
        let files = self.files.values().map(|file| match &file.node.kind {
            Kind::File(content) => blocks_of(content.size().into()),
            Kind::Symlink(target) if target.len() > FAST_SYMLINK_MAX => 1,
            Kind::Symlink(_) | Kind::Device(_) | Kind::Directory => 0,
        });
        let needed = folders.chain(files).sum();
        let room = u64::from(volume.free_blocks());
        if needed > room {
            let bytes = |blocks: u64| ByteSize::new(blocks.max(1) * BLOCK as u64);
            return Err(FillError::TooSmall {
                needed: bytes(needed).expect("it is not zero"),
                size,
                room: bytes(room).expect("it is not zero"),
            });
        }
        Ok(())
    }
}

impl Folder<'_> {
    /// Its blocks, as the inode `number`.
    fn bytes(&self, number: u32) -> Vec<u8> {
        let mut directory = Directory::default();
        directory.add(b".", number, FileType::Directory);
        directory.add(b"..", self.parent, FileType::Directory);
        for (name, number, kind) in &self.entries {
            directory.add(name, *number, *kind);
        }
        directory.finish()
    }
}

/// Blocks for so many bytes, and for the extents of a file that a few of the
/// disk's groups share.
fn blocks_of(size: u64) -> u64 {
    let blocks = size.div_ceil(BLOCK as u64);
    let groups = blocks / u64::from(GROUP) + 2;
    blocks + u64::from(groups > INLINE_EXTENTS as u64)
}

const fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File(_) => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Device(device) => device_type(*device),
    }
}

fn put_file(
    volume: &mut Volume<'_>,
    tree: &Tree,
    number: u32,
    file: &Leaf<'_>,
    time: u32,
) -> io::Result<()> {
    let (size, data) = match &file.node.kind {
        Kind::File(content) => {
            let size = content.size().into();
            (size, put(volume, &mut *tree.open(content), size)?)
        }
        Kind::Symlink(target) => {
            let size = target.len() as u64;
            let data = if target.len() > FAST_SYMLINK_MAX {
                put(volume, &mut &target[..], size)?
            } else {
                Data::symlink(target)
            };
            (size, data)
        }
        Kind::Device(device) => (0, Data::device(*device)),
        Kind::Directory => unreachable!("folders are put on the disk before"),
    };
    let inode = Inode {
        kind: file_type(&file.node.kind),
        attributes: file.node.attributes,
        size,
        links: file.links,
        data,
        time,
    };
    volume.write_inode(number, &inode)
}

/// Carries `size` bytes of `content` to free blocks.
fn put(volume: &mut Volume<'_>, content: &mut dyn Read, size: u64) -> io::Result<Data> {
    let blocks = u32::try_from(size.div_ceil(BLOCK as u64)).map_err(io::Error::other)?;
    let full = || io::Error::new(io::ErrorKind::StorageFull, "the disk is full");
    let mut extents = Vec::new();
    let mut left = size;
    let mut buffer = Vec::new();
    let mut logical = 0;
    while logical < blocks {
        let (start, length) = volume.take(blocks - logical)?.ok_or_else(full)?;
        extents.push(Extent {
            logical,
            length,
            start,
        });
        for offset in (0..length).step_by(CHUNK as usize) {
            let chunk = BLOCK * (length - offset).min(CHUNK) as usize;
            let filled = usize::try_from(left).map_or(chunk, |left| left.min(chunk));
            buffer.clear();
            buffer.resize(chunk, 0);
            content.read_exact(&mut buffer[..filled])?;
            volume.write(start + offset, &buffer)?;
            left -= filled as u64;
        }
        logical += length;
    }
    if extents.len() <= INLINE_EXTENTS {
        return Ok(Data::extents(&extents, blocks));
    }
    if extents.len() > BLOCK_EXTENTS {
        return Err(full());
    }
    let (block, _) = volume.take(1)?.ok_or_else(full)?;
    volume.write(block, &leaf(&extents))?;
    Ok(Data::leaf(block, blocks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{ext4::format, tool};
    use crate::tree::node::{Device, DeviceClass};

    fn ext4(size: &str) -> Ext4 {
        Ext4 {
            epoch: 7,
            ..tool::ext4(size)
        }
    }

    fn filled(ext4: &Ext4, tree: &Tree) -> Result<tempfile::NamedTempFile, FillError> {
        let raw = tempfile::NamedTempFile::new().unwrap();
        raw.as_file().set_len(ext4.size.bytes()).unwrap();
        let interrupt = Interrupt::never().unwrap();
        format(raw.path(), ext4, &interrupt).unwrap();
        fill(raw.as_file(), ext4, tree, &interrupt)?;
        Ok(raw)
    }

    fn ask(raw: &tempfile::NamedTempFile, request: &str) -> String {
        let request = ["-R", request].map(AsRef::as_ref);
        tool::run("debugfs", request.into_iter().chain([raw.path()]))
    }

    fn check(raw: &tempfile::NamedTempFile) {
        let text = tool::run("e2fsck", ["-fn".as_ref(), raw.path()]);
        assert!(!text.to_lowercase().contains("fix"), "{text}");
    }

    /// One of everything, with names and numbers at their limits.
    fn tree() -> Tree {
        let mut tree = Tree::new();
        let odd = "a \"b\"\n-c/<12>/\u{e4}";
        tree.add_file(odd, 0o6751, b"odd\n".to_vec()).unwrap();
        tree.add_hard_link("second name", odd).unwrap();
        tree.add_file("empty", 0o400, vec![]).unwrap();
        let owner = Attributes {
            mode: 0o1777,
            uid: 70_000,
            gid: 80_000,
        };
        tree.add_directory("owned", owner).unwrap();
        let owner = Attributes {
            mode: 0o777,
            ..owner
        };
        tree.add_symlink("fast", owner, "f".repeat(FAST_SYMLINK_MAX))
            .unwrap();
        tree.add_symlink("slow", owner, "s/".repeat(2000)).unwrap();
        for (path, class, major, minor) in [
            ("dev/null", DeviceClass::Character, 1, 3),
            ("dev/large", DeviceClass::Block, 259, 70_000),
        ] {
            let device = Device {
                class,
                major,
                minor,
            };
            tree.add_device(path, Attributes::root(0o640), device)
                .unwrap();
        }
        for name in 0..1000 {
            let path = format!("many/{name:0200}");
            tree.add_file(&path, 0o644, vec![]).unwrap();
        }
        tree
    }

    #[test]
    fn everything_is_kept_and_the_file_system_clean() {
        let raw = filled(&ext4("64M"), &tree()).unwrap();
        check(&raw);
        for (path, parts) in [
            (
                "\"second name\"",
                &["Mode:  06751", "Links: 2", "Size: 4"][..],
            ),
            ("owned", &["Mode:  01777", "User: 70000", "Group: 80000"]),
            ("dev/null", &["character", "01:03", "Mode:  0640"]),
            ("dev/large", &["block", "259:70000"]),
            ("fast", &["Fast link dest: \"ffff", "Mode:  0777"]),
            ("slow", &["Size: 4000", "EXTENTS"]),
            ("empty", &["Size: 0", "00:00:07 1970", "Mode:  0400"]),
            ("lost+found", &["Mode:  0700", "Inode: 11 "]),
        ] {
            let text = ask(&raw, &format!("stat {path}"));
            for part in parts {
                assert!(text.contains(part), "{path}: no `{part}` in {text}");
            }
        }
        let odd = ask(&raw, "cat \"second name\"");
        assert!(odd.starts_with("odd\n"), "{odd}");
        assert_eq!(ask(&raw, "ls -p many").matches("/100644/").count(), 1000);
    }

    #[test]
    fn a_file_of_many_groups_is_whole() {
        let mut tree = Tree::new();
        let mut content = vec![0; 200 << 20];
        for (index, block) in content.chunks_mut(BLOCK).enumerate() {
            block[..8].copy_from_slice(&(index as u64).to_le_bytes());
        }
        let size = content.len() as u64;
        tree.add_large_file("a", Attributes::root(0o644), size, &*content)
            .unwrap();
        // More extents than an inode holds.
        let size = 540 << 20;
        tree.add_large_file("b", Attributes::root(0o644), size, io::repeat(1))
            .unwrap();
        let raw = filled(&ext4("1G"), &tree).unwrap();
        check(&raw);
        assert!(ask(&raw, "stat b").contains("(ETB0)"));
        let out = tempfile::NamedTempFile::new().unwrap();
        ask(&raw, &format!("dump a {}", out.path().display()));
        assert!(std::fs::read(out.path()).unwrap() == content);
    }

    #[test]
    fn a_disk_too_small_is_refused_with_both_figures() {
        let mut tree = Tree::new();
        tree.add_file("large", 0o644, vec![1; 16 << 20]).unwrap();
        let error = filled(&ext4("16M"), &tree).unwrap_err().to_string();
        assert!(
            error.contains("takes 1") && error.contains("disk of 16M has room for 1"),
            "{error}"
        );
        let mut tree = Tree::new();
        for name in 0..1100 {
            tree.add_file(name.to_string(), 0o644, vec![]).unwrap();
        }
        let error = filled(&ext4("16M"), &tree).unwrap_err().to_string();
        assert!(
            error.contains("1111 files") && error.contains("holds 1024"),
            "{error}"
        );
    }

    #[test]
    fn a_disk_can_be_filled_to_the_last_block() {
        let ext4 = ext4("16M");
        let raw = filled(&ext4, &Tree::new()).unwrap();
        check(&raw);
        let free = Volume::open(raw.as_file()).unwrap().free_blocks() as usize;
        // Root and lost+found take one each.
        let mut tree = Tree::new();
        let content = vec![1; (free - 2) * BLOCK];
        tree.add_file("large", 0o644, content).unwrap();
        check(&filled(&ext4, &tree).unwrap());
        tree.add_file("one more", 0o644, vec![1]).unwrap();
        assert!(filled(&ext4, &tree).is_err());
    }

    #[test]
    fn lost_and_found_of_an_archive_is_kept() {
        let mut tree = Tree::new();
        tree.add_directory("lost+found", Attributes::root(0o711))
            .unwrap();
        tree.add_file("lost+found/x", 0o644, vec![]).unwrap();
        let raw = filled(&ext4("16M"), &tree).unwrap();
        check(&raw);
        assert!(ask(&raw, "stat lost+found").contains("Mode:  0711"));

        let mut tree = Tree::new();
        tree.add_file("lost+found", 0o644, vec![]).unwrap();
        let error = filled(&ext4("16M"), &tree).unwrap_err();
        assert!(matches!(error, FillError::LostFound));
    }
}
