//! Sizes and guest numbers as values that are right by construction.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod instance;

pub use instance::Instance;

/// Most guests a fleet may have, and so most overlays a folder may hold: what
/// five digits can name.
pub const MAX_GUESTS: u32 = 100_000;

/// The suffixes of a size, largest first, as powers of two.
const SUFFIXES: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// A size in bytes, never zero.
///
/// Reads what QEMU's size options read, whole numbers only: `1073741824`,
/// `1G`, `1GiB`. Every suffix is a power of 1,024. Prints the largest suffix
/// that loses nothing, and so reads back as the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(NonZeroU64);

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseByteSizeError {
    /// Neither digits alone nor digits with a known suffix.
    #[error(
        "`{0}` is not a size: give whole bytes, or a whole number with K, M, G or T \
         (powers of 1,024; KiB, MiB, GiB and TiB mean the same), such as 1G"
    )]
    Form(String),
    /// More than 64 bits hold.
    #[error(
        "`{0}` is too large a size: the largest is 18446744073709551615 bytes, just under 16777216T"
    )]
    Overflow(String),
    /// Nothing can be zero bytes long.
    #[error("`{0}` is too small a size: give at least 1 byte")]
    Zero(String),
}

impl ByteSize {
    /// A size of `bytes`; `None` for zero.
    pub const fn new(bytes: u64) -> Option<Self> {
        match NonZeroU64::new(bytes) {
            Some(bytes) => Some(Self(bytes)),
            None => None,
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || ParseByteSizeError::Form(text.to_owned());
        let number_end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(number_end);
        let shift = match suffix {
            "" => 0,
            _ => {
                SUFFIXES
                    .iter()
                    .find(|(letter, _)| is_suffix(suffix, *letter))
                    .ok_or_else(form)?
                    .1
            }
        };
        if number.is_empty() {
            return Err(form());
        }
        // Only digits are left, so the one way to fail is to be too large.
        let bytes = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift))
            .ok_or_else(|| ParseByteSizeError::Overflow(text.to_owned()))?;
        Self::new(bytes).ok_or_else(|| ParseByteSizeError::Zero(text.to_owned()))
    }
}

/// QEMU takes either case for the bare letter; `KiB` has one spelling.
fn is_suffix(suffix: &str, letter: char) -> bool {
    let mut rest = suffix.chars();
    let Some(first) = rest.next() else {
        return false;
    };
    match rest.as_str() {
        "" => first.eq_ignore_ascii_case(&letter),
        "iB" => first == letter,
        _ => false,
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes();
        let exact = SUFFIXES
            .iter()
            .find(|(_, shift)| bytes.trailing_zeros() >= *shift);
        match exact {
            Some((letter, shift)) => f.pad(&format!("{}{letter}", bytes >> shift)),
            None => f.pad(&bytes.to_string()),
        }
    }
}

impl TryFrom<String> for ByteSize {
    type Error = ParseByteSizeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

/// A number with a comma between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun, which takes an `s` unless there is one of it.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// A guest's number, below [`MAX_GUESTS`]; printed as `g00000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestIndex(u32);

/// Not a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestIndexError {
    /// A number past the last guest.
    #[error("there is no guest {0}: a fleet has at most 100,000, numbered 0 to 99999")]
    TooLarge(u32),
    /// A range that ends before it begins.
    #[error("guests {start} to {end} are not a range: its end comes before its start")]
    Backwards {
        /// The first guest.
        start: u32,
        /// The guest after the last.
        end: u32,
    },
    /// A text that does not name a guest.
    #[error("`{0}` does not name a guest: guests are g00000 to g99999, always five digits")]
    Form(String),
}

impl GuestIndex {
    /// The guest numbered `index`, from 0.
    pub const fn new(index: u32) -> Result<Self, GuestIndexError> {
        if index < MAX_GUESTS {
            Ok(Self(index))
        } else {
            Err(GuestIndexError::TooLarge(index))
        }
    }

    /// The number, from 0 to 99,999.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The file name of this guest's overlay: `00000.qcow2` is g00000's.
    pub fn overlay_name(self) -> String {
        format!("{:05}.qcow2", self.0)
    }
}

impl fmt::Display for GuestIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("g{:05}", self.0))
    }
}

impl FromStr for GuestIndex {
    type Err = GuestIndexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text
            .strip_prefix('g')
            .filter(|digits| digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit()));
        digits
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| GuestIndexError::Form(text.to_owned()))
    }
}

