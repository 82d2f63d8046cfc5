//! Decides whether KSM's pages may be unmerged: only those of ended processes.
//!
//! KSM keeps the merged pages of an ended process until ksmd reaches them, which a
//! stopped ksmd never does. As long as it keeps them, `max_page_sharing` and
//! `merge_across_nodes` cannot change. `run=2` drops them, but it also gives every
//! living process its own copies of all its merged pages.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use super::{Reason, file};
use crate::sample::ksm::PAGE;
use crate::sample::source::Source;
use crate::sample::{self, meminfo, processes};

/// How often ksmd's progress is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Merged pages that KSM counts, whether their processes live or not.
pub(crate) fn pages_shared(root: &Path) -> Result<u64, Reason> {
    counter(root, "pages_shared")
}

/// Waits, for `patience` at most, until ksmd has forgotten what ended processes
/// had merged. Whether it has is for the caller to see.
pub(crate) fn wait_for_ksmd(root: &Path, patience: Duration) {
    let start = Instant::now();
    while start.elapsed() < patience && !matches!(pages_shared(root), Ok(0)) {
        thread::sleep(INTERVAL);
    }
}

/// Whether everything can be unmerged to nobody's loss.
pub(crate) fn may_unmerge(root: &Path) -> Result<(), Reason> {
    match pages_of_the_living(root)? {
        0 => room(root),
        pages => Err(Reason::MergedByLiving { pages }),
    }
}

/// Merged pages of processes that live.
pub(crate) fn pages_of_the_living(root: &Path) -> Result<u64, Reason> {
    let unknown = |why| Reason::MergedByUnknown { why };
    if !processes::are_all_seen(root) {
        return Err(unknown("other PID namespaces cannot be seen".to_owned()));
    }
    let failed = |error: io::Error| unknown(error.to_string());
    let mut pages = 0_u64;
    for process in processes::folders(root).map_err(failed)? {
        let merged = sample::ksm::merged(&process.map_err(failed)?).map_err(unknown)?;
        pages = pages.saturating_add(merged);
    }
    Ok(pages)
}

/// Whether memory has room for every page that is merged now, should any of
/// them have an owner after all, and an eighth to spare.
fn room(root: &Path) -> Result<(), Reason> {
    let sharing = counter(root, "pages_sharing")?;
    // Before Linux 6.6 there is none.
    let zero = match counter(root, "ksm_zero_pages") {
        Err(Reason::Absent) => 0,
        zero => zero?,
    };
    let needed = sharing.saturating_add(zero).saturating_mul(PAGE);
    match meminfo::available(&mut Source::new(root, &mut Vec::new())) {
        None => Err(Reason::System(format!(
            "{} does not say how much memory is available",
            root.join("proc/meminfo").display()
        ))),
        Some(available) if needed > available - available / 8 => {
            Err(Reason::NoRoom { needed, available })
        }
        Some(_) => Ok(()),
    }
}

fn counter(root: &Path, name: &str) -> Result<u64, Reason> {
    let path = root.join("sys/kernel/mm/ksm").join(name);
    file::number(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Reason::Absent,
        _ => Reason::System(format!("{}: {error}", path.display())),
    })
}
