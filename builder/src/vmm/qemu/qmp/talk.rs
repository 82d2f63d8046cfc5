//! What a talk with a monitor is: several commands and what comes of them.

use super::error::QmpError;

/// A talk that does no input or output itself.
pub(crate) trait Talk {
    /// What comes of it.
    type Outcome;

    /// What is to be sent; whoever sends it takes it away.
    fn outgoing(&mut self) -> &mut Vec<u8>;

    /// Takes what QEMU said; gives the outcome once it is there.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<Self::Outcome>, QmpError>;
}
