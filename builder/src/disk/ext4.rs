//! An empty ext4 file system, the same bytes every time.
//!
//! mke2fs makes it. This module fixes everything that mke2fs would take from the
//! clock, a random number or the host's `/etc/mke2fs.conf`, and leaves out what a
//! guest that lives for minutes does not need.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::e2fsprogs::{E2fs, E2fsError};
use crate::digest::Hasher;
use crate::interrupt::Interrupt;
use crate::units::ByteSize;

/// Longest label of a file system, in bytes: `s_volume_name` of the superblock.
pub(crate) const MAX_LABEL: usize = 16;

/// The smallest disk that is formatted, in bytes.
pub(crate) const MIN_SIZE: u64 = 1024 * 1024;

/// No journal: overlays are thrown away, and one would cost every guest writes
/// and a kernel thread. `uninit_bg` and `sparse_super2` (with no backups at all)
/// leave nearly all metadata zeros, which take no space in the base image.
/// `metadata_csum` would have guests compute checksums that nobody checks.
const FEATURES: &str = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,\
                        huge_file,large_file,sparse_super2,uninit_bg";

/// Bytes of disk for each inode: what mke2fs gives a disk of this size, and
/// enough for a distribution's root file system.
const INODE_RATIO: &str = "16384";

/// Kept in the superblock, so that no guest can forget it: without it ext4
/// starts a thread at mount that reads every block bitmap (`ext4lazyinit`, see
/// `ext4_register_li_request()` in Linux's `fs/ext4/super.c`).
const MOUNT_OPTIONS: &str = "no_prefetch_block_bitmaps";

/// Why there is no file system.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    #[error("`{0}` cannot label a file system: a label has 1 to 16 bytes, and no NUL")]
    Label(String),
    /// Too little room for the tables and one directory.
    #[error("a disk of {0} is too small for a file system: make it 1M or more")]
    TooSmall(ByteSize),
    /// One of the tools failed.
    #[error("cannot make an ext4 file system of {size}: {source}")]
    Tool {
        /// How large it was to be.
        size: ByteSize,
        source: E2fsError,
    },
}

/// The name of a file system, as `blkid` and `/dev/disk/by-label` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

