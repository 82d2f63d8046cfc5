//! What guests begin with: a kernel, or a template.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;

use super::Site;
use crate::template::Template;
use crate::vmm::{Ram, StartMethod};

/// What guests begin with.
#[derive(Debug, Default)]
pub(crate) enum Source {
    /// The kernel, which boots.
    #[default]
    Kernel,
    /// The same, in this memory: the guest is to become a template.
    Kept(File),
    /// A template.
    Template(Template),
}

impl Source {
    /// What a guest's RAM is.
    pub(super) fn ram(&self) -> io::Result<Ram> {
        match self {
            Self::Kernel => Ok(Ram::Own),
            Self::Kept(memory) => memory.try_clone().map(Ram::Kept),
            Self::Template(template) => template.ram(),
        }
    }

    /// Bytes of files in memory that guests are handed for it.
    pub(super) fn in_memory(&self) -> u64 {
        match self {
            Self::Kernel | Self::Kept(_) => 0,
            Self::Template(template) => template.in_memory(),
        }
    }
}

impl Site {
    /// Has guests begin with this from now on.
    pub(crate) fn begin_with(&mut self, source: Source) {
        self.source = source;
    }

    /// How the next guest comes up.
    pub(crate) fn start_method(&self) -> StartMethod {
        // That it is gone is the start's to report.
        let _ = self.look_at_qemu();
        match self.source() {
            Source::Kernel | Source::Kept(_) => StartMethod::Boot,
            Source::Template(_) => StartMethod::Clone,
        }
    }

    /// What guests begin with now: a template is of one QEMU.
    pub(super) fn source(&self) -> &Source {
        match self.source {
            Source::Template(_) if self.qemu_is_another.load(Ordering::Relaxed) => &Source::Kernel,
            _ => &self.source,
        }
    }
}
