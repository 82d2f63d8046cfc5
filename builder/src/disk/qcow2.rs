//! The qcow2 format, version 3: where things lie in an image, and its header.
//!
//! Field names and offsets are those of QEMU's `docs/interop/qcow2.txt`. This
//! module writes the subset that guests' disks need: no snapshots, encryption,
//! compression or internal bitmaps, and 16-bit reference counts.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::units::ByteSize;

/// The unit of a virtual size, in bytes: what a guest calls a sector.
pub const SECTOR: u64 = 512;

/// Longest name of a backing file, in bytes; the specification's limit.
pub const MAX_BACKING_NAME: usize = 1023;

/// "This cluster's reference count is exactly one", in L1 and L2 entries: QEMU
/// may then write to it in place.
pub(crate) const COPIED: u64 = 1 << 63;

/// Entries of L1, L2 and refcount tables are 64 bits.
pub(crate) const ENTRY_BYTES: u64 = 8;

/// Reference counts are 16 bits, `refcount_order` 4.
pub(crate) const REFCOUNT_BYTES: u64 = 2;

const REFCOUNT_ORDER: u32 = 4;

/// With clusters of C bytes, a [`Geometry`] has at most C²/64 data clusters and
/// a few tables; their counts fill C/32 blocks and a bit, and the table that
/// names the blocks has room for C/8.
const REFCOUNT_TABLE_CLUSTERS: u32 = 1;

const MAGIC: [u8; 4] = *b"QFI\xfb";
const VERSION: u32 = 3;
const HEADER_BYTES: u32 = 104;
const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;

const OVERLAY_CLUSTER_BITS: u32 = 11;
const MIN_CLUSTER_BITS: u32 = 12;
const MAX_CLUSTER_BITS: u32 = 16;

/// Why an image cannot be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Qcow2Error {
    /// Not a whole number of sectors.
    #[error("a disk of {0} bytes ends inside a sector: make it a multiple of 512 bytes")]
    Unaligned(u64),
    /// More than the format addresses with the clusters used here.
    #[error("a disk of {0} is too large: the largest is 4T")]
    TooLarge(ByteSize),
    /// The name does not fit in the header.
    #[error(
        "the backing file name `{name}` has {length} bytes, and qcow2 holds at most 1,023: \
         use a shorter path, or a relative one"
    )]
    BackingNameTooLong {
        /// The name.
        name: String,
        /// Its length in bytes.
        length: usize,
    },
    /// QEMU would not open a file of that name.
    #[error("`{name}` cannot name a backing file: {reason}")]
    BackingName {
        /// The name.
        name: String,
        /// What QEMU would make of it, and what to do.
        reason: &'static str,
    },
}

/// The qcow2 image that an overlay shows where nothing was written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    name: OsString,
}

impl Backing {
    /// The image at `path`; a relative one starts at the overlay's own folder.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, Qcow2Error> {
        let name = path.as_ref().as_os_str();
        let bytes = name.as_bytes();
        let refuse = |reason| {
            Err(Qcow2Error::BackingName {
                name: name.to_string_lossy().into_owned(),
                reason,
            })
        };
        if bytes.len() > MAX_BACKING_NAME {
            return Err(Qcow2Error::BackingNameTooLong {
                name: name.to_string_lossy().into_owned(),
                length: bytes.len(),
            });
        }
        if bytes.is_empty() {
            return refuse("it is empty");
        }
        if bytes.contains(&0) {
            return refuse("it holds a NUL byte");
        }
        // QEMU's path_has_protocol(): `nbd:…`, but also a file called `a:b`.
        if bytes.iter().find(|byte| matches!(byte, b':' | b'/')) == Some(&b':') {
            return refuse(
                "QEMU takes what stands before the colon for a protocol: begin it with `./`",
            );
        }
        Ok(Self {
            name: name.to_owned(),
        })
    }
}

/// How large an image's virtual disk and its clusters are.
///
/// A base's cluster is the smallest, from 4 KiB to 64 KiB, whose L1 table takes no
/// more than one cluster: 4 KiB up to 1 GiB, 64 KiB above 512 GiB. An overlay has
/// 2 KiB up to 1 GiB. What counts there is the first few blocks that a guest writes,
/// since it is paid once a guest, on the host's disk and in its page cache. The
/// superblock that a mount writes, and 46 blocks (that, bitmaps, inodes, four small
/// files), on 1 GiB, measured with QEMU 7.2:
///
/// | clusters | mounted | 46 blocks |
/// |---|---|---|
/// | 2 KiB | 16 KiB | 196 KiB |
/// | 4 KiB | 24 KiB | 204 KiB |
/// | 64 KiB, QEMU's default | | 580 KiB |
/// | 64 KiB with `extended_l2` | | 380 KiB |
///
/// Host file systems hand out 4 KiB blocks: with 2 KiB, two tables share one. A fresh
/// cluster of a guest's block copies nothing from the base. Sequential writes of 64 KiB
/// take 1.7 times as long as with 4 KiB, at 290 MB/s, and with 1 KiB 30 times
/// (`qemu-img bench`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    virtual_size: ByteSize,
    cluster_bits: u32,
}

