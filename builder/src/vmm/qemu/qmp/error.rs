//! Why a monitor's answer is not accepted, and how long one may be.

use crate::text::printable;

/// Longest message that is taken, in bytes; a greeting has 200.
pub(super) const MESSAGE_MAX: usize = 8 * 1024;
/// Most messages that are taken on one connection: events may come in between.
pub(super) const MESSAGES_MAX: u32 = 32;
/// Most characters quoted of an answer.
pub(super) const QUOTED: usize = 80;

/// An answer that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QmpError {
    /// No JSON, or not what was asked for.
    #[error("its monitor sent a message that is not QMP: `{0}`")]
    Garbage(String),
    /// Without end, or too many.
    #[error("its monitor sent more than {MESSAGE_MAX} bytes at once, or {MESSAGES_MAX} messages")]
    TooLong,
    /// QEMU refused.
    #[error("its monitor refused: {0}")]
    Refused(String),
}

impl QmpError {
    /// This line is not QMP, or not what was asked for.
    pub(super) fn garbage(line: &[u8]) -> Self {
        Self::Garbage(quoted(&String::from_utf8_lossy(line)))
    }
}

/// The beginning of an answer, safe to print.
pub(super) fn quoted(text: &str) -> String {
    printable(text.trim_end()).chars().take(QUOTED).collect()
}
