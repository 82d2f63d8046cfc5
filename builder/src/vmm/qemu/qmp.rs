//! QEMU's monitor protocol (QEMU's docs/interop/qmp-spec): what a guest's VMM
//! says of itself, asked for one thing at a time.
//!
//! Without input or output of its own: bytes in, bytes out. Whoever has broken
//! out of a guest answers here, so nothing is believed and everything is
//! bounded.

use serde::Deserialize;
use serde_json::Value;

use crate::text::printable;
use crate::vmm::Machine;

/// Longest message that is taken, in bytes; a greeting has 200.
const MESSAGE_MAX: usize = 8 * 1024;
/// Most messages that are taken for one inquiry: events may come in between.
const MESSAGES_MAX: u32 = 32;
/// Most characters quoted of an answer.
const QUOTED: usize = 80;

/// An answer that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QmpError {
    /// No JSON, or not what was asked for.
    #[error("its monitor sent a message that is not QMP: `{0}`")]
    Garbage(String),
    /// Without end, or too many.
    #[error("its monitor sent more than {MESSAGE_MAX} bytes at once, or {MESSAGES_MAX} messages")]
    TooLong,
    #[error("its monitor refused: {0}")]
    Refused(String),
}

/// Asks a VMM how it is, and has it go on after a failed access to a disk: what
/// failed is tried again, and may have room now.
#[derive(Debug, Default)]
pub(crate) struct Inquiry {
    /// A message that has not come to its end.
    partial: Vec<u8>,
    step: Step,
    messages: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Step {
    #[default]
    Greeting,
    Capabilities,
    Status,
    Continued,
}

/// A message of QEMU's. Others, such as events, have none of these fields.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

#[derive(Deserialize)]
struct Status {
    status: String,
}

impl Inquiry {
    /// Takes what QEMU said, and puts what is to be sent into `outgoing`; gives
    /// the answer once it is there.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<Option<Machine>, QmpError> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.len() + piece.len() > MESSAGE_MAX {
                return Err(QmpError::TooLong);
            }
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                if let Some(state) = self.hear(&line, outgoing)? {
                    return Ok(Some(state));
                }
            }
        }
        Ok(None)
    }

    fn hear(&mut self, line: &[u8], outgoing: &mut Vec<u8>) -> Result<Option<Machine>, QmpError> {
        self.messages += 1;
        if self.messages > MESSAGES_MAX {
            return Err(QmpError::TooLong);
        }
        let garbage = || QmpError::Garbage(quoted(&String::from_utf8_lossy(line)));
        let message: Message = serde_json::from_slice(line).map_err(|_| garbage())?;
        if let Some(Refusal { desc }) = message.error {
            return Err(QmpError::Refused(quoted(&desc)));
        }
        let step = self.step;
        let mut ask = |command: &str, step| {
            outgoing.extend_from_slice(format!("{{\"execute\":\"{command}\"}}\n").as_bytes());
            self.step = step;
        };
        match (step, message.greeting, message.answer) {
            (Step::Greeting, Some(_), _) => ask("qmp_capabilities", Step::Capabilities),
            (Step::Capabilities, _, Some(_)) => ask("query-status", Step::Status),
            (Step::Status, _, Some(answer)) => {
                let Status { status } = serde_json::from_value(answer).map_err(|_| garbage())?;
                match machine(&status) {
                    Machine::DiskFailed => ask("cont", Step::Continued),
                    state => return Ok(Some(state)),
                }
            }
            (Step::Continued, _, Some(_)) => return Ok(Some(Machine::DiskFailed)),
            // An event; before the greeting there is none.
            (Step::Greeting, ..) => return Err(garbage()),
            (_, _, None) => {}
        }
        Ok(None)
    }
}

/// The beginning of an answer, safe to print.
fn quoted(text: &str) -> String {
    printable(text.trim_end()).chars().take(QUOTED).collect()
}