impl Geometry {
    /// The geometry of a disk of `virtual_size`.
    pub fn of(virtual_size: ByteSize) -> Result<Self, Qcow2Error> {
        if !virtual_size.bytes().is_multiple_of(SECTOR) {
            return Err(Qcow2Error::Unaligned(virtual_size.bytes()));
        }
        Self::smallest(virtual_size, MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS)
            .ok_or(Qcow2Error::TooLarge(virtual_size))
    }

    /// The same of an overlay.
    pub fn of_overlay(virtual_size: ByteSize) -> Result<Self, Qcow2Error> {
        let geometry = Self::of(virtual_size)?;
        Ok(Self {
            cluster_bits: if geometry.cluster_bits == MIN_CLUSTER_BITS {
                OVERLAY_CLUSTER_BITS
            } else {
                geometry.cluster_bits
            },
            ..geometry
        })
    }

    /// The first of these whose L1 table takes one cluster.
    fn smallest(virtual_size: ByteSize, bits: impl Iterator<Item = u32>) -> Option<Self> {
        bits.map(|cluster_bits| Self {
            virtual_size,
            cluster_bits,
        })
        .find(|geometry| geometry.l1_entries() <= geometry.entries_per_cluster())
    }

    /// The size of the disk that a guest sees.
    pub const fn virtual_size(self) -> ByteSize {
        self.virtual_size
    }

    /// The size of a cluster in bytes.
    pub const fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }

    /// The size of a cluster as a buffer's length.
    pub(crate) const fn cluster_len(self) -> usize {
        1 << self.cluster_bits
    }

    pub(crate) const fn entries_per_cluster(self) -> u64 {
        self.cluster_size() / ENTRY_BYTES
    }

    pub(crate) const fn refcounts_per_cluster(self) -> u64 {
        self.cluster_size() / REFCOUNT_BYTES
    }

    /// Entries of the L1 table: one for each cluster's worth of L2 entries.
    const fn l1_entries(self) -> u64 {
        let bytes_per_l2 = self.entries_per_cluster() * self.cluster_size();
        self.virtual_size.bytes().div_ceil(bytes_per_l2)
    }
}

/// Where an image's tables begin, in clusters from the start of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables {
    pub(crate) l1: u64,
    pub(crate) refcount_table: u64,
}

