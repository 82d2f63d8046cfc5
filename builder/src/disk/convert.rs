//! Turns a raw disk into a qcow2 image that holds only what is not zero.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::disk::qcow2::{COPIED, ENTRY_BYTES, Geometry, Tables, header};
use crate::interrupt::Interrupt;

/// Bytes read at a time; a multiple of every cluster size.
const CHUNK: u64 = 1024 * 1024;

/// The clusters that every image begins with: header and L1 table.
const FIRST_FREE_CLUSTER: u64 = 2;
const L1_CLUSTER: u64 = 1;

/// Why a raw disk was not converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The raw disk has another size than the image is to have.
    #[error("the raw disk has {found} bytes where {expected} were expected")]
    Length {
        /// What the image is to show, in bytes.
        expected: u64,
        /// What the raw file has, in bytes.
        found: u64,
    },
    /// The raw disk could not be read.
    #[error("cannot read the raw disk at byte {offset}: {source}")]
    Read {
        /// Where, in bytes.
        offset: u64,
        source: io::Error,
    },
    /// The image could not be written.
    #[error("cannot write the qcow2 image: {0}")]
    Write(#[source] io::Error),
    /// The user asked to stop.
    #[error("interrupted while a raw disk was converted to qcow2")]
    Interrupted,
}

/// Writes the content of `raw` to the empty file `image`.
///
/// A cluster of zeros takes no space, whether it is a hole in `raw` or not, so
/// the same content gives the same image on every file system. The L2 tables
/// follow the data they describe, and the refcounts come last, so the image is
/// written from front to back and never held in memory.
pub(crate) fn convert(
    raw: &File,
    geometry: Geometry,
    image: &File,
    interrupt: &Interrupt,
) -> Result<(), ConvertError> {
    let expected = geometry.virtual_size().bytes();
    let found = raw
        .metadata()
        .map_err(|source| ConvertError::Read { offset: 0, source })?
        .len();
    if found != expected {
        return Err(ConvertError::Length { expected, found });
    }

    let mut writer = Writer::new(geometry, image)?;
    let mut chunk = vec![0; length(CHUNK)];
    let mut position = next_data(raw, 0)?;
    while position < expected {
        if interrupt.requested() {
            return Err(ConvertError::Interrupted);
        }
        let offset = position - position % CHUNK;
        let (data, rest) = chunk.split_at_mut(length(CHUNK.min(expected - offset)));
        raw.read_exact_at(data, offset)
            .map_err(|source| ConvertError::Read { offset, source })?;
        // The disk may end within a cluster.
        rest.fill(0);
        writer.append(offset, &chunk).map_err(ConvertError::Write)?;
        position = next_data(raw, offset + CHUNK)?;
    }
    writer.finish().map_err(ConvertError::Write)
}

/// Where the next data at or after `offset` may be. A file system that does not
/// tell holes from data only costs time.
fn next_data(raw: &File, offset: u64) -> Result<u64, ConvertError> {
    match seek(raw, SeekFrom::Data(offset)) {
        Ok(data) => Ok(data),
        Err(Errno::NXIO) => Ok(u64::MAX),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(offset),
        Err(errno) => Err(ConvertError::Read {
            offset,
            source: errno.into(),
        }),
    }
}

/// An image in the making: data and L2 tables so far, and what they leave to be
/// written at the end.
struct Writer<'a> {
    geometry: Geometry,
    image: &'a File,
    out: BufWriter<&'a File>,
    /// The clusters given out so far; each is referenced once.
    clusters: u64,
    l1: Vec<u8>,
    /// The L2 table in the making, and its place in the L1 table.
    l2: Vec<u8>,
    l2_index: u64,
}

