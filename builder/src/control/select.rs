//! Selects guests by what a user types: `g00007`, `7`, `g0*`, `100-199`.

use std::fmt;
use std::str::FromStr;

use crate::units::GuestIndex;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Those numbered from the first to the last.
    Range(GuestIndex, GuestIndex),
    /// Those whose id matches: `*` is any text, `?` any character.
    Glob(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectError {
    #[error("`{0}` selects no guests: use g00007, 7, 100-199 or g000*")]
    Form(String),
    /// No guest of the fleet is one of these.
    #[error("this fleet has no guest `{0}`; `imgbuild ps` lists its guests")]
    Nobody(Selector),
}

impl FromStr for Selector {
    type Err = SelectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || SelectError::Form(text.to_owned());
        if text.contains(['*', '?']) {
            let is_known = |byte: u8| byte.is_ascii_digit() || b"g*?".contains(&byte);
            return if text.bytes().all(is_known) {
                Ok(Self::Glob(text.to_owned()))
            } else {
                Err(form())
            };
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first = guest(first).ok_or_else(form)?;
        let last = guest(last).ok_or_else(form)?;
        if first > last {
            return Err(form());
        }
        Ok(Self::Range(first, last))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(first, last) if first == last => write!(f, "{first}"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
            Self::Glob(glob) => f.write_str(glob),
        }
    }
}

/// Reads one guest, by its id or its number.
pub(crate) fn one(text: &str) -> Result<GuestIndex, String> {
    guest(text).ok_or_else(|| format!("`{text}` does not name a guest: use g00007 or 7"))
}

/// A guest by its id or its number.
fn guest(text: &str) -> Option<GuestIndex> {
    if text.starts_with('g') {
        return text.parse().ok();
    }
    // A number's own parser takes a sign, too.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    GuestIndex::new(text.parse().ok().filter(|_| digits)?).ok()
}

impl Selector {
    /// Whether a guest is one of these.
    pub(crate) fn matches(&self, guest: GuestIndex) -> bool {
        match self {
            Self::Range(first, last) => (first..=last).contains(&&guest),
            Self::Glob(glob) => is_match(glob.as_bytes(), guest.to_string().as_bytes()),
        }
    }
}

/// Whether a text matches: on a mismatch the last `*` takes one byte more.
fn is_match(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut taken) = (0, 0);
    let mut star = None;
    while taken < text.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, taken));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[taken] => {
                at += 1;
                taken += 1;
            }
            _ => match &mut star {
                Some((star, from)) => {
                    *from += 1;
                    (at, taken) = (*star + 1, *from);
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|byte| *byte == b'*')
}

/// Those of `guests` that any of the selectors names, each once; all of them
/// without selectors.
pub(crate) fn select(
    selectors: &[Selector],
    guests: impl Iterator<Item = GuestIndex>,
) -> Result<Vec<GuestIndex>, SelectError> {
    let guests: Vec<_> = guests.collect();
    let unmatched = |selector: &&Selector| !guests.iter().any(|guest| selector.matches(*guest));
    if let Some(selector) = selectors.iter().find(unmatched) {
        return Err(SelectError::Nobody(selector.clone()));
    }
    let wanted = |guest: &GuestIndex| {
        selectors.is_empty() || selectors.iter().any(|selector| selector.matches(*guest))
    };
    Ok(guests.into_iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::GuestRange;

    fn selected(words: &[&str]) -> Result<Vec<u32>, SelectError> {
        let selectors: Result<Vec<Selector>, _> = words.iter().map(|word| word.parse()).collect();
        let guests = GuestRange::first(20).unwrap();
        let found = select(&selectors?, guests.iter())?;
        Ok(found.into_iter().map(GuestIndex::get).collect())
    }

    #[test]
    fn selectors_name_guests() {
        for (words, guests) in [
            (&["g00007"][..], vec![7]),
            (&["7"], vec![7]),
            (&["007"], vec![7]),
            (&["18-99999"], vec![18, 19]),
            (&["g00003-g00005"], vec![3, 4, 5]),
            (&["3-g00005"], vec![3, 4, 5]),
            (&["g0001?"], (10..20).collect()),
            (&["g*1"], vec![1, 11]),
            (&["*1*9"], vec![19]),
            (&["g?0*08*"], vec![8]),
            (&["9", "0-1", "g00000"], vec![0, 1, 9]),
            (&["*"], (0..20).collect()),
            (&[], (0..20).collect()),
        ] {
            assert_eq!(selected(words), Ok(guests), "{words:?}");
        }
    }

    #[test]
    fn one_guest_is_named_by_id_or_number() {
        let seven = GuestIndex::new(7).unwrap();
        assert_eq!([one("g00007"), one("7")], [Ok(seven), Ok(seven)]);
        for text in ["", "g7", "7-8", "g*", "-1", "100000"] {
            assert!(one(text).unwrap_err().contains("use g00007 or 7"), "{text}");
        }
    }

    #[test]
    fn what_selects_nobody_is_named() {
        for word in [
            "",
            "g7",
            "-1",
            "+7",
            "1-",
            "-",
            "5-3",
            "1-2-3",
            "x*",
            "all",
            "100000",
            "g000 7",
            "٧",
            "99999999999",
        ] {
            assert_eq!(
                selected(&[word]),
                Err(SelectError::Form(word.to_owned())),
                "{word}"
            );
        }
        for word in ["20", "30-40", "g1*", "?"] {
            let error = selected(&["1", word]).unwrap_err();
            assert!(matches!(error, SelectError::Nobody(_)), "{word}");
        }
        assert!(
            selected(&["20"])
                .unwrap_err()
                .to_string()
                .contains("`g00020`")
        );
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let glob = "*0".repeat(10_000);
        assert!(!is_match(glob.as_bytes(), "0".repeat(1_000).as_bytes()));
    }
}
