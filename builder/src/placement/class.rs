//! The CPU classes of guests.

/// How urgently a guest needs CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It is waited for: it starts, or owes an answer. Half of the fleet's CPU
    /// time is for these at least, whenever they want it.
    Urgent,
    /// It runs.
    Running,
}

impl Class {
    /// The name of its cgroup.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Running => "running",
        }
    }
}
