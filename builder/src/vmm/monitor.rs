//! What is said to a living guest's VMM, one thing at a time, without waiting for it.

use std::io;
use std::os::unix::net::UnixStream;

use mio::{Registry, Token};

use super::qemu::conversation::{Conversation, ConversationError};
use super::qemu::qmp::{Inquiry, Restoration, Restored};
use super::{MachineState, Part};

/// What is said; boxed, since hardly any guest's VMM hears anything.
#[derive(Debug, Default)]
pub(crate) struct Monitor(Option<Box<Conversed>>);

#[derive(Debug)]
enum Conversed {
    Inspection(Conversation<Inquiry>),
    Restoration(Conversation<Restoration>),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Told {
    /// How the machine is.
    Machine(Result<MachineState, ConversationError>),
    /// Whether the guest was restored.
    Restored(Result<Restored, ConversationError>),
}

impl Monitor {
    /// Asks the VMM how the guest's machine is; what was said before is given up.
    /// `registry` tells by `token` when [`Monitor::told`] has more.
    pub(crate) fn inspect(
        &mut self,
        connection: UnixStream,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        let inspection = Conversation::begin(Inquiry::begin(), connection, registry, token)?;
        self.0 = Some(Box::new(Conversed::Inspection(inspection)));
        Ok(())
    }

    /// The same, to have the VMM restore its guest from the template that it was
    /// handed.
    pub(crate) fn restore(
        &mut self,
        connection: UnixStream,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        let restoration = Restoration::from_descriptor(Part::State.descriptor());
        let restoration = Conversation::begin(restoration, connection, registry, token)?;
        self.0 = Some(Box::new(Conversed::Restoration(restoration)));
        Ok(())
    }

    /// What came of what was said, once it did.
    pub(crate) fn told(&mut self) -> Option<Told> {
        let told = match self.0.as_deref_mut()? {
            Conversed::Inspection(inspection) => Told::Machine(inspection.go_on().transpose()?),
            Conversed::Restoration(restoration) => Told::Restored(restoration.go_on().transpose()?),
        };
        self.0 = None;
        Some(told)
    }
}
