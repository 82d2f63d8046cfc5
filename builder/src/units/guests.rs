//! Guests by their numbers.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Most guests a fleet may have, and so most overlays a folder may hold: what
/// five digits can name.
pub const MAX_GUESTS: u32 = 100_000;

/// A guest's number, below [`MAX_GUESTS`]; printed as `g00000`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
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

    /// Whether this is the guest with which a fleet begins unless it is told
    /// otherwise.
    pub fn is_first(&self) -> bool {
        *self == Self::default()
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

impl JsonSchema for GuestIndex {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "GuestIndex".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^g[0-9]{5}$" })
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

/// Consecutive guests, possibly none, and which place each has among them: a
/// guest's number is turned into a place of a list here alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct GuestRange {
    first: GuestIndex,
    count: u32,
}

impl GuestRange {
    /// The guests from `start` up to, without, `end`.
    pub fn new(start: u32, end: u32) -> Result<Self, GuestIndexError> {
        if end > MAX_GUESTS {
            Err(GuestIndexError::TooLarge(end - 1))
        } else if end < start {
            Err(GuestIndexError::Backwards { start, end })
        } else {
            Ok(Self {
                first: GuestIndex::new(start)?,
                count: end - start,
            })
        }
    }

    /// The first `count` guests, g00000 onward.
    pub fn first(count: u32) -> Result<Self, GuestIndexError> {
        Self::new(0, count)
    }

    /// So many guests, from this one on.
    pub fn starting_at(first: GuestIndex, count: u32) -> Result<Self, GuestIndexError> {
        Self::new(first.0, first.0.saturating_add(count))
    }

    /// This guest alone.
    pub const fn one(guest: GuestIndex) -> Self {
        Self {
            first: guest,
            count: 1,
        }
    }

    /// How many guests these are.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// The guest with which they begin, if there are any.
    pub const fn begin(self) -> GuestIndex {
        self.first
    }

    /// The number that follows the last guest's: what is counted by the guests'
    /// numbers has to hold so many, whichever the first guest is.
    pub const fn end(self) -> u32 {
        self.first.0 + self.count
    }

    /// The first `count` of them, or all if there are fewer, and the rest.
    pub fn split_at(self, count: u32) -> (Self, Self) {
        let count = count.min(self.count);
        let some = Self { count, ..self };
        let rest = Self {
            // Where there is no rest, its beginning is of no matter.
            first: GuestIndex::new(self.first.0 + count).unwrap_or_default(),
            count: self.count - count,
        };
        (some, rest)
    }

    /// Whether this is one of them.
    pub fn contains(self, guest: GuestIndex) -> bool {
        (self.first.0..self.end()).contains(&guest.0)
    }

    /// The place of a guest in a list of these; `None` if it is not one of them.
    pub fn place_of(self, guest: GuestIndex) -> Option<usize> {
        self.contains(guest)
            .then(|| (guest.0 - self.first.0) as usize)
    }

    /// Each guest, in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = GuestIndex> {
        (self.first.0..self.end()).map(GuestIndex)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn guests_and_overlays_share_a_five_digit_number() {
        let last = GuestIndex::new(99_999).unwrap();
        assert_eq!(last.to_string(), "g99999");
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
        let last = GuestIndex::new(MAX_GUESTS - 1).unwrap();
        assert_eq!(GuestRange::one(last).iter().collect::<Vec<_>>(), [last]);
        for count in [2, u32::MAX] {
            assert!(GuestRange::starting_at(last, count).is_err());
        }
    }

    proptest! {
        #[test]
        fn each_guest_has_the_place_that_a_list_gives_it(
            first in 0..MAX_GUESTS,
            count in 0_u32..300,
            number in 0..MAX_GUESTS,
            split in 0_u32..400,
        ) {
            let first = GuestIndex::new(first).unwrap();
            let Ok(guests) = GuestRange::starting_at(first, count) else {
                prop_assert!(first.get() + count > MAX_GUESTS);
                return Ok(());
            };
            prop_assert_eq!(guests.end(), first.get() + count);
            let list: Vec<_> = guests.iter().collect();
            prop_assert_eq!(list.len(), guests.count() as usize);
            let (some, rest) = guests.split_at(split);
            prop_assert_eq!(some.count(), split.min(count));
            prop_assert!(some.iter().chain(rest.iter()).eq(list.iter().copied()));
            prop_assert!(list.first().is_none_or(|begin| *begin == first));
            // Any guest, and those at both ends, inside and out.
            let near = [number, first.get(), first.get().saturating_sub(1), guests.end()];
            for guest in near.into_iter().flat_map(GuestIndex::new) {
                let place = list.iter().position(|listed| *listed == guest);
                prop_assert_eq!(guests.place_of(guest), place);
                prop_assert_eq!(guests.contains(guest), place.is_some());
            }
        }
    }
}
