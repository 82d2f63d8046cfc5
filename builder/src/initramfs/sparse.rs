//! Files with holes, as GNU tar and bsdtar keep them in archives of the pax form:
//! the parts that are not holes, and a map of where they go ("Storing Sparse Files"
//! in GNU tar's manual, versions 0.0, 0.1 and 1.0).

use std::collections::VecDeque;
use std::io::{self, Read};

/// Most parts of one file: the map of a million takes 16 MiB.
const MAX_PARTS: u32 = 1 << 20;

/// Tar's unit: version 1.0 fills up its map to a whole number of them.
const BLOCK: usize = 512;

/// Where a part goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    offset: u64,
    length: u64,
}

/// What the records `GNU.sparse.*` of an entry say.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The file's name: the entry's own says that it is sparse, and to whom.
    pub(super) name: Option<Vec<u8>>,
    /// Size of the file, with its holes.
    pub(super) size: Option<u64>,
    /// The map of versions 0.0 and 0.1.
    map: Vec<u64>,
    /// In version 1.0 the map stands before the content.
    map_is_in_content: bool,
}

impl Records {
    /// Whether there is a map, and not the size of the file that it is for.
    pub(super) fn is_without_size(&self) -> bool {
        self.size.is_none() && (self.map_is_in_content || !self.map.is_empty())
    }

    /// Takes the record `GNU.sparse.` and `key`.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"realsize" | b"size" => self.size = Some(number(value)?),
            b"major" => self.map_is_in_content = number(value)? == 1,
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').map(number);
                self.map = numbers.collect::<io::Result<_>>()?;
            }
            b"offset" | b"numbytes" => self.map.push(number(value)?),
            _ => {}
        }
        if self.map.len() as u64 > 2 * u64::from(MAX_PARTS) {
            return Err(too_many());
        }
        Ok(())
    }
}

/// A file with its holes filled by zeros.
#[derive(Debug)]
pub(super) struct Sparse<R> {
    /// The parts, one after the other.
    inner: R,
    /// Those that are not read yet.
    parts: VecDeque<Part>,
    at: u64,
    size: u64,
}

impl<R: Read> Sparse<R> {
    /// The file of `size` bytes, of whose entry `inner` is the content.
    pub(super) fn new(mut inner: R, records: Records, size: u64) -> io::Result<Self> {
        let numbers = if records.map_is_in_content {
            read_map(&mut inner)?
        } else {
            records.map
        };
        let (pairs, []) = numbers.as_chunks() else {
            return Err(io::Error::other("its map of holes is cut off"));
        };
        let mut end = 0;
        let mut parts = VecDeque::with_capacity(pairs.len());
        for &[offset, length] in pairs {
            let part = Part { offset, length };
            if offset < end {
                return Err(io::Error::other("its map of holes runs backwards"));
            }
            end = offset.saturating_add(length);
            if end > size {
                let reason = format!("its map of holes ends at {end}, and the file at {size}");
                return Err(io::Error::other(reason));
            }
            parts.push_back(part);
        }
        Ok(Self {
            inner,
            parts,
            at: 0,
            size,
        })
    }
}

impl<R: Read> Read for Sparse<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.parts.front().is_some_and(|part| part.length == 0) {
            self.parts.pop_front();
        }
        let next = self.parts.front_mut();
        let hole = next.as_ref().map_or(self.size, |part| part.offset) - self.at;
        let count = |most: u64| usize::try_from(most).map_or(buffer.len(), |n| n.min(buffer.len()));
        let read = match next {
            Some(part) if hole == 0 => {
                let wanted = count(part.length);
                let read = self.inner.read(&mut buffer[..wanted])?;
                part.offset += read as u64;
                part.length -= read as u64;
                read
            }
            _ => {
                let zeros = count(hole);
                buffer[..zeros].fill(0);
                zeros
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}

/// The map that stands before the content: how many parts there are, then an offset
/// and a length of each, each number on a line of its own.
fn read_map(content: &mut impl Read) -> io::Result<Vec<u64>> {
    let mut block = [0; BLOCK];
    let mut line = Vec::new();
    let mut numbers = Vec::new();
    let mut wanted = None;
    loop {
        content.read_exact(&mut block)?;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let value = number(&line)?;
            line.clear();
            match wanted {
                None if value > MAX_PARTS.into() => return Err(too_many()),
                None => wanted = Some(2 * value),
                Some(_) => numbers.push(value),
            }
            if wanted == Some(numbers.len() as u64) {
                return Ok(numbers);
            }
        }
        // No number is as long.
        if line.len() > BLOCK {
            return Err(not_a_number());
        }
    }
}

