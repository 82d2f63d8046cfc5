//! Has a VMM restore its guest from a template.

use super::command::{MigrateIncoming, MigrateSetCapabilities, MigrateSetParameters};
use super::connection::{Connection, Heard};
use super::error::QmpError;
use super::talk::Talk;

/// What QEMU says of a machine that runs from now on (QEMU's qapi/run-state.json).
const RUNS: &str = "RESUME";

/// Has a VMM restore its guest, which then runs.
#[derive(Debug)]
pub(crate) struct Restoration {
    connection: Connection,
    /// Where the state of the template's machine is.
    state: String,
    step: Step,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Capabilities,
    Parameters,
    Begun,
    Runs,
}

/// The guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restored;

impl Restoration {
    /// One from the state that the VMM has open at this descriptor, on a new
    /// connection.
    pub(crate) fn from_descriptor(state: i32) -> Self {
        let mut connection = Connection::default();
        connection.ask(&MigrateSetCapabilities::IGNORE_SHARED);
        Self {
            connection,
            state: format!("fd:{state}"),
            step: Step::Capabilities,
        }
    }
}

impl Talk for Restoration {
    type Outcome = Restored;

    fn outgoing(&mut self) -> &mut Vec<u8> {
        self.connection.outgoing()
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<Option<Restored>, QmpError> {
        while let Some(heard) = self.connection.hear(&mut bytes)? {
            match heard {
                Heard::Answer(_) if self.step == Step::Capabilities => {
                    self.connection.ask(&MigrateSetParameters::UNANNOUNCED);
                    self.step = Step::Parameters;
                }
                Heard::Answer(_) if self.step == Step::Parameters => {
                    self.connection.ask(&MigrateIncoming {
                        uri: self.state.clone(),
                    });
                    self.step = Step::Begun;
                }
                Heard::Answer(_) => self.step = Step::Runs,
                // It may come before the answer.
                Heard::Event(name)
                    if name == RUNS && matches!(self.step, Step::Begun | Step::Runs) =>
                {
                    return Ok(Some(Restored));
                }
                Heard::Event(_) => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;
    const DONE: &str = r#"{"return": {}}"#;

    fn event(name: &str) -> String {
        format!(r#"{{"timestamp": {{"seconds": 1, "microseconds": 2}}, "event": "{name}"}}"#)
    }

    /// What a restoration comes to that hears these lines, and what it sent.
    fn heard(lines: &[&str]) -> (Result<Option<Restored>, QmpError>, String) {
        let mut restoration = Restoration::from_descriptor(14);
        let mut outcome = Ok(None);
        for line in lines {
            outcome = restoration.take(format!("{line}\r\n").as_bytes());
            if outcome != Ok(None) {
                break;
            }
        }
        let sent = std::mem::take(restoration.outgoing());
        (outcome, String::from_utf8(sent).unwrap())
    }

    #[test]
    fn a_guest_is_restored_once_its_machine_runs() {
        let (stopped, runs) = (event("STOP"), event("RESUME"));
        for lines in [
            [GREETING, DONE, DONE, DONE, DONE, &stopped, &runs],
            // An answer may come after what it began.
            [GREETING, DONE, DONE, DONE, &stopped, &runs, DONE],
        ] {
            let (outcome, sent) = heard(&lines);
            assert_eq!(outcome, Ok(Some(Restored)));
            assert!(
                sent.ends_with(
                    "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"fd:14\"}}\n"
                ),
                "{sent}"
            );
            let before: Vec<_> = lines.into_iter().filter(|line| *line != runs).collect();
            assert_eq!(heard(&before).0, Ok(None));
        }
    }

    #[test]
    fn one_that_cannot_be_restored_says_why() {
        let refusal = r#"{"error": {"class": "GenericError", "desc": "no such capability"}}"#;
        for lines in [
            &[GREETING, DONE, refusal][..],
            &[GREETING, DONE, DONE, refusal],
            &[GREETING, DONE, DONE, DONE, refusal],
        ] {
            let error = heard(lines).0.unwrap_err().to_string();
            assert!(error.contains("no such capability"), "{error}");
        }
        // Nothing runs before it was told what from.
        assert_eq!(heard(&[GREETING, DONE, &event("RESUME")]).0, Ok(None));
        assert!(heard(&[GREETING, DONE, "x"]).0.is_err());
    }
}