impl<'a> Writer<'a> {
    fn new(geometry: Geometry, image: &'a File) -> Result<Self, ConvertError> {
        let cluster = geometry.cluster_len();
        let data_start = FIRST_FREE_CLUSTER * geometry.cluster_size();
        seek(image, SeekFrom::Start(data_start))
            .map_err(|errno| ConvertError::Write(errno.into()))?;
        Ok(Self {
            geometry,
            image,
            out: BufWriter::with_capacity(256 * 1024, image),
            clusters: FIRST_FREE_CLUSTER,
            l1: vec![0; cluster],
            l2: vec![0; cluster],
            l2_index: 0,
        })
    }

    /// Adds the clusters of `chunk`, which begins at `offset` of the disk.
    fn append(&mut self, offset: u64, chunk: &[u8]) -> io::Result<()> {
        let first = offset / self.geometry.cluster_size();
        for (cluster, bytes) in (first..).zip(chunk.chunks_exact(self.l2.len())) {
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let entries = self.geometry.entries_per_cluster();
            if cluster / entries != self.l2_index {
                self.end_l2()?;
                self.l2_index = cluster / entries;
            }
            let data = self.push_cluster(bytes)?;
            set_entry(&mut self.l2, cluster % entries, data | COPIED);
        }
        Ok(())
    }

    /// Writes the L2 table in the making, unless it is empty.
    fn end_l2(&mut self) -> io::Result<()> {
        if self.l2.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let mut table = std::mem::take(&mut self.l2);
        let offset = self.push_cluster(&table)?;
        set_entry(&mut self.l1, self.l2_index, offset | COPIED);
        table.fill(0);
        self.l2 = table;
        Ok(())
    }

    /// Appends a cluster and returns its place in the file, in bytes.
    fn push_cluster(&mut self, bytes: &[u8]) -> io::Result<u64> {
        self.out.write_all(bytes)?;
        self.clusters += 1;
        Ok((self.clusters - 1) * self.geometry.cluster_size())
    }

    fn finish(mut self) -> io::Result<()> {
        self.end_l2()?;
        let refcount_table = self.push_refcounts()?;
        self.out.flush()?;
        let tables = Tables {
            l1: L1_CLUSTER,
            refcount_table,
        };
        let l1_offset = L1_CLUSTER * self.geometry.cluster_size();
        self.image.write_all_at(&self.l1, l1_offset)?;
        self.image
            .write_all_at(&header(self.geometry, tables, None), 0)
    }

    /// Appends the refcount blocks and the table that names them, whose cluster
    /// it returns. They count themselves.
    fn push_refcounts(&mut self) -> io::Result<u64> {
        let per_block = self.geometry.refcounts_per_cluster();
        // blocks × per_block ≥ clusters + 1 table + blocks, solved for blocks.
        let blocks = (self.clusters + 1).div_ceil(per_block - 1);
        let mut left = self.clusters + blocks + 1;
        let mut table = vec![0; self.geometry.cluster_len()];
        for index in 0..blocks {
            let used = left.min(per_block);
            left -= used;
            let mut block = 1_u16.to_be_bytes().repeat(length(used));
            block.resize(self.geometry.cluster_len(), 0);
            set_entry(&mut table, index, self.push_cluster(&block)?);
        }
        Ok(self.push_cluster(&table)? / self.geometry.cluster_size())
    }
}

fn set_entry(table: &mut [u8], index: u64, value: u64) {
    let start = length(index * ENTRY_BYTES);
    table[start..][..8].copy_from_slice(&value.to_be_bytes());
}

