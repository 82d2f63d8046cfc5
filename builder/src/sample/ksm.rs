//! What KSM merged of a process.

use std::path::Path;
use std::{fs, io};

use super::processes::is_gone;

/// Merged pages of the process with this folder, zero pages among them.
pub(crate) fn merged(process: &Path) -> Result<u64, String> {
    let merging = match fs::read_to_string(process.join("ksm_merging_pages")) {
        Err(error) if is_gone(&error) && !process.exists() => return Ok(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("the kernel counts them only from Linux 5.19 on".to_owned());
        }
        read => ended_is_empty(read)?,
    };
    let zero = match fs::read_to_string(process.join("ksm_stat")) {
        // Before Linux 6.1 there is none; 6.6 was the first to count these.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => ended_is_empty(read)?,
    };
    let zero = zero
        .lines()
        .find_map(|line| line.strip_prefix("ksm_zero_pages "))
        .unwrap_or_default();
    Ok(pages(&merging)?.saturating_add(pages(zero)?))
}

/// A process without memory, such as a zombie or a kernel thread, reads as
/// nothing; one that has ended does not read at all.
fn ended_is_empty(read: io::Result<String>) -> Result<String, String> {
    match read {
        Err(error) if is_gone(&error) => Ok(String::new()),
        read => read.map_err(|error| error.to_string()),
    }
}

fn pages(text: &str) -> Result<u64, String> {
    match text.trim_ascii() {
        "" => Ok(0),
        text => text
            .parse()
            .map_err(|_| format!("{text:?} is not a number of pages")),
    }
}
