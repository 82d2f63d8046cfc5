//! Reads what a guest writes.
//!
//! The guest controls the console and is not trusted: a line may have any bytes and
//! any length.

use core::fmt;
use std::string::String;

use crate::identity::Id;
use crate::protocol::{LINE_MAX, Message};

/// Why a line is not a message.
#[derive(Debug)]
pub enum ParseError {
    /// Kernel or shell text: it does not start as a JSON object does.
    Text,
    /// Longer than [`LINE_MAX`].
    TooLong,
    /// No JSON, or not of a message's form.
    Malformed(serde_json::Error),
    /// Well-formed, with an id that no guest can have.
    BadId,
    /// Well-formed, with a duty cycle above 100 percent.
    BadDuty,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("plain text"),
            Self::TooLong => write!(f, "longer than {LINE_MAX} bytes"),
            Self::Malformed(_) => f.write_str("not a message"),
            Self::BadId => f.write_str("a message with an impossible guest id"),
            Self::BadDuty => f.write_str("a message with a duty above 100 percent"),
        }
    }
}

impl std::error::Error for ParseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            _ => None,
        }
    }
}

/// Reads one line from a guest, with or without its end.
///
/// Texts in the message are the guest's own: a caller that prints one to a
/// terminal must escape control characters.
pub fn parse(line: &[u8]) -> Result<Message<String>, ParseError> {
    if line.len() > LINE_MAX {
        return Err(ParseError::TooLong);
    }
    if !line.starts_with(b"{") {
        return Err(ParseError::Text);
    }
    let message: Message<String> = serde_json::from_slice(line).map_err(ParseError::Malformed)?;
    let id = &message.stamp().id;
    if !id.is_empty() && id.parse::<Id>().is_err() {
        return Err(ParseError::BadId);
    }
    if let Message::Ready { status, .. } | Message::Heartbeat { status, .. } = &message
        && status.burn.duty > 100
    {
        return Err(ParseError::BadDuty);
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::vec::Vec;

    const PARKED: &str = r#"{"event":"parked","id":"","ms":812,"seq":0}"#;

    #[test]
    fn line_ends_do_not_matter() {
        for end in ["", "\n", "\r\n"] {
            let message = parse(format!("{PARKED}{end}").as_bytes()).unwrap();
            assert_eq!((message.stamp().ms, message.stamp().seq), (812, 0));
        }
    }

    #[test]
    fn unknown_fields_of_a_newer_guest_are_passed_over() {
        let newer = PARKED.replace('}', r#","mood":{"good":[1,2]}}"#);
        assert_eq!(parse(newer.as_bytes()).unwrap().stamp().ms, 812);
    }

    #[test]
    fn every_truncation_is_rejected() {
        for length in 0..PARKED.len() {
            assert!(parse(&PARKED.as_bytes()[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn kernel_text_is_text() {
        for text in [
            "",
            "[    0.1] Linux version 6.12",
            " {",
            "\u{feff}{",
            "null",
            "\0",
        ] {
            assert!(
                matches!(parse(text.as_bytes()), Err(ParseError::Text)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn hostile_lines_are_malformed() {
        let nested = format!("{{\"event\":{}", "[".repeat(LINE_MAX - 10));
        for line in [
            "{}",
            "{{{{",
            r#"{"event":"parked"}"#,
            r#"{"event":"nope","id":"","ms":0,"seq":0}"#,
            r#"{"event":"parked","id":"","ms":-1,"seq":0}"#,
            r#"{"event":"parked","id":"","ms":1e999,"seq":0}"#,
            r#"{"event":"parked","id":"","ms":18446744073709551616,"seq":0}"#,
            r#"{"event":"parked","id":7,"ms":0,"seq":0}"#,
            r#"{"event":"parked","id":"a","id":"b","ms":0,"seq":0}"#,
            r#"{"event":"reply","id":"","ms":0,"seq":0,"code":256,"output":""}"#,
            r#"{"event":"reply","id":"","ms":0,"seq":0,"code":0,"output":"\ud800"}"#,
            r#"{"event":"ready","id":"","ms":0,"seq":0,"identity":"x","disk":"up","net":"up","ssh":"up","burn":{"duty":0,"threads":1,"rounds":0}}"#,
            nested.as_str(),
            &format!("{PARKED}{PARKED}"),
        ] {
            assert!(
                matches!(parse(line.as_bytes()), Err(ParseError::Malformed(_))),
                "{line}"
            );
        }
        let not_utf8 = [&PARKED.as_bytes()[..22], b"\xff", &PARKED.as_bytes()[22..]].concat();
        assert!(parse(&not_utf8).is_err());
    }

    #[test]
    fn impossible_values_are_rejected() {
        let bad_id = PARKED.replace(r#""id":"""#, r#""id":"../../etc""#);
        assert!(matches!(parse(bad_id.as_bytes()), Err(ParseError::BadId)));
        let bad_duty = r#"{"event":"heartbeat","id":"g1","ms":0,"seq":0,"identity":"applied","disk":"up","net":"up","ssh":"up","burn":{"duty":101,"threads":1,"rounds":0}}"#;
        assert!(matches!(
            parse(bad_duty.as_bytes()),
            Err(ParseError::BadDuty)
        ));
    }

    #[test]
    fn line_longer_than_the_limit_is_rejected_unread() {
        let padding = " ".repeat(LINE_MAX - PARKED.len());
        assert!(parse(format!("{PARKED}{padding}").as_bytes()).is_ok());
        assert!(matches!(
            parse(format!("{PARKED}{padding} ").as_bytes()),
            Err(ParseError::TooLong)
        ));
    }

    #[test]
    fn no_changed_byte_panics() {
        for at in 0..PARKED.len() {
            for byte in 0..=255 {
                let mut line: Vec<u8> = PARKED.into();
                line[at] = byte;
                let _ = parse(&line);
            }
        }
    }
}
