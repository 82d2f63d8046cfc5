//! How much a finding matters.

use serde::Serialize;

/// How much a finding matters; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// No guest will run, or not as asked for.
    Blocker,
    /// Fewer guests will run than were asked for.
    Limit,
    /// Guests will run; something would be better otherwise.
    Advice,
    Ok,
}

impl Severity {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocker => "blocker",
            Self::Limit => "limit",
            Self::Advice => "advice",
            Self::Ok => "ok",
        }
    }
}
