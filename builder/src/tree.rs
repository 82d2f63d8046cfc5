//! The files of a guest before they are packed or put on a disk.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;

use crate::text::printable_bytes;
use crate::tree::error::{Problem, TreeError};
use crate::tree::node::{Attributes, Content, Device, Kind, Node};
use crate::tree::path::{MAX_PATH, check_target, components, parts};
use crate::tree::spool::{Spool, SpoolError};

pub(crate) mod error;
pub(crate) mod node;
mod path;
mod spool;

/// Most content a tree may have, in bytes, so that no archive fills the disk
/// here.
const MAX_CONTENT: u64 = 64 << 30;

/// Most memory the entries of a tree may take here, in bytes, so that no archive
/// exhausts it; over a million entries.
const MAX_ENTRIES: usize = 256 << 20;

/// What an entry takes beside its names, in bytes.
const ENTRY_OVERHEAD: usize = 160;

/// Links followed in one path before it counts as a loop, as in Linux.
const MAX_LINKS: usize = 40;

/// The place of a node in [`Tree::nodes`].
pub(crate) type NodeId = usize;

/// The files of a guest. An entry added later takes the place of an earlier
/// one of the same path, as when tar unpacks; directories keep what they hold.
/// Parents that are missing are made, because the kernel does not unpack a file
/// without them.
#[derive(Debug, Default)]
pub struct Tree {
    /// By path from the root with no symbolic link on the way, in the order that
    /// they are packed: a directory sorts before what it holds.
    paths: BTreeMap<Vec<u8>, NodeId>,
    nodes: Vec<Node>,
    spool: Spool,
    content: u64,
    entries: usize,
}

impl Tree {
    /// A tree of nothing but the root.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file of root's, with the permission bits `mode`.
    pub fn add_file(
        &mut self,
        path: impl AsRef<[u8]>,
        mode: u16,
        content: Vec<u8>,
    ) -> Result<(), TreeError> {
        let path = path.as_ref();
        let size = self.admit_content(path, content.len() as u64)?;
        let bytes = content;
        let kind = Kind::File(Content::Memory { bytes, size });
        self.add(path, Attributes::root(mode), kind)
    }

    /// Adds a regular file whose `size` bytes are read from `content`.
    pub(crate) fn add_large_file(
        &mut self,
        path: impl AsRef<[u8]>,
        attributes: Attributes,
        size: u64,
        content: impl Read,
    ) -> Result<(), TreeError> {
        let path = path.as_ref();
        let cpio_size = self.admit_content(path, size)?;
        let spooled = self
            .spool
            .store(cpio_size, content)
            .map_err(|error| match error {
                SpoolError::Short { found } => {
                    TreeError::entry(path, Problem::Truncated { found, size })
                }
                SpoolError::Read(source) => TreeError::Read {
                    path: printable_bytes(path),
                    source,
                },
                SpoolError::Write(source) => TreeError::Spool {
                    path: printable_bytes(path),
                    source,
                },
            })?;
        self.add(path, attributes, Kind::File(Content::Spooled(spooled)))
    }

    pub(crate) fn add_directory(
        &mut self,
        path: impl AsRef<[u8]>,
        attributes: Attributes,
    ) -> Result<(), TreeError> {
        let path = path.as_ref();
        self.add(path, attributes, Kind::Directory)
    }

    pub(crate) fn add_symlink(
        &mut self,
        path: impl AsRef<[u8]>,
        attributes: Attributes,
        target: impl AsRef<[u8]>,
    ) -> Result<(), TreeError> {
        let path = path.as_ref();
        self.add(path, attributes, Kind::Symlink(target.as_ref().to_owned()))
    }

    pub(crate) fn add_device(
        &mut self,
        path: impl AsRef<[u8]>,
        attributes: Attributes,
        device: Device,
    ) -> Result<(), TreeError> {
        let path = path.as_ref();
        device
            .check()
            .map_err(|problem| TreeError::entry(path, problem))?;
        self.add(path, attributes, Kind::Device(device))
    }

