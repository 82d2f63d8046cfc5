//! The protocol: one message a line, the negotiation at the beginning of a
//! connection, and the bounds of both.

use serde::Deserialize;
use serde_json::Value;

use super::command::{Answer, Command, QmpCapabilities};
use super::error::{MESSAGE_MAX, MESSAGES_MAX, QmpError, quoted};

/// The near end of a connection to a monitor.
///
/// Commands are asked one at a time, so that answers need no numbers.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// A message that has not come to its end.
    partial: Vec<u8>,
    messages: u32,
    stage: Stage,
    /// Commands that wait for the end of the negotiation.
    waiting: Vec<u8>,
    outgoing: Vec<u8>,
}

/// How far the negotiation has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// QEMU greets first.
    #[default]
    Greeting,
    Capabilities,
    Open,
}

/// What QEMU says once the negotiation is over.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The answer to the last command.
    Answer(Answer),
    /// What happened, by its name.
    Event(String),
}

/// A message of QEMU's.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

impl Connection {
    /// Asks for something, once the negotiation is over.
    pub(crate) fn ask<C: Command>(&mut self, command: &C) {
        let queue = match self.stage {
            Stage::Open => &mut self.outgoing,
            Stage::Greeting | Stage::Capabilities => &mut self.waiting,
        };
        queue.extend_from_slice(command.line().as_bytes());
    }

    /// Takes as many messages as at first, for an order that takes long.
    pub(super) fn count_anew(&mut self) {
        self.messages = 0;
    }

