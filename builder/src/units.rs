//! Sizes and guest numbers as values that are right by construction.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod duty;
mod guests;
mod instance;
mod version;

pub use duty::{Duty, DutyError};
pub use guests::{GuestIndex, GuestIndexError, GuestRange, MAX_GUESTS};
pub use instance::Instance;
pub use version::Version;

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
