//! Versions of programs and kernels.

use std::fmt;

/// A version's major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// What a text begins with, such as `7.2` of `7.2.22 (Debian …)`.
    pub fn at_start_of(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit());
        let minor = &rest[..end.unwrap_or(rest.len())];
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_what_a_text_begins_with() {
        for (text, version) in [
            ("7.2.22 (Debian 1:7.2)", Some(Version(7, 2))),
            ("10.0", Some(Version(10, 0))),
            ("6.12-rc1", Some(Version(6, 12))),
            ("10", None),
            ("x.2", None),
            ("7.x", None),
            ("", None),
        ] {
            assert_eq!(Version::at_start_of(text), version, "{text}");
        }
        assert!(Version(10, 0) > Version(9, 9));
        assert_eq!(Version(7, 2).to_string(), "7.2");
    }
}
