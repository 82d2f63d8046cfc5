//! User ids for guests.

use super::UserIds;
use crate::host::user_ids::{self, Mapped};
use crate::sample::source::Source;

/// What there is of them for a process that lacks these capabilities.
pub(crate) fn read(source: &mut Source, missing: Vec<String>) -> UserIds {
    let mapped = Mapped::read(source);
    let given = user_ids::given(source);
    UserIds {
        mapped: mapped.count(),
        guests: mapped.most(&given).into(),
        missing,
        groups_denied: user_ids::denies_groups(source),
        qemu_barrier: None,
    }
}