impl TryFrom<String> for GuestIndex {
    type Error = GuestIndexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<GuestIndex> for String {
    fn from(index: GuestIndex) -> Self {
        index.to_string()
    }
}

/// Consecutive guests, possibly none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestRange {
    start: u32,
    end: u32,
}

impl GuestRange {
    /// The guests from `start` up to, without, `end`.
    pub const fn new(start: u32, end: u32) -> Result<Self, GuestIndexError> {
        if end > MAX_GUESTS {
            Err(GuestIndexError::TooLarge(end - 1))
        } else if end < start {
            Err(GuestIndexError::Backwards { start, end })
        } else {
            Ok(Self { start, end })
        }
    }

    /// The first `count` guests, g00000 onward.
    pub const fn first(count: u32) -> Result<Self, GuestIndexError> {
        Self::new(0, count)
    }

    /// How many guests these are.
    pub const fn count(self) -> u32 {
        self.end - self.start
    }

    /// Each guest, in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = GuestIndex> {
        (self.start..self.end).map(GuestIndex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Result<u64, ParseByteSizeError> {
        text.parse().map(ByteSize::bytes)
    }

    #[test]
    fn sizes_read_as_qemu_reads_them() {
        for (text, bytes) in [
            ("1", 1),
            ("512", 512),
            ("1K", 1024),
            ("1k", 1024),
            ("1KiB", 1024),
            ("3M", 3 << 20),
            ("1G", 1 << 30),
            ("1g", 1 << 30),
            ("1GiB", 1 << 30),
            ("2T", 2 << 40),
            ("2TiB", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused_by_value_and_rule() {
        for text in [
            "", "G", "1.5G", "1GB", "1Gib", "1giB", "-1", "+1", " 1", "1 G", "1E", "0x10", "1GiBs",
        ] {
            assert_eq!(size(text), Err(ParseByteSizeError::Form(text.to_owned())));
        }
        for text in ["18446744073709551616", "16777216T", "99999999999999999999G"] {
            let error = size(text).unwrap_err();
            assert_eq!(error, ParseByteSizeError::Overflow(text.to_owned()));
        }
        for text in ["0", "0G"] {
            assert_eq!(size(text), Err(ParseByteSizeError::Zero(text.to_owned())));
        }
        let message = size("1.5G").unwrap_err().to_string();
        assert!(message.contains("`1.5G`") && message.contains("powers of 1,024"));
    }

    #[test]
    fn a_size_prints_in_its_largest_exact_unit_and_reads_back() {
        for (bytes, text) in [
            (1, "1"),
            (1000, "1000"),
            (1536, "1536"),
            (1 << 30, "1G"),
            (1536 << 20, "1536M"),
            (2 << 40, "2T"),
            (1 << 63, "8388608T"),
        ] {
            let value = ByteSize::new(bytes).unwrap();
            assert_eq!(value.to_string(), text);
            assert_eq!(text.parse(), Ok(value));
            assert_eq!(
                serde_json::to_string(&value).unwrap(),
                format!("\"{text}\"")
            );
        }
        let error = serde_json::from_str::<ByteSize>("\"1GB\"").unwrap_err();
        assert!(error.to_string().contains("`1GB` is not a size"));
    }

    #[test]
    fn guests_and_overlays_share_a_five_digit_number() {
        let last = GuestIndex::new(99_999).unwrap();
        assert_eq!(last.to_string(), "g99999");
        assert_eq!(last.overlay_name(), "99999.qcow2");
        assert_eq!(GuestIndex::new(0).unwrap().to_string(), "g00000");
        assert_eq!("g00042".parse(), GuestIndex::new(42));
        assert!(GuestIndex::new(100_000).is_err());
        for text in ["g42", "42", "g000042", "g+0042", "G00042", "g0004x", ""] {
            assert_eq!(
                text.parse::<GuestIndex>(),
                Err(GuestIndexError::Form(text.to_owned()))
            );
        }
    }

    #[test]
    fn a_range_holds_only_guests_that_exist() {
        let all = GuestRange::first(MAX_GUESTS).unwrap();
        assert_eq!(all.iter().len(), 100_000);
        assert!(GuestRange::first(MAX_GUESTS + 1).is_err());
        assert!(GuestRange::new(3, 2).is_err());
        assert_eq!(GuestRange::first(0).unwrap().count(), 0);
        let some = GuestRange::new(2, 4).unwrap().iter();
        assert_eq!(some.map(GuestIndex::get).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn thousands_are_parted() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (5_850, "5,850"),
            (100_000, "100,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
