//! Has a VMM give the state of its guest's machine away.

use super::command::{
    Command as _, Migrate, MigrateSetCapabilities, Migration, MigrationStatus, QueryMigrate,
};
use super::connection::Connection;
use super::error::QmpError;
use super::talk::Talk;

/// Has a VMM stop its guest and send the state of the machine to a socket.
#[derive(Debug)]
pub(crate) struct Capture {
    connection: Connection,
    uri: String,
    step: Step,
}

/// What is waited for.
#[derive(Debug, Clone, Copy)]
enum Step {
    Capabilities,
    Begun,
    Status,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Captured {
    /// QEMU began: the state comes.
    Begun,
    /// All of it was sent, and the machine stands still.
    Whole,
    /// It is not over: ask again.
    NotYet,
    /// It came to nothing, for this reason.
    Failed(String),
}

impl Capture {
    /// One to the socket at this path, on a new connection.
    pub(crate) fn to_socket(path: &str) -> Self {
        let mut connection = Connection::default();
        connection.ask(&MigrateSetCapabilities::IGNORE_SHARED);
        Self {
            connection,
            uri: format!("unix:{path}"),
            step: Step::Capabilities,
        }
    }

    /// Asks whether all was sent.
    pub(crate) fn ask(&mut self) {
        self.connection.count_anew();
        self.connection.ask(&QueryMigrate {});
        self.step = Step::Status;
    }
}

impl Talk for Capture {
    type Outcome = Captured;

    fn outgoing(&mut self) -> &mut Vec<u8> {
        self.connection.outgoing()
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<Option<Captured>, QmpError> {
        while let Some(answer) = self.connection.answer(&mut bytes)? {
            match self.step {
                Step::Capabilities => {
                    self.connection.ask(&Migrate {
                        uri: self.uri.clone(),
                    });
                    self.step = Step::Begun;
                }
                Step::Begun => return Ok(Some(Captured::Begun)),
                Step::Status => return Ok(Some(progress(QueryMigrate::read(answer)?))),
            }
        }
        Ok(None)
    }
}

fn progress(migration: Migration) -> Captured {
    match migration.status {
        Some(MigrationStatus::Completed) => Captured::Whole,
        Some(MigrationStatus::Failed | MigrationStatus::Cancelled) => Captured::Failed(
            migration
                .error
                .unwrap_or_else(|| "it gives no reason".to_owned()),
        ),
        Some(MigrationStatus::Other) | None => Captured::NotYet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;
    const DONE: &str = r#"{"return": {}}"#;

    #[test]
    fn a_state_is_sent_and_its_end_asked_for() {
        let mut capture = Capture::to_socket("/run/x");
        let take = |capture: &mut Capture, line: &str| {
            let outcome = capture.take(format!("{line}\n").as_bytes()).unwrap();
            (
                outcome,
                String::from_utf8(std::mem::take(capture.outgoing())).unwrap(),
            )
        };
        take(&mut capture, GREETING);
        take(&mut capture, DONE);
        let (outcome, sent) = take(&mut capture, DONE);
        assert_eq!(outcome, None);
        assert!(sent.contains(r#""uri":"unix:/run/x""#), "{sent}");
        assert_eq!(take(&mut capture, DONE).0, Some(Captured::Begun));
        for (answer, progress) in [
            (r#"{"return": {}}"#, Captured::NotYet),
            (r#"{"return": {"status": "active"}}"#, Captured::NotYet),
            (r#"{"return": {"status": "completed"}}"#, Captured::Whole),
            (
                r#"{"return": {"status": "failed", "error-desc": "no room"}}"#,
                Captured::Failed("no room".to_owned()),
            ),
        ] {
            capture.ask();
            let (outcome, sent) = take(&mut capture, answer);
            assert_eq!(outcome, Some(progress));
            assert!(sent.contains("query-migrate"), "{sent}");
        }
    }

    #[test]
    fn a_progress_that_is_none_is_refused() {
        let mut capture = Capture::to_socket("/run/x");
        for line in [GREETING, DONE, DONE, DONE] {
            capture.take(format!("{line}\n").as_bytes()).unwrap();
        }
        capture.ask();
        assert!(capture.take(b"{\"return\": {\"status\": 7}}\n").is_err());
    }
}
