//! Addresses to download from.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use serde::{Deserialize, Serialize};

/// An address of http or https, with whatever its user needs to be let in.
///
/// Only the request has all of it. A message, a manifest and the cache have what
/// this displays as: without user name and password, and without the query,
/// which may hold a token under any name. A digest tells which file it was.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Url);

/// A text that is not such an address. It is not quoted: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the address is malformed: {0}")]
    Malformed(String),
    /// It is of something that is not downloaded here.
    #[error(
        "an address begins with https:// or http://; fetch other files yourself, and give their \
         path"
    )]
    Scheme,
}

impl Address {
    /// An address that a server named.
    pub(crate) fn of(url: &Url) -> Self {
        Self(url.clone())
    }

    /// All of it, for the request.
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }

    /// The name of its file, if it has one.
    pub(crate) fn file_name(&self) -> Option<&str> {
        self.0.path_segments().and_then(Iterator::last)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text).map_err(|error| AddressError::Malformed(error.to_string()))?;
        match url.scheme() {
            "http" | "https" => Ok(Self(url)),
            _ => Err(AddressError::Scheme),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        // Both are refused for addresses without a host, and these have one.
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        shown.set_query(None);
        shown.set_fragment(None);
        shown.fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_its_user_in_is_for_the_request_alone() {
        for (text, shown) in [
            (
                "https://example.org/linux.tar.xz",
                "https://example.org/linux.tar.xz",
            ),
            (
                "https://me:secret@example.org:8443/a",
                "https://example.org:8443/a",
            ),
            ("http://secret@example.org/a", "http://example.org/a"),
            ("https://:secret@example.org/", "https://example.org/"),
            (
                "https://example.org/a?X-Amz-Signature=secret#secret",
                "https://example.org/a",
            ),
            ("https:me:secret@example.org", "https://example.org/"),
        ] {
            let address: Address = text.parse().unwrap();
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(json, format!("\"{shown}\""));
            assert_eq!([address.to_string(), format!("{address:?}")], [shown; 2]);
            assert_eq!(
                address.url().as_str().contains("secret"),
                text.contains("secret")
            );
        }
    }

    #[test]
    fn what_is_no_address_is_not_quoted() {
        for text in [
            "https://me:secret@example.org:99999/",
            "http://me:secret@/a",
            "ftp://me:secret@example.org/a",
            "secret",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(
                error.contains("address") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