    /// What is to be sent; whoever sends it takes it away.
    pub(crate) fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing
    }

    /// Takes what QEMU said off `bytes`, up to the next answer; what happens meanwhile
    /// is of no matter.
    pub(crate) fn answer(&mut self, bytes: &mut &[u8]) -> Result<Option<Answer>, QmpError> {
        while let Some(heard) = self.hear(bytes)? {
            if let Heard::Answer(answer) = heard {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// The same, up to the next answer or event.
    pub(crate) fn hear(&mut self, bytes: &mut &[u8]) -> Result<Option<Heard>, QmpError> {
        while let Some(line) = self.line(bytes)? {
            if let Some(heard) = self.message(line)? {
                return Ok(Some(heard));
            }
        }
        Ok(None)
    }

    /// The next whole message; its beginning is kept if its end is not there.
    fn line(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, QmpError> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (piece, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        *bytes = rest;
        if self.partial.len() + piece.len() > MESSAGE_MAX {
            return Err(QmpError::TooLong);
        }
        self.partial.extend_from_slice(piece);
        Ok(end.map(|_| std::mem::take(&mut self.partial)))
    }

    fn message(&mut self, line: Vec<u8>) -> Result<Option<Heard>, QmpError> {
        self.messages += 1;
        if self.messages > MESSAGES_MAX {
            return Err(QmpError::TooLong);
        }
        let message: Message =
            serde_json::from_slice(&line).map_err(|_| QmpError::garbage(&line))?;
        if let Some(Refusal { desc }) = message.error {
            return Err(QmpError::Refused(quoted(&desc)));
        }
        match (self.stage, message.greeting, message.answer) {
            (Stage::Greeting, Some(_), _) => {
                self.stage = Stage::Open;
                self.ask(&QmpCapabilities {});
                self.stage = Stage::Capabilities;
            }
            // Before the greeting there is no event.
            (Stage::Greeting, None, _) => return Err(QmpError::garbage(&line)),
            (Stage::Capabilities, _, Some(_)) => {
                self.stage = Stage::Open;
                self.outgoing.append(&mut self.waiting);
            }
            (Stage::Open, _, Some(value)) => {
                return Ok(Some(Heard::Answer(Answer { value, line })));
            }
            (Stage::Open, _, None) => return Ok(message.event.map(Heard::Event)),
            (Stage::Capabilities, _, None) => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::{Cont, QueryStatus};
    use super::super::error::QUOTED;
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;
    const EVENT: &str = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}"#;
    const DONE: &str = r#"{"return": {}}"#;

    /// The first answer in these lines to a command, or what is wrong with them.
    fn heard(lines: &[&str]) -> Result<Option<Value>, QmpError> {
        let mut connection = Connection::default();
        connection.ask(&QueryStatus {});
        let text = lines.join("\r\n") + "\r\n";
        let answer = connection.answer(&mut text.as_bytes())?;
        Ok(answer.map(|answer| answer.value))
    }

    #[test]
    fn a_command_waits_for_the_negotiation() {
        let mut connection = Connection::default();
        connection.ask(&QueryStatus {});
        assert!(connection.outgoing().is_empty());
        let mut hear = |line: &str| {
            let text = format!("{line}\n");
            let answer = connection.answer(&mut text.as_bytes()).unwrap();
            let sent = String::from_utf8(std::mem::take(connection.outgoing())).unwrap();
            (answer.is_some(), sent)
        };
        let (_, sent) = hear(GREETING);
        assert!(sent.contains("qmp_capabilities") && !sent.contains("query-status"));
        assert_eq!(hear(EVENT), (false, String::new()));
        let (is_answer, sent) = hear(DONE);
        assert!(!is_answer && sent.contains("query-status"), "{sent}");
        assert_eq!(hear(DONE), (true, String::new()));
        connection.ask(&Cont {});
        assert!(!connection.outgoing().is_empty());
    }

    #[test]
    fn answers_that_come_together_are_heard_one_by_one() {
        let text = format!("{GREETING}\n{DONE}\n{{\"return\": 1}}\n{EVENT}\n{{\"return\": 2}}\n");
        let mut connection = Connection::default();
        let mut bytes = text.as_bytes();
        let mut next = || connection.answer(&mut bytes).unwrap();
        assert_eq!(next().unwrap().value, 1);
        assert_eq!(next().unwrap().value, 2);
        assert!(next().is_none());
    }

    #[test]
    fn what_is_not_qmp_is_refused() {
        let refusal = r#"{"error": {"class": "GenericError", "desc": "no\u001b[31m"}}"#;
        for (lines, says) in [
            (&["hello"][..], "`hello`"),
            (&["\u{1b}[2Jhello"], "`\\u{1b}[2Jhello`"),
            (&[""], "not QMP"),
            (&["{}"], "`{}`"),
            (&["[]"], "`[]`"),
            (&["null"], "`null`"),
            (&[EVENT], "not QMP"),
            (&[DONE], "not QMP"),
            (&[GREETING, "{"], "`{`"),
            (&[GREETING, refusal], "refused: no\\u{1b}[31m"),
            (&[GREETING, DONE, refusal], "refused: no\\u{1b}[31m"),
            (&[GREETING, r#"{"error": 7}"#], "not QMP"),
            (&[GREETING, r#"{"return": {}} {"return": {}}"#], "not QMP"),
        ] {
            let error = heard(lines).unwrap_err().to_string();
            assert!(error.contains(says), "{lines:?}: {error}");
        }
        assert!(heard(&[&"[".repeat(MESSAGE_MAX / 2)]).is_err());
        let long = format!("{{\"x\": \"{}\"}}", "x".repeat(1000));
        let error = heard(&[&long]).unwrap_err().to_string();
        assert!(error.len() < 2 * QUOTED, "{error}");
        let mut connection = Connection::default();
        assert!(connection.answer(&mut &b"\xff\xfe\n"[..]).is_err());
    }

    #[test]
    fn what_has_no_end_is_refused() {
        let mut connection = Connection::default();
        let flood = [b'x'; 4096];
        let refused = (0..100).find_map(|_| connection.answer(&mut &flood[..]).err());
        assert_eq!(refused, Some(QmpError::TooLong));
        assert!(connection.partial.len() <= MESSAGE_MAX);

        // As long as may be, and a byte longer.
        let of_length = |length: usize| {
            let around = r#"{"QMP": ""}"#.len() + "\r\n".len();
            heard(&[&format!(r#"{{"QMP": "{}"}}"#, "x".repeat(length - around))])
        };
        assert_eq!(of_length(MESSAGE_MAX), Ok(None));
        assert_eq!(of_length(MESSAGE_MAX + 1), Err(QmpError::TooLong));

        let mut events = vec![GREETING];
        events.resize(200, EVENT);
        assert_eq!(heard(&events), Err(QmpError::TooLong));
    }

    #[test]
    fn what_is_cut_short_says_nothing() {
        let text = format!("{GREETING}\n{DONE}\n{DONE}\n");
        for length in 0..text.len() {
            let mut connection = Connection::default();
            let answer = connection.answer(&mut &text.as_bytes()[..length]);
            assert!(answer.unwrap().is_none(), "{length} bytes");
        }
    }
}
