//! What `cp` copies from and to, as the user types it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::str::FromStr as _;

use crate::control::select::Selector;
use crate::fleet::copy::GuestPath;
use crate::units::GuestIndex;

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// stdin, or stdout.
    Stream,
    Here(PathBuf),
    Guests(Whose, GuestPath),
}

/// The guests before the colon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    One(GuestIndex),
    /// Whatever number the fleet has of these.
    These(Selector),
    /// None is named: all are meant.
    All,
}

impl Place {
    /// Reads `-`, a path, or `GUESTS:PATH`. As for scp(1), what has a slash before
    /// its first colon is a path.
    pub(super) fn parse(text: &OsStr) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let colon = bytes.iter().position(|byte| *byte == b':');
        let colon = colon.filter(|colon| !bytes[..*colon].contains(&b'/'));
        let Some(colon) = colon else {
            return Ok(match text {
                text if text == "-" => Self::Stream,
                text => Self::Here(text.into()),
            });
        };
        let shown = text.to_string_lossy();
        let path = OsStr::from_bytes(&bytes[colon + 1..]);
        let path = GuestPath::new(path).map_err(|error| format!("`{shown}`: {error}"))?;
        let guests = OsString::from(OsStr::from_bytes(&bytes[..colon]));
        let guests = guests.to_string_lossy();
        if guests.is_empty() {
            return Ok(Self::Guests(Whose::All, path));
        }
        let selector = Selector::from_str(&guests).map_err(|error| {
            format!("{error} before the colon; a file of that name here is ./{shown}")
        })?;
        let whose = match selector {
            Selector::Range(first, last) if first == last => Whose::One(first),
            selector => Whose::These(selector),
        };
        Ok(Self::Guests(whose, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_by_its_colon() {
        let parse = |text: &str| Place::parse(text.as_ref());
        let path = |path: &str| GuestPath::new(path.as_ref()).unwrap();
        let seven = Whose::One(GuestIndex::new(7).unwrap());
        for (text, place) in [
            ("-", Place::Stream),
            ("file", Place::Here("file".into())),
            ("./a:b", Place::Here("./a:b".into())),
            ("/a:b", Place::Here("/a:b".into())),
            ("g00007:/f", Place::Guests(seven.clone(), path("/f"))),
            ("7:f:g", Place::Guests(seven, path("f:g"))),
            (":/f", Place::Guests(Whose::All, path("/f"))),
            (
                "3-5:/f",
                Place::Guests(Whose::These("3-5".parse().unwrap()), path("/f")),
            ),
            (
                "g0*:/f",
                Place::Guests(Whose::These("g0*".parse().unwrap()), path("/f")),
            ),
        ] {
            assert_eq!(parse(text), Ok(place), "{text}");
        }
        for (text, said) in [
            ("a:b", "a file of that name here is ./a:b"),
            ("7:", "give a path behind the colon"),
            ("7:it's", "without single quotes"),
            ("7:~root/f", "a file of that name is ./~root/f"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
