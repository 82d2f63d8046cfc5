//! Makes text from outside safe to print: that of guests, archives, servers, tools
//! and file names.
//!
//! A terminal obeys what it is sent: an escape sequence renames its window, a bare
//! carriage return overwrites a line, and a change of direction disguises a name.
//! Such characters are printed as `\u{1b}`. All text that reaches a terminal, a log
//! of ours, JSON or a message passes through this module, except what a user asks
//! for unchanged (`logs` into a pipe).

use std::fmt::Write as _;
use std::io;

use serde::Serialize;

/// What a line of text shows of `text`, which is to be one line: line breaks
/// are shown as the rest is. Tabs stay.
pub(crate) fn printable(text: &str) -> String {
    shown(text, |character| character == '\t')
}

/// The same of bytes that need not be UTF-8.
pub(crate) fn printable_bytes(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes))
}

/// The same of text in several lines, which end as they do.
pub(crate) fn printable_lines(text: &str) -> String {
    // Some end in a carriage return, too, which does no harm there.
    let text = text.replace("\r\n", "\n");
    shown(&text, |character| matches!(character, '\t' | '\n'))
}

/// The same error in [`printable`] words: some libraries quote what they read.
pub(crate) fn printable_error(error: io::Error) -> io::Error {
    let words = error.to_string();
    if is_printable(&words) {
        return error;
    }
    io::Error::new(error.kind(), printable(&words))
}

/// Whether `text` is one line that is shown as it is.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.contains(is_obeyed)
}

/// A value as JSON in one line, in which such characters are escaped as JSON
/// has it: whoever reads the JSON gets them back.
pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(printable_json(&serde_json::to_string(value)?))
}

/// The same in many lines, indented.
pub(crate) fn json_pretty(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(printable_json(&serde_json::to_string_pretty(value)?))
}

/// JSON that means the same, without characters that a terminal obeys.
/// Serializers escape those below U+0020 and leave the others in strings as
/// they are (RFC 8259, section 7).
pub(crate) fn printable_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character > ' ' && is_obeyed(character) {
            // None of them needs two units of UTF-16.
            let _ = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

fn shown(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if is_obeyed(character) && !stays(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Whether a terminal does something at this character instead of showing it:
/// the control characters (C0, DEL and C1), those that begin a line or a
/// paragraph, and those with Unicode's property `Bidi_Control`.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}' | '\u{2029}'
            | '\u{61c}' | '\u{200e}' | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every character that must not reach a terminal.
    fn obeyed() -> impl Iterator<Item = char> {
        ('\0'..=' ')
            .chain('\u{7f}'..='\u{9f}')
            .chain('\u{2028}'..='\u{202e}')
            .chain('\u{2066}'..='\u{2069}')
            .filter(|character| *character != ' ')
    }

    #[test]
    fn one_line_stays_one_line_that_says_what_was_in_it() {
        for (text, safe) in [
            ("\u{1b}[2J\u{7}owned", "\\u{1b}[2J\\u{7}owned"),
            ("done\rg00001: fine", "done\\rg00001: fine"),
            ("one\nerror: two", "one\\nerror: two"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("txt.\u{202e}exe", "txt.\\u{202e}exe"),
            (
                "a\tb \u{e9} \u{1f980} \u{5d0}",
                "a\tb \u{e9} \u{1f980} \u{5d0}",
            ),
        ] {
            assert_eq!(printable(text), safe);
            assert!(is_printable(safe) || text.contains('\t'));
            assert_eq!(printable(safe), safe);
        }
        for character in obeyed().filter(|character| *character != '\t') {
            let safe = printable(&format!("a{character}b"));
            assert!(is_printable(&safe), "{safe:?}");
            assert!(safe.starts_with("a\\") && safe.ends_with('b'), "{safe:?}");
        }
        assert_eq!(printable_bytes(b"a\x9bb\xff"), "a\u{fffd}b\u{fffd}");
        let error = io::Error::new(io::ErrorKind::InvalidData, "bad `\u{1b}c`");
        let error = printable_error(error);
        assert_eq!(error.to_string(), "bad `\\u{1b}c`");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn lines_end_as_they_do_and_no_other_way() {
        assert_eq!(
            printable_lines("one\r\ntwo\rthree\n\u{1b}[A\n"),
            "one\ntwo\\rthree\n\\u{1b}[A\n"
        );
    }

    #[test]
    fn json_is_safe_to_show_and_means_the_same() {
        let all: String = obeyed().chain("\u{e9}\u{1f980}\"\\/ ".chars()).collect();
        for json in [json(&all).unwrap(), json_pretty(&[&all]).unwrap()] {
            assert!(json.lines().all(is_printable), "{json:?}");
            assert!(
                json.contains("\\u009b") && json.contains("\\u202e"),
                "{json}"
            );
            let back: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(back.get(0).unwrap_or(&back), &*all);
        }
    }
}
