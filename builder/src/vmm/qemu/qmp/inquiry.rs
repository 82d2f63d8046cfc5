//! Asks a VMM for the state of its guest's machine.

use super::command::{Command as _, Cont, QueryStatus, RunState};
use super::connection::Connection;
use super::error::QmpError;
use super::talk::Talk;
use crate::vmm::MachineState;

/// Asks a VMM how it is, and has it go on after a failed access to a disk: what
/// failed is tried again, and may have room now.
#[derive(Debug)]
pub(crate) struct Inquiry {
    connection: Connection,
    step: Step,
}

/// What is waited for.
#[derive(Debug, Clone, Copy)]
enum Step {
    Status,
    Continued,
}

impl Inquiry {
    /// One that begins on a new connection.
    pub(crate) fn begin() -> Self {
        let mut connection = Connection::default();
        connection.ask(&QueryStatus {});
        let step = Step::Status;
        Self { connection, step }
    }
}

impl Talk for Inquiry {
    type Outcome = MachineState;

    fn outgoing(&mut self) -> &mut Vec<u8> {
        self.connection.outgoing()
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<Option<MachineState>, QmpError> {
        while let Some(answer) = self.connection.answer(&mut bytes)? {
            match self.step {
                Step::Status => match machine(QueryStatus::read(answer)?.status) {
                    MachineState::DiskFailed => {
                        self.connection.ask(&Cont {});
                        self.step = Step::Continued;
                    }
                    machine => return Ok(Some(machine)),
                },
                Step::Continued => {
                    Cont::read(answer)?;
                    return Ok(Some(MachineState::DiskFailed));
                }
            }
        }
        Ok(None)
    }
}

/// What a state means.
fn machine(state: RunState) -> MachineState {
    match state {
        RunState::Running => MachineState::Running,
        RunState::IoError => MachineState::DiskFailed,
        RunState::InternalError | RunState::GuestPanicked | RunState::Shutdown => {
            MachineState::Dead
        }
        RunState::Inmigrate => MachineState::Restoring,
        RunState::Other => MachineState::Paused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#;
    const EVENT: &str = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}"#;
    const DONE: &str = r#"{"return": {}}"#;

    /// What an inquiry comes to that hears these lines, and what it sent.
    fn asked(lines: &[&str]) -> (Result<Option<MachineState>, QmpError>, String) {
        let mut inquiry = Inquiry::begin();
        let mut outcome = Ok(None);
        for line in lines {
            outcome = inquiry.take(format!("{line}\r\n").as_bytes());
            if outcome != Ok(None) {
                break;
            }
        }
        let sent = std::mem::take(inquiry.outgoing());
        (outcome, String::from_utf8(sent).unwrap())
    }

    fn status(name: &str) -> String {
        format!(r#"{{"return": {{"status": "{name}", "singlestep": false, "running": false}}}}"#)
    }

    #[test]
    fn a_machine_s_state_is_asked_for() {
        for (name, state) in [
            ("running", MachineState::Running),
            ("paused", MachineState::Paused),
            ("inmigrate", MachineState::Restoring),
            ("what comes in ten years", MachineState::Paused),
            ("internal-error", MachineState::Dead),
            ("guest-panicked", MachineState::Dead),
        ] {
            let (outcome, sent) = asked(&[GREETING, DONE, EVENT, &status(name)]);
            assert_eq!(outcome, Ok(Some(state)), "{name}");
            assert_eq!(
                sent,
                "{\"execute\":\"qmp_capabilities\",\"arguments\":{}}\n\
                 {\"execute\":\"query-status\",\"arguments\":{}}\n"
            );
        }
    }

    #[test]
    fn a_machine_whose_disk_failed_is_told_to_go_on() {
        let stopped = status("io-error");
        let (outcome, sent) = asked(&[GREETING, DONE, &stopped, EVENT, DONE]);
        assert_eq!(outcome, Ok(Some(MachineState::DiskFailed)));
        assert!(
            sent.ends_with("{\"execute\":\"cont\",\"arguments\":{}}\n"),
            "{sent}"
        );
        // Before QEMU says that it does, it is not known to.
        assert_eq!(asked(&[GREETING, DONE, &stopped, EVENT]).0, Ok(None));
    }

    #[test]
    fn messages_come_in_pieces() {
        let text = format!("{GREETING}\n{DONE}\n{}\n", status("paused"));
        let mut inquiry = Inquiry::begin();
        let mut outcomes = text
            .as_bytes()
            .chunks(7)
            .map(|chunk| inquiry.take(chunk).unwrap());
        let outcome = outcomes.find(Option::is_some);
        assert_eq!(outcome, Some(Some(MachineState::Paused)));
    }

    #[test]
    fn a_status_that_is_none_is_refused() {
        for answer in [
            r#"{"return": []}"#,
            r#"{"return": {}}"#,
            r#"{"return": {"status": 7}}"#,
            r#"{"return": {"status": {"running": 1}}}"#,
        ] {
            let error = asked(&[GREETING, DONE, answer]).0.unwrap_err().to_string();
            assert!(error.contains(answer), "{answer}: {error}");
        }
    }
}