fn number(text: &[u8]) -> io::Result<u64> {
    let text = str::from_utf8(text).ok();
    let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(not_a_number)
}

fn not_a_number() -> io::Error {
    io::Error::other("a number in its map of holes makes no sense")
}

fn too_many() -> io::Error {
    io::Error::other(format!("it has over {MAX_PARTS} parts between holes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(records: Records, inner: &[u8]) -> io::Result<Vec<u8>> {
        let size = records.size.unwrap();
        let mut content = Vec::new();
        Sparse::new(inner, records, size)?
            .take(64)
            .read_to_end(&mut content)?;
        Ok(content)
    }

    fn records(list: &[(&str, &str)]) -> io::Result<Records> {
        let mut records = Records::default();
        for (key, value) in list {
            records.take(key.as_bytes(), value.as_bytes())?;
        }
        Ok(records)
    }

    /// A map of version 1.0, filled up, and what follows it.
    fn with_map(map: &str, rest: &str) -> Vec<u8> {
        let mut bytes = map.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes.extend_from_slice(rest.as_bytes());
        bytes
    }

    #[test]
    fn holes_are_zeros_in_every_version() {
        let expected = b"\0\0ab\0\0\0c\0\0";
        let map = [("major", "1"), ("minor", "0"), ("realsize", "10")];
        let inner = with_map("2\n2\n2\n7\n1\n", "abc");
        assert_eq!(content(records(&map).unwrap(), &inner).unwrap(), expected);
        let map = [("size", "10"), ("numblocks", "2"), ("map", "2,2,7,1")];
        assert_eq!(content(records(&map).unwrap(), b"abc").unwrap(), expected);
        let map = [
            ("size", "10"),
            ("numblocks", "2"),
            ("offset", "2"),
            ("numbytes", "2"),
            ("offset", "7"),
            ("numbytes", "1"),
        ];
        assert_eq!(content(records(&map).unwrap(), b"abc").unwrap(), expected);
        // A file that is one hole, and the part without bytes that GNU tar ends with.
        let map = [("size", "3"), ("map", "3,0")];
        assert_eq!(content(records(&map).unwrap(), b"").unwrap(), b"\0\0\0");
    }

    #[test]
    fn a_map_needs_the_size_of_its_file() {
        for (map, is_without) in [
            (&[("major", "1")][..], true),
            (&[("map", "0,1")], true),
            (&[("map", "0,1"), ("size", "1")], false),
            (&[("name", "x")], false),
        ] {
            assert_eq!(
                records(map).unwrap().is_without_size(),
                is_without,
                "{map:?}"
            );
        }
    }

    #[test]
    fn maps_that_make_no_sense_are_refused() {
        let huge = u64::MAX.to_string();
        for (map, reason) in [
            ("2,2,3,1", "runs backwards"),
            ("2,2,7", "cut off"),
            ("2,9", "ends at 11, and the file at 10"),
            (&format!("2,{huge}"), "and the file at 10"),
            ("2,x", "makes no sense"),
            ("", "makes no sense"),
            ("-1,2", "makes no sense"),
        ] {
            let records = records(&[("size", "10"), ("map", map)]);
            let error = records.and_then(|records| content(records, b"abcdefghij"));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(reason), "{map}: {error}");
        }
        let in_content = [("major", "1"), ("realsize", "10")];
        for (inner, reason) in [
            (with_map("9999999999\n", ""), "over 1048576 parts"),
            (with_map(&"1".repeat(600), ""), "makes no sense"),
            (b"1\n0\n".to_vec(), "failed to fill whole buffer"),
            (with_map("2\n0\n1\n", ""), "failed to fill whole buffer"),
        ] {
            let records = records(&in_content).unwrap();
            let error = content(records, &inner).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let many = vec![("offset", "0"); (2 << 20) + 1];
        assert!(records(&many).is_err());
    }
}