    /// Adds another path for the file at `target`. Links to symbolic links and
    /// devices become entries of their own: the kernel links only files.
    pub(crate) fn add_hard_link(
        &mut self,
        path: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
    ) -> Result<(), TreeError> {
        let path = path.as_ref();
        let target = target.as_ref();
        let no_such_file = || {
            let target = printable_bytes(target);
            TreeError::entry(path, Problem::NoSuchFile { target })
        };
        let target_path = self.resolve(target).map_err(|_| no_such_file())?;
        let id = *self.paths.get(&target_path).ok_or_else(no_such_file)?;
        let node = &self.nodes[id];
        match node.kind {
            Kind::Directory => Err(no_such_file()),
            Kind::File(_) => self.place(path, id),
            Kind::Symlink(_) | Kind::Device(_) => {
                let Node { attributes, kind } = node.clone();
                self.add(path, attributes, kind)
            }
        }
    }

    /// Whether there is an entry at `path`.
    pub(crate) fn contains(&mut self, path: impl AsRef<[u8]>) -> Result<bool, TreeError> {
        let path = path.as_ref();
        let path = self.resolve(path)?;
        Ok(self.paths.contains_key(&path))
    }

    /// What stands at `path`, links followed; `None` if they lead nowhere.
    pub(crate) fn find(&self, path: impl AsRef<[u8]>) -> Option<&Node> {
        let mut ahead: VecDeque<_> = parts(path.as_ref()).map(<[u8]>::to_vec).collect();
        let mut here = Vec::new();
        let mut found = None;
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                leave(&mut here);
                continue;
            }
            let next = join(&here, &name);
            let node = &self.nodes[*self.paths.get(&next)?];
            if let Kind::Symlink(target) = &node.kind {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                follow(target, &mut here, &mut ahead);
            } else {
                here = next;
                found = Some(node);
            }
        }
        found
    }

    /// Each path and what stands behind it, in the order to pack.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], NodeId, &Node)> {
        self.paths
            .iter()
            .map(|(path, id)| (&**path, *id, &self.nodes[*id]))
    }

    /// The memory that its files' contents take when they are unpacked, in bytes.
    pub fn memory(&self) -> u64 {
        const PAGE: u64 = 4096;
        let nodes: BTreeMap<_, _> = self.entries().map(|(_, id, node)| (id, node)).collect();
        nodes
            .values()
            .map(|node| match &node.kind {
                Kind::File(content) => u64::from(content.size()).next_multiple_of(PAGE),
                Kind::Directory | Kind::Symlink(_) | Kind::Device(_) => 0,
            })
            .sum()
    }

    /// The bytes of a file of this tree.
    pub(crate) fn open<'a>(&'a self, content: &'a Content) -> Box<dyn Read + 'a> {
        match content {
            Content::Memory { bytes, .. } => Box::new(&bytes[..]),
            Content::Spooled(spooled) => Box::new(self.spool.read(*spooled)),
        }
    }

    /// Counts `size` bytes of content, which must fit in a cpio archive.
    fn admit_content(&mut self, path: &[u8], size: u64) -> Result<u32, TreeError> {
        let cpio_size =
            u32::try_from(size).map_err(|_| TreeError::entry(path, Problem::TooLarge { size }))?;
        self.content += size;
        if self.content > MAX_CONTENT {
            return Err(TreeError::TooMuchContent {
                path: printable_bytes(path),
            });
        }
        Ok(cpio_size)
    }

    fn add(&mut self, path: &[u8], attributes: Attributes, kind: Kind) -> Result<(), TreeError> {
        self.nodes.push(Node { attributes, kind });
        self.place(path, self.nodes.len() - 1)
    }

    /// Puts a node at `path`, in the place of what is there.
    fn place(&mut self, path: &[u8], id: NodeId) -> Result<(), TreeError> {
        let refuse = |problem| TreeError::entry(path, problem);
        let at = self.resolve(path)?;
        let directory = matches!(self.nodes[id].kind, Kind::Directory);
        if at.is_empty() {
            // The kernel made the root, and knows what it should look like.
            return directory.then_some(()).ok_or_else(|| refuse(Problem::Root));
        }
        let mut names = at.len();
        if let Kind::Symlink(target) = &self.nodes[id].kind {
            check_target(target).map_err(refuse)?;
            names += target.len();
        }
        if !directory && self.holds_entries(&at) {
            return Err(refuse(Problem::DirectoryNotEmpty));
        }
        self.entries += ENTRY_OVERHEAD + names;
        if self.entries > MAX_ENTRIES {
            return Err(TreeError::TooManyEntries {
                path: printable_bytes(path),
            });
        }
        self.paths.insert(at, id);
        Ok(())
    }

    fn holds_entries(&self, directory: &[u8]) -> bool {
        let prefix = [directory, b"/"].concat();
        self.paths
            .range(prefix.clone()..)
            .next()
            .is_some_and(|(path, _)| path.starts_with(&prefix))
    }

    /// Where `path` leads: its parents, made where they are missing, with
    /// symbolic links followed inside the tree as the guest's kernel would. Its
    /// last name is not followed. Empty for the root.
    fn resolve(&mut self, path: &[u8]) -> Result<Vec<u8>, TreeError> {
        let refuse = |problem| TreeError::entry(path, problem);
        let names = components(path).map_err(refuse)?;
        let Some((last, parents)) = names.split_last() else {
            return Ok(Vec::new());
        };
        let mut ahead: VecDeque<Vec<u8>> = parents.iter().map(|&name| name.to_owned()).collect();
        let mut here = Vec::new();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                leave(&mut here);
                continue;
            }
            let next = join(&here, &name);
            match self.paths.get(&next).map(|id| &self.nodes[*id].kind) {
                Some(Kind::Directory) => here = next,
                None => {
                    self.add(&next, Attributes::root(0o755), Kind::Directory)?;
                    here = next;
                }
                Some(Kind::Symlink(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(refuse(Problem::LinkLoop));
                    }
                    follow(target, &mut here, &mut ahead);
                }
                Some(Kind::File(_) | Kind::Device(_)) => {
                    let parent = printable_bytes(&next);
                    return Err(refuse(Problem::ParentNotDirectory { parent }));
                }
            }
        }
        let at = join(&here, last);
        // Links on the way may have made it longer.
        if at.len() > MAX_PATH {
            return Err(refuse(Problem::PathTooLong));
        }
        Ok(at)
    }
}