/// The content of an image's first cluster, as far as it is used.
pub(crate) fn header(geometry: Geometry, tables: Tables, backing: Option<&Backing>) -> Vec<u8> {
    let mut extensions = Vec::new();
    if backing.is_some() {
        // It is always written down: QEMU does not guess formats, since a guest could
        // make a raw disk look like any of them.
        push_extension(&mut extensions, EXTENSION_BACKING_FORMAT, b"qcow2");
    }
    push_extension(&mut extensions, EXTENSION_END, b"");
    let name = backing.map_or(&b""[..], |backing| backing.name.as_bytes());
    let name_offset = match backing {
        Some(_) => u64::from(HEADER_BYTES) + extensions.len() as u64,
        None => 0,
    };

    let mut bytes = Vec::with_capacity(HEADER_BYTES as usize + extensions.len() + name.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend(name_offset.to_be_bytes());
    bytes.extend(small(name.len()));
    bytes.extend(geometry.cluster_bits.to_be_bytes());
    bytes.extend(geometry.virtual_size.bytes().to_be_bytes());
    bytes.extend(0_u32.to_be_bytes()); // crypt_method
    bytes.extend(small(geometry.l1_entries()));
    bytes.extend((tables.l1 * geometry.cluster_size()).to_be_bytes());
    bytes.extend((tables.refcount_table * geometry.cluster_size()).to_be_bytes());
    bytes.extend(REFCOUNT_TABLE_CLUSTERS.to_be_bytes());
    bytes.extend(0_u32.to_be_bytes()); // nb_snapshots
    bytes.extend([0; 8]); // snapshots_offset
    bytes.extend([0; 24]); // incompatible, compatible and autoclear features
    bytes.extend(REFCOUNT_ORDER.to_be_bytes());
    bytes.extend(HEADER_BYTES.to_be_bytes());
    debug_assert_eq!(bytes.len(), HEADER_BYTES as usize);
    bytes.extend(extensions);
    bytes.extend(name);
    bytes
}

fn push_extension(bytes: &mut Vec<u8>, kind: u32, data: &[u8]) {
    bytes.extend(kind.to_be_bytes());
    bytes.extend(small(data.len()));
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

/// A count that the types above keep far below 32 bits, as the header holds it.
fn small(count: impl TryInto<u32>) -> [u8; 4] {
    count.try_into().unwrap_or(u32::MAX).to_be_bytes()
}

/// Bytes at a place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Where, in bytes from the start of the file.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// A whole image in memory: the extents that are not zeros, and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallImage {
    /// What is not zero, in ascending order.
    pub extents: Vec<Extent>,
    /// The length of the file in bytes.
    pub length: u64,
}

/// An image that holds nothing of its own: header, refcount table and one refcount
/// block, one cluster each, and an empty L1 table, which is left as a hole. QEMU makes
/// the refcount table longer when the image grows beyond what it counts.
pub fn overlay_image(geometry: Geometry, backing: &Backing) -> SmallImage {
    const REFCOUNT_TABLE: u64 = 1;
    const REFCOUNT_BLOCK: u64 = 2;
    const L1: u64 = 3;

    let cluster = geometry.cluster_size();
    let clusters = L1 + (geometry.l1_entries() * ENTRY_BYTES).div_ceil(cluster);
    let tables = Tables {
        l1: L1,
        refcount_table: REFCOUNT_TABLE,
    };
    let refcounts = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    let pieces = [
        (0, header(geometry, tables, Some(backing))),
        (
            REFCOUNT_TABLE,
            (REFCOUNT_BLOCK * cluster).to_be_bytes().to_vec(),
        ),
        (REFCOUNT_BLOCK, refcounts),
    ];
    SmallImage {
        extents: pieces
            .map(|(index, bytes)| Extent {
                offset: index * cluster,
                bytes,
            })
            .into(),
        length: clusters * cluster,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> ByteSize {
        text.parse().unwrap()
    }

    #[test]
    fn clusters_are_the_smallest_whose_l1_table_fits_in_one() {
        for (virtual_size, cluster) in [
            ("512", 4096),
            ("1G", 4096),
            ("1073742336", 8192),
            ("8G", 8192),
            ("64G", 16384),
            ("512G", 32768),
            ("513G", 65536),
            ("4T", 65536),
        ] {
            let geometry = Geometry::of(size(virtual_size)).unwrap();
            assert_eq!(geometry.cluster_size(), cluster, "{virtual_size}");
        }
    }

    #[test]
    fn an_overlay_has_small_clusters_where_its_base_has_the_smallest() {
        for (virtual_size, cluster) in [("512", 2048), ("1G", 2048), ("2G", 8192), ("4T", 65536)] {
            let geometry = Geometry::of_overlay(size(virtual_size)).unwrap();
            assert_eq!(geometry.cluster_size(), cluster, "{virtual_size}");
        }
        assert!(Geometry::of_overlay(size("1000")).is_err());
    }

    #[test]
    fn sizes_that_no_image_can_have_are_refused() {
        assert_eq!(Geometry::of(size("1000")), Err(Qcow2Error::Unaligned(1000)));
        // 64 KiB clusters and an L1 table of one cluster address 4 TiB.
        let above = ByteSize::new((4 << 40) + SECTOR).unwrap();
        assert_eq!(Geometry::of(above), Err(Qcow2Error::TooLarge(above)));
    }

    #[test]
    fn backing_names_that_qemu_would_misread_are_refused_by_name() {
        let backing = |name: &str| Backing::new(name);
        assert!(backing(&"n".repeat(MAX_BACKING_NAME)).is_ok());
        let long = "n".repeat(MAX_BACKING_NAME + 1);
        let error = backing(&long).unwrap_err().to_string();
        assert!(
            error.contains(&long) && error.contains("1024 bytes"),
            "{error}"
        );
        for name in ["", "nbd:host", "a\0b", "json:{}"] {
            let error = backing(name).unwrap_err();
            assert!(matches!(error, Qcow2Error::BackingName { .. }), "{name}");
        }
        assert!(backing("./a:b").is_ok());
    }

    #[test]
    fn an_overlay_is_laid_out_as_the_specification_says() {
        let backing = Backing::new("../base.qcow2").unwrap();
        let image = overlay_image(Geometry::of_overlay(size("1G")).unwrap(), &backing);
        // With an L1 table of 16 KiB.
        assert_eq!(image.length, 11 * 2048);
        let [header, table, block] = &image.extents[..] else {
            panic!("three extents are not zeros");
        };
        let field = |at: usize| u64::from_be_bytes(header.bytes[at..at + 8].try_into().unwrap());
        assert_eq!(field(0), 0x5146_49fb_0000_0003);
        assert_eq!((field(24), field(40), field(48)), (1 << 30, 3 * 2048, 2048));
        let name = usize::try_from(field(8)).unwrap();
        assert_eq!(&header.bytes[name..], b"../base.qcow2");
        assert_eq!(
            &header.bytes[104..120],
            b"\xe2\x79\x2a\xca\0\0\0\x05qcow2\0\0\0"
        );
        assert_eq!(
            (table.offset, &table.bytes[..]),
            (2048, &4096_u64.to_be_bytes()[..])
        );
        assert_eq!(
            (block.offset, &block.bytes[..]),
            (4096, &[0, 1].repeat(11)[..])
        );
    }
}