impl TryFrom<String> for Label {
    type Error = Ext4Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl FromStr for Label {
    type Err = Ext4Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=MAX_LABEL).contains(&text.len()) && !text.contains('\0') {
            Ok(Self(text.to_owned()))
        } else {
            Err(Ext4Error::Label(text.to_owned()))
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a file system is made from; equal values give equal bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ext4 {
    /// Its name.
    pub label: Label,
    /// The size of the disk it fills.
    pub size: ByteSize,
    /// The time it claims to be made at, in seconds since 1970.
    pub epoch: u32,
}

/// Makes the file system in the file `raw`, which has its size already.
pub(crate) fn format(raw: &Path, ext4: &Ext4, interrupt: &Interrupt) -> Result<(), Ext4Error> {
    if ext4.size.bytes() < MIN_SIZE {
        return Err(Ext4Error::TooSmall(ext4.size));
    }
    let environment = environment(ext4.epoch);
    let run = |program: E2fs, args: &[String]| {
        program
            .run(args, raw, &environment, interrupt)
            .map_err(|source| Ext4Error::Tool {
                size: ext4.size,
                source,
            })
    };
    run(E2fs::Mke2fs, &mke2fs_args(ext4))?;
    // mke2fs 1.47 cannot set mount options itself.
    run(
        E2fs::Tune2fs,
        &["-E", &format!("mount_opts={MOUNT_OPTIONS}")].map(str::to_owned),
    )
}

/// All that the tools see of this machine.
fn environment(epoch: u32) -> [(&'static str, OsString); 4] {
    // Zero would mean "now" to e2fsprogs.
    let time = epoch.max(1).to_string();
    // The tools live where the PATH of an ordinary user does not lead.
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    [
        ("PATH", path),
        ("MKE2FS_CONFIG", "/dev/null".into()),
        // The first up to e2fsprogs 1.47.0, the second since 1.47.1.
        ("E2FSPROGS_FAKE_TIME", time.clone().into()),
        ("SOURCE_DATE_EPOCH", time.into()),
    ]
}

fn mke2fs_args(ext4: &Ext4) -> Vec<String> {
    let extended = [
        &format!("hash_seed={}", uuid("hash seed", ext4)),
        // Inode tables are zeros in the image, or guests would run ext4lazyinit.
        "lazy_itable_init=0",
        "lazy_journal_init=0",
        // Metadata in one place needs the fewest qcow2 tables.
        "packed_meta_blocks=1",
        "num_backup_sb=0",
        "root_owner=0:0",
    ]
    .join(",");
    let uuid = uuid("file system", ext4);
    [
        ["-b", "4096"],
        ["-I", "256"],
        ["-i", INODE_RATIO],
        // Blocks reserved for root, who is the guest's only user.
        ["-m", "0"],
        ["-L", &ext4.label.0],
        ["-U", &uuid],
        ["-O", FEATURES],
        ["-E", &extended],
        // -F: the target is a file, and nobody is there to confirm it.
        ["-q", "-F"],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// A UUID for one `purpose` of a file system: version 8 of RFC 9562, whose bits
/// are a digest's.
fn uuid(purpose: &str, ext4: &Ext4) -> String {
    let mut hasher = Hasher::default();
    let size = ext4.size.bytes();
    hasher.update(format!("imgbuild ext4 {purpose}\0{size}\0{}", ext4.label));
    let digest = hasher.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tool::{self, ext4};

    fn formatted(ext4: &Ext4) -> Result<tempfile::NamedTempFile, Ext4Error> {
        let raw = tempfile::NamedTempFile::new().unwrap();
        raw.as_file().set_len(ext4.size.bytes()).unwrap();
        format(raw.path(), ext4, &Interrupt::never().unwrap())?;
        Ok(raw)
    }

    #[test]
    fn file_systems_of_all_sizes_are_clean() {
        for size in ["1M", "3145728", "100M", "1G", "64G"] {
            let raw = formatted(&ext4(size)).unwrap();
            let text = tool::run("e2fsck", ["-fn".as_ref(), raw.path()]);
            assert!(!text.to_lowercase().contains("fix"), "{text}");
        }
    }

    #[test]
    fn a_guest_finds_no_journal_and_nothing_left_to_initialise() {
        let raw = formatted(&ext4("1G")).unwrap();
        let text = tool::run("dumpe2fs", [raw.path()]);
        for line in [
            "Filesystem volume name:   disk",
            "Mount options:            no_prefetch_block_bitmaps",
            "Filesystem created:       Thu Jan  1 00:00:01 1970",
            "Reserved block count:     0",
        ] {
            assert!(text.contains(line), "no `{line}` in {text}");
        }
        assert!(!text.contains("has_journal"), "{text}");
        // 8 groups of 128 MiB; a group without the flag is one for ext4lazyinit.
        assert_eq!(text.matches("ITABLE_ZEROED").count(), 8, "{text}");
    }

    #[test]
    fn equal_values_give_equal_bytes_at_any_time() {
        let first = formatted(&ext4("16M")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let second = formatted(&ext4("16M")).unwrap();
        let read = |raw: &tempfile::NamedTempFile| std::fs::read(raw.path()).unwrap();
        assert!(read(&first) == read(&second));

        let label = "other".parse().unwrap();
        let other = formatted(&Ext4 {
            label,
            ..ext4("16M")
        })
        .unwrap();
        assert!(read(&first) != read(&other));
    }

    #[test]
    fn uuids_are_of_version_8_and_differ_by_label_size_and_purpose() {
        let uuids = [
            uuid("file system", &ext4("1G")),
            uuid("hash seed", &ext4("1G")),
            uuid("file system", &ext4("2G")),
        ];
        for (index, uuid) in uuids.iter().enumerate() {
            assert_eq!((uuid.len(), &uuid[14..15]), (36, "8"));
            assert!("89ab".contains(&uuid[19..20]));
            assert!(!uuids[index + 1..].contains(uuid));
        }
    }

    #[test]
    fn labels_and_sizes_that_do_not_fit_are_refused_by_value() {
        assert!("sixteen bytes ok".parse::<Label>().is_ok());
        for text in ["", "seventeen bytes !", "a\0b"] {
            let error = text.parse::<Label>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        let error = formatted(&ext4("512K")).unwrap_err();
        assert!(error.to_string().contains("a disk of 512K is too small"));
    }

    #[test]
    fn a_failing_tool_is_quoted() {
        let missing = Path::new("/nonexistent/raw");
        let error = format(missing, &ext4("1M"), &Interrupt::never().unwrap()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("ext4 file system of 1M: `mke2fs "), "{text}");
        assert!(text.contains("/nonexistent/raw does not exist"), "{text}");
    }
}