/// A number of bytes or entries no larger than a chunk, as memory is counted.
fn length(count: u64) -> usize {
    usize::try_from(count).expect("a chunk fits in memory")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{disk::tool, units::ByteSize};

    /// A raw disk of `size` bytes in `dir` with `data` at some places.
    fn raw_disk(dir: &Path, size: u64, data: &[(u64, &[u8])]) -> File {
        let raw = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.join("raw"))
            .unwrap();
        raw.set_len(size).unwrap();
        for (offset, bytes) in data {
            raw.write_all_at(bytes, *offset).unwrap();
        }
        raw
    }

    fn converted(dir: &Path, raw: &File, size: u64) -> Vec<u8> {
        let path = dir.join("image");
        let image = File::create(&path).unwrap();
        let geometry = Geometry::of(ByteSize::new(size).unwrap()).unwrap();
        convert(raw, geometry, &image, &Interrupt::never().unwrap()).unwrap();
        fs::read(path).unwrap()
    }

    fn check(dir: &Path) {
        let (raw, image) = (dir.join("raw"), dir.join("image"));
        let checked = tool::run("qemu-img", ["check".as_ref(), image.as_path()]);
        assert!(checked.contains("No errors were found"), "{checked}");
        let formats = ["compare", "-f", "raw", "-F", "qcow2"].map(AsRef::as_ref);
        tool::run("qemu-img", formats.into_iter().chain([&*raw, &*image]));
    }

    #[test]
    fn an_image_shows_what_the_raw_disk_holds() {
        const GIB: u64 = 1 << 30;
        for (size, places) in [
            (512, vec![0]),
            (4096 + 512, vec![0, 4096]),
            (5_000_192, vec![4999]),
            (GIB, vec![]),
            (GIB, vec![0, 4096 * 511, 4096 * 512, GIB - 512]),
            (9 * GIB + 512, vec![GIB, 9 * GIB]),
            (2 << 40, vec![0, (2 << 40) - 512, 1 << 40]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let data = places.iter().map(|place| (*place, &[7_u8; 512][..]));
            let raw = raw_disk(dir.path(), size, &data.collect::<Vec<_>>());
            converted(dir.path(), &raw, size);
            check(dir.path());
        }
    }

    #[test]
    fn a_full_disk_of_many_refcount_blocks_is_counted_exactly() {
        // 2,048 clusters a refcount block: sizes around one and two of them.
        for clusters in [2042, 2043, 2044, 2045, 2046, 4096] {
            let dir = tempfile::tempdir().unwrap();
            let content = b"x".repeat(clusters * 4096);
            let size = content.len() as u64;
            let raw = raw_disk(dir.path(), size, &[(0, &content)]);
            converted(dir.path(), &raw, size);
            check(dir.path());
        }
    }

    #[test]
    fn the_image_does_not_depend_on_how_zeros_are_stored() {
        const SIZE: u64 = 8 << 20;
        let [sparse, dense] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let holes = raw_disk(sparse.path(), SIZE, &[(3 << 20, b"data")]);
        let mut content = vec![0; 8 << 20];
        content[3 << 20..][..4].copy_from_slice(b"data");
        let full = raw_disk(dense.path(), SIZE, &[(0, &content)]);
        let image = converted(sparse.path(), &holes, SIZE);
        assert_eq!(image, converted(dense.path(), &full, SIZE));
        // Header, L1, data, L2, refcount block and table.
        assert_eq!(image.len(), 6 * 4096);
    }

    #[test]
    fn nothing_is_stored_beyond_the_end_of_the_disk() {
        // A full chunk, and a sector in the cluster after it.
        let content = b"x".repeat((1 << 20) + 512);
        let dir = tempfile::tempdir().unwrap();
        let size = content.len() as u64;
        let raw = raw_disk(dir.path(), size, &[(0, &content)]);
        let image = converted(dir.path(), &raw, size);
        check(dir.path());
        // Header, L1, 257 of data, L2, refcount block and table.
        assert_eq!(image.len(), 262 * 4096);
        assert!(
            image[258 * 4096 + 512..259 * 4096]
                .iter()
                .all(|byte| *byte == 0)
        );
    }

    #[test]
    fn a_raw_disk_of_another_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let raw = raw_disk(dir.path(), 1024, &[]);
        let image = File::create(dir.path().join("image")).unwrap();
        let geometry = Geometry::of(ByteSize::new(2048).unwrap()).unwrap();
        let error = convert(&raw, geometry, &image, &Interrupt::never().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the raw disk has 1024 bytes where 2048 were expected"
        );
    }
}
