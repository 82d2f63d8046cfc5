//! Why the files of a guest cannot be packed.

use std::io;

use crate::text::printable_bytes;

/// Why an entry is not in a tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The entry itself is at fault.
    #[error("`{path}` cannot be packed: {problem}")]
    Entry {
        /// Its path in the guest, as every text here [`printable`].
        path: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Its content could not be read.
    #[error("cannot read the content of `{path}`: {source}")]
    Read {
        /// Its path in the guest.
        path: String,
        source: io::Error,
    },
    /// There is no room to keep its content until it is packed.
    #[error("cannot keep `{path}` in a temporary file: {source}; point TMPDIR to a disk with room")]
    Spool {
        /// Its path in the guest.
        path: String,
        source: io::Error,
    },
    /// More content than there may be.
    #[error("the guest's files exceed 64 GiB at `{path}`: make the root file system smaller")]
    TooMuchContent {
        /// The path that went too far.
        path: String,
    },
    /// The entries would not fit in this process's memory.
    #[error(
        "the names of the guest's files exceed 256 MiB at `{path}`: make the root file system smaller"
    )]
    TooManyEntries {
        /// The path that went too far.
        path: String,
    },
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("its path leads through `..`")]
    PathClimbs,
    /// The path or a link's target has over 4,095 bytes.
    #[error("its path or target is longer than 4,095 bytes, which the kernel would skip silently")]
    PathTooLong,
    /// A name has over 255 bytes.
    #[error("a name in its path is longer than 255 bytes")]
    NameTooLong,
    /// A NUL byte in a path or target.
    #[error("its path or target holds a NUL byte")]
    Nul,
    /// The name that ends an archive.
    #[error("that name marks the end of a cpio archive: rename it")]
    Trailer,
    /// The root, as something else than a directory.
    #[error("the root of the tree can only be a directory")]
    Root,
    /// A link without a target.
    #[error("it is a link to nothing")]
    NoTarget,
    /// Links that lead to each other.
    #[error("its path is a loop of symbolic links")]
    LinkLoop,
    /// A parent that holds no entries.
    #[error("`{parent}` is in its path and is not a directory")]
    ParentNotDirectory { parent: String },
    /// A directory in the way.
    #[error("a directory of that name holds entries already")]
    DirectoryNotEmpty,
    /// A hard link to what is not there.
    #[error("it is a hard link to `{target}`, which is not a file before it in the archive")]
    NoSuchFile { target: String },
    #[error("it has {size} bytes, and only files below 4 GiB can be packed")]
    TooLarge { size: u64 },
    /// Device numbers that Linux does not have.
    #[error("there is no device {major}:{minor}")]
    DeviceNumber { major: u32, minor: u32 },
    /// A kind of entry that an initramfs here cannot have.
    #[error("it is {kind}, which is not supported: remove it from the archive")]
    Unsupported { kind: String },
    /// A field of an archive's header makes no sense.
    #[error("its header is damaged: {reason}")]
    Header { reason: String },
    /// The archive ended within the content.
    #[error("its content ends after {found} of {size} bytes")]
    Truncated {
        /// How many bytes were there.
        found: u64,
        /// How many its header promised.
        size: u64,
    },
}

impl TreeError {
    /// The error of the entry at `path`.
    pub(crate) fn entry(path: impl AsRef<[u8]>, problem: Problem) -> Self {
        Self::Entry {
            path: printable_bytes(path.as_ref()),
            problem,
        }
    }
}
