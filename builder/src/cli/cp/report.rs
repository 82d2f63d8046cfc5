//! What `cp` says of a guest whose copy is over.

use serde_json::{Value, json};

use super::Way;
use crate::cli::ssh;
use crate::fleet::copy::Copied;
use crate::fleet::ssh::End;
use crate::units::GuestIndex;

/// Why a guest's copy failed, and what to do.
pub(super) fn why(guest: GuestIndex, copied: &Copied, way: &Way) -> Option<String> {
    let words = &copied.words;
    let why = match copied.end {
        End::Exited(0) => return None,
        End::Exited(code) => exited(guest, code, words, way),
        End::Unreachable => {
            format!("{guest} is unreachable: {words}; `imgbuild ps` says whether it is ready")
        }
        End::Late(within) => format!("{guest}: {}", ssh::lateness(within)),
    };
    Some(match way {
        Way::In { .. } if may_have_begun(copied) => {
            format!("{why}; the guest may have a part of the file")
        }
        _ => why,
    })
}

/// Whether the guest may have written before the copy failed.
fn may_have_begun(copied: &Copied) -> bool {
    match copied.end {
        // Such as `No such file or directory` and `Is a directory`: nothing was opened.
        End::Exited(_) => !copied.words.to_lowercase().contains("directory"),
        End::Unreachable | End::Late(_) => true,
    }
}

fn exited(guest: GuestIndex, code: i32, words: &str, way: &Way) -> String {
    let (verb, path, folder) = match way {
        Way::Out { from, .. } => ("read", from, "cp copies one file"),
        Way::In { to, .. } => (
            "write",
            to,
            "end the path with / to put the file into that folder",
        ),
    };
    let path = path.path().to_string_lossy();
    let words = words.strip_prefix(&format!("{path}: ")).unwrap_or(words);
    let words = match words {
        "" => format!("exit code {code}"),
        _ if words.to_lowercase().contains("is a directory") => {
            format!("{words}; {folder}")
        }
        _ => words.to_owned(),
    };
    format!("{guest}: cannot {verb} {path}: {words}")
}

pub(super) fn json(guest: GuestIndex, copied: &Copied, way: &Way, why: Option<&str>) -> Value {
    let code = match copied.end {
        End::Exited(code) => Some(code),
        End::Unreachable | End::Late(_) => None,
    };
    let mut object = json!({
        "event": "guest",
        "id": guest,
        "code": code,
        "bytes": copied.bytes,
    });
    if let Way::Out { to, .. } = way
        && let Some(path) = to.path(guest)
    {
        object["file"] = path.to_string_lossy().into();
    }
    if let Some(why) = why {
        object["error"] = why.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Source, Target};
    use super::*;
    use crate::fleet::copy::GuestPath;

    #[test]
    fn a_guest_may_have_a_part_of_what_was_on_its_way_to_it() {
        let path = || GuestPath::new("/f".as_ref()).unwrap();
        let into = Way::In {
            from: Source::Stdin,
            to: path(),
        };
        let out = Way::Out {
            from: path(),
            to: Target::Stdout,
        };
        let guest = GuestIndex::new(7).unwrap();
        let said = |end, words: &str, way| {
            let words = words.to_owned();
            let copied = Copied {
                end,
                bytes: 0,
                words,
            };
            why(guest, &copied, way).unwrap_or_default()
        };
        let part = "; the guest may have a part of the file";
        for (end, words) in [
            (End::Unreachable, "Broken pipe"),
            (End::Late(Duration::from_secs(2)), ""),
            (End::Exited(1), "/f: write: No space left on device"),
        ] {
            let there = said(end, words, &into);
            assert!(there.ends_with(part), "{there}");
            let here = said(end, words, &out);
            assert!(!here.contains(part), "{here}");
        }
        for words in [
            "/f: open: No such file or directory",
            "/f: open: Is a directory (errno 21)",
            "sh: can't create /f: nonexistent directory",
        ] {
            let there = said(End::Exited(1), words, &into);
            assert!(!there.contains(part), "{there}");
        }
        assert_eq!(said(End::Exited(0), "", &into), "");
    }
}
