//! Serializes paths of any bytes into JSON: serde takes only those that are UTF-8.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A path in a document that is read again.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Document<'a> {
    Text(Cow<'a, str>),
    /// Anything else, two hexadecimal digits a byte.
    Bytes {
        hex: String,
    },
}

/// Writes a path so that it can be read again.
pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    Document::of(path).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Document::deserialize(deserializer)?.path()
}

/// Writes a path for people, and for programs that take a string: what is not
/// UTF-8 in it is replaced.
pub(crate) fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The same for a path that need not be there.
#[expect(clippy::ref_option, reason = "serde hands over a field as it is")]
pub(crate) mod option {
    use super::{Deserialize as _, Deserializer, Document, PathBuf, Serialize as _, Serializer};

    /// Writes a path, if there is one, so that it can be read again.
    pub(crate) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        path.as_deref().map(Document::of).serialize(serializer)
    }

    /// Reads a path, if there is one.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        let document = Option::<Document<'_>>::deserialize(deserializer)?;
        document.map(Document::path).transpose()
    }

    /// Writes a path, if there is one, for people.
    pub(crate) fn lossy<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = path.as_deref().map(std::path::Path::to_string_lossy);
        text.serialize(serializer)
    }
}

impl<'a> Document<'a> {
    fn of(path: &'a Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.into()),
            None => Self::Bytes {
                hex: hex::encode(path.as_os_str().as_bytes()),
            },
        }
    }

    fn path<E: de::Error>(self) -> Result<PathBuf, E> {
        match self {
            Self::Text(text) => Ok(PathBuf::from(text.into_owned())),
            Self::Bytes { hex } => {
                let bytes = hex::decode(hex).map_err(E::custom)?;
                Ok(OsString::from_vec(bytes).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Paths {
        #[serde(with = "super")]
        one: PathBuf,
        #[serde(with = "super::option")]
        other: Option<PathBuf>,
    }

    #[test]
    fn every_path_is_read_as_it_was_written() {
        let odd = Path::new(OsStr::from_bytes(b"/a \xff\"\n"));
        for (one, other, json) in [
            (
                Path::new("/a/\u{e9}"),
                None,
                r#"{"one":"/a/é","other":null}"#,
            ),
            (
                odd,
                Some(odd),
                r#"{"one":{"hex":"2f6120ff220a"},"other":{"hex":"2f6120ff220a"}}"#,
            ),
        ] {
            let paths = Paths {
                one: one.to_path_buf(),
                other: other.map(Path::to_path_buf),
            };
            assert_eq!(serde_json::to_string(&paths).unwrap(), json);
            assert_eq!(serde_json::from_str::<Paths>(json).unwrap(), paths);
        }
        let broken = r#"{"one":{"hex":"2"},"other":null}"#;
        assert!(serde_json::from_str::<Paths>(broken).is_err());
    }
}
