//! Kernel samepage merging: what it is set to, and what it has done.

use std::fs;
use std::path::Path;

use super::snapshot::file::Source;
use super::snapshot::{Ksm, Unseen};

/// Its folder below a root (kernel document admin-guide/mm/ksm).
const FOLDER: &str = "sys/kernel/mm/ksm";

/// KSM of the machine under `root`; `None` if its kernel has none. What is
/// there but cannot be read is added to `unseen`.
pub(crate) fn read(root: &Path, unseen: &mut Vec<Unseen>) -> Option<Ksm> {
    let mut source = Source::new(root, unseen);
    let listed = fs::read_dir(source.place(FOLDER));
    source.kept(FOLDER, listed)?;
    let mut number = |name: &str| source.number(Path::new(FOLDER).join(name));
    let ksm = Ksm {
        run: number("run"),
        pages_to_scan: number("pages_to_scan"),
        sleep_millisecs: number("sleep_millisecs"),
        smart_scan: number("smart_scan"),
        use_zero_pages: number("use_zero_pages"),
        max_page_sharing: number("max_page_sharing"),
        merge_across_nodes: number("merge_across_nodes"),
        advisor_mode: None,
        pages_shared: number("pages_shared"),
        pages_sharing: number("pages_sharing"),
        pages_unshared: number("pages_unshared"),
        pages_volatile: number("pages_volatile"),
        full_scans: number("full_scans"),
    };
    Some(Ksm {
        advisor_mode: source.choice(Path::new(FOLDER).join("advisor_mode")),
        ..ksm
    })
}