/// What a `RunState` means (QEMU's qapi/run-state.json).
fn machine(state: &str) -> Machine {
    match state {
        "running" => Machine::Running,
        "io-error" => Machine::DiskFailed,
        "internal-error" | "guest-panicked" | "shutdown" => Machine::Dead,
        _ => Machine::Paused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#;
    const EVENT: &str = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}"#;

    /// What an inquiry comes to that hears these lines, and what it sent.
    fn told(lines: &[&str]) -> (Result<Option<Machine>, QmpError>, String) {
        let mut inquiry = Inquiry::default();
        let mut sent = Vec::new();
        let mut outcome = Ok(None);
        for line in lines {
            outcome = inquiry.take(format!("{line}\r\n").as_bytes(), &mut sent);
            if outcome != Ok(None) {
                break;
            }
        }
        (outcome, String::from_utf8(sent).unwrap())
    }

    fn status(name: &str) -> String {
        format!(r#"{{"return": {{"status": "{name}", "singlestep": false, "running": false}}}}"#)
    }

    #[test]
    fn a_machine_s_state_is_asked_for() {
        for (name, state) in [
            ("running", Machine::Running),
            ("paused", Machine::Paused),
            ("inmigrate", Machine::Paused),
            ("what comes in ten years", Machine::Paused),
            ("internal-error", Machine::Dead),
            ("guest-panicked", Machine::Dead),
        ] {
            let lines = [GREETING, r#"{"return": {}}"#, EVENT, &status(name)];
            let (outcome, sent) = told(&lines);
            assert_eq!(outcome, Ok(Some(state)), "{name}");
            assert_eq!(
                sent,
                "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-status\"}\n"
            );
        }
    }

    #[test]
    fn a_machine_whose_disk_failed_is_told_to_go_on() {
        let stopped = status("io-error");
        let empty = r#"{"return": {}}"#;
        let (outcome, sent) = told(&[GREETING, empty, &stopped, EVENT, empty]);
        assert_eq!(outcome, Ok(Some(Machine::DiskFailed)));
        assert!(sent.ends_with("{\"execute\":\"cont\"}\n"), "{sent}");
    }

    #[test]
    fn messages_come_in_pieces() {
        let text = format!("{GREETING}\n{{\"return\": {{}}}}\n{}\n", status("paused"));
        let mut inquiry = Inquiry::default();
        let mut sent = Vec::new();
        let mut outcomes = text
            .as_bytes()
            .chunks(7)
            .map(|chunk| inquiry.take(chunk, &mut sent).unwrap());
        let outcome = outcomes.find(Option::is_some);
        assert_eq!(outcome, Some(Some(Machine::Paused)));
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
            (&[r#"{"return": {}}"#], "not QMP"),
            (&[GREETING, "{"], "`{`"),
            (&[GREETING, refusal], "refused: no\\u{1b}[31m"),
            (&[GREETING, r#"{"error": 7}"#], "not QMP"),
            (
                &[GREETING, r#"{"return": {}}"#, r#"{"return": []}"#],
                "not QMP",
            ),
            (
                &[
                    GREETING,
                    r#"{"return": {}}"#,
                    r#"{"return": {"status": 7}}"#,
                ],
                "not QMP",
            ),
        ] {
            let error = told(lines).0.unwrap_err().to_string();
            assert!(error.contains(says), "{lines:?}: {error}");
        }
        let deep = "[".repeat(10_000);
        assert!(told(&[&deep]).0.is_err());
        let long = format!("{{\"x\": \"{}\"}}", "x".repeat(1000));
        let quoted = told(&[&long]).0.unwrap_err().to_string();
        assert!(quoted.len() < 2 * QUOTED, "{quoted}");
    }

    #[test]
    fn what_has_no_end_is_refused() {
        let mut inquiry = Inquiry::default();
        let mut sent = Vec::new();
        let flood = [b'x'; 4096];
        let refused = (0..100).find_map(|_| inquiry.take(&flood, &mut sent).err());
        assert_eq!(refused, Some(QmpError::TooLong));
        assert!(inquiry.partial.len() <= MESSAGE_MAX);

        let mut events = vec![GREETING];
        events.resize(200, EVENT);
        assert_eq!(told(&events).0, Err(QmpError::TooLong));
        // Cut short, it says nothing at all.
        assert_eq!(told(&[GREETING]).0, Ok(None));
    }
}