/// Goes on by the target of a link that stands in the folder `here`.
fn follow(target: &[u8], here: &mut Vec<u8>, ahead: &mut VecDeque<Vec<u8>>) {
    if target.starts_with(b"/") {
        here.clear();
    }
    for part in parts(target).rev() {
        ahead.push_front(part.to_owned());
    }
}

/// Goes to the parent of a folder; from the root to the root, as the kernel does.
fn leave(here: &mut Vec<u8>) {
    let slash = here.iter().rposition(|byte| *byte == b'/');
    here.truncate(slash.unwrap_or(0));
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        b"" => name.to_owned(),
        _ => [parent, b"/", name].concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::node::DeviceClass;
    use super::*;

    const PLAIN: Attributes = Attributes::root(0o755);

    fn paths(tree: &Tree) -> Vec<&str> {
        let paths = tree.entries().map(|(path, ..)| path);
        paths.map(|path| str::from_utf8(path).unwrap()).collect()
    }

    fn problem(outcome: Result<(), TreeError>) -> Problem {
        match outcome.unwrap_err() {
            TreeError::Entry { problem, .. } => problem,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn parents_come_before_what_they_hold() {
        let mut tree = Tree::new();
        tree.add_file("/a/b/c", 0o644, vec![]).unwrap();
        tree.add_file("a-b", 0o644, vec![]).unwrap();
        assert_eq!(paths(&tree), ["a", "a-b", "a/b", "a/b/c"]);
    }

    #[test]
    fn links_on_the_way_are_followed_inside_the_tree() {
        let mut tree = Tree::new();
        tree.add_symlink("lib", PLAIN, "usr/lib").unwrap();
        tree.add_symlink("usr/lib", PLAIN, "/usr/lib64/../lib32")
            .unwrap();
        tree.add_file("lib/x", 0o644, vec![]).unwrap();
        assert_eq!(
            paths(&tree),
            [
                "lib",
                "usr",
                "usr/lib",
                "usr/lib32",
                "usr/lib32/x",
                "usr/lib64"
            ]
        );

        tree.add_symlink("loop", PLAIN, "/loop").unwrap();
        assert_eq!(
            problem(tree.add_file("loop/x", 0, vec![])),
            Problem::LinkLoop
        );
    }

    #[test]
    fn links_that_climb_above_the_root_end_there_as_in_the_kernel() {
        let mut tree = Tree::new();
        let target = "../../../../../../etc/pki/java";
        tree.add_symlink("usr/lib/security", PLAIN, target).unwrap();
        tree.add_file("usr/lib/security/cacerts", 0o644, vec![])
            .unwrap();
        assert!(paths(&tree).contains(&"etc/pki/java/cacerts"));
    }

    #[test]
    fn names_keep_their_bytes() {
        let mut tree = Tree::new();
        tree.add_file(b"srv/Pr\xfcfung", 0o644, vec![]).unwrap();
        tree.add_symlink("l", PLAIN, b"srv/\xff").unwrap();
        let kinds: Vec<_> = tree.entries().map(|(path, ..)| path).collect();
        assert_eq!(kinds, [&b"l"[..], b"srv", b"srv/Pr\xfcfung"]);
        let refused = tree.add_file(b"l/x\xfc/../y", 0o644, vec![]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`l/x\u{fffd}/../y` cannot be packed: its path leads through `..`"
        );
    }

    #[test]
    fn a_later_entry_takes_the_place_of_an_earlier_one() {
        let mut tree = Tree::new();
        tree.add_file("x", 0o600, b"old".to_vec()).unwrap();
        tree.add_hard_link("kept", "x").unwrap();
        tree.add_symlink("x", PLAIN, "kept").unwrap();
        let kinds: Vec<_> = tree
            .entries()
            .map(|(path, _, node)| (path, &node.kind))
            .collect();
        assert!(matches!(kinds[0], (b"kept", Kind::File(_))));
        assert!(matches!(kinds[1], (b"x", Kind::Symlink(_))));

        tree.add_directory("d", PLAIN).unwrap();
        tree.add_file("d/x", 0o600, vec![]).unwrap();
        tree.add_directory("d", Attributes::root(0o700)).unwrap();
        let modes = |tree: &Tree| tree.entries().map(|(.., node)| node.attributes.mode).next();
        assert_eq!((modes(&tree), paths(&tree).len()), (Some(0o700), 4));
        let refused = tree.add_symlink("d", PLAIN, "x");
        assert_eq!(problem(refused), Problem::DirectoryNotEmpty);
    }

    #[test]
    fn entries_without_a_place_are_refused() {
        let mut tree = Tree::new();
        tree.add_file("f", 0o644, vec![]).unwrap();
        let parent = "f".to_owned();
        assert_eq!(
            problem(tree.add_file("f/x", 0o644, vec![])),
            Problem::ParentNotDirectory { parent }
        );
        assert_eq!(problem(tree.add_file("/", 0o644, vec![])), Problem::Root);
        tree.add_directory("./", Attributes::root(0o700)).unwrap();
        for target in ["missing", "dir", "../f"] {
            tree.add_directory("dir", PLAIN).unwrap();
            let refused = problem(tree.add_hard_link("l", target));
            assert!(matches!(refused, Problem::NoSuchFile { .. }), "{target}");
        }
        let device = Device {
            class: DeviceClass::Block,
            major: 4096,
            minor: 0,
        };
        let refused = problem(tree.add_device("dev/x", PLAIN, device));
        assert!(matches!(refused, Problem::DeviceNumber { .. }));
    }

    #[test]
    fn what_no_archive_or_guest_can_hold_is_refused_before_it_is_read() {
        let mut tree = Tree::new();
        let size = 1 << 32;
        let refused = tree.add_large_file("big", PLAIN, size, Unreadable);
        assert_eq!(problem(refused), Problem::TooLarge { size });

        tree.content = MAX_CONTENT - 1;
        let refused = tree.add_file("two", 0o644, vec![0; 2]).unwrap_err();
        assert!(matches!(refused, TreeError::TooMuchContent { .. }));

        tree.entries = MAX_ENTRIES - ENTRY_OVERHEAD;
        let refused = tree.add_directory("one", PLAIN).unwrap_err();
        assert!(matches!(refused, TreeError::TooManyEntries { .. }));
    }

    struct Unreadable;

    impl Read for Unreadable {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("nothing may be read")
        }
    }

    #[test]
    fn a_short_content_is_refused_with_both_lengths() {
        let refused = Tree::new().add_large_file("short", PLAIN, 10, &b"four"[..]);
        let problem = problem(refused);
        assert_eq!(problem, Problem::Truncated { found: 4, size: 10 });
    }
}
