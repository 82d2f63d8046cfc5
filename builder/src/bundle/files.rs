//! The files of a bundle by name, and the list of their digests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use crate::digest::{ParseSha256Error, Sha256};
use crate::plain;
use crate::staging::Kind;

pub use crate::artifact::SHA256SUMS;

/// Name of the document.
pub const RUN: &str = "run.json";
/// Name of the table of samples.
pub const SAMPLES: &str = "samples.csv";
/// Name of the table of histograms.
pub const HISTOGRAMS: &str = "histograms.csv";
/// Name of the page.
pub const PAGE: &str = "report.html";

/// Largest list of digests that is read.
const SUMS_MAX: u64 = 64 << 10;

/// A bundle, for those who put one in the place of another.
pub(super) const BUNDLE: Kind = Kind {
    name: "bundle",
    index: SHA256SUMS,
    option: "--bundle",
    listed,
};

/// The text of the list of digests.
pub(super) fn sums(files: &BTreeMap<&str, &str>) -> String {
    let mut sums = String::new();
    for (name, text) in files {
        let digest = Sha256::of_bytes(text);
        writeln!(sums, "{digest}  {name}").expect("a String takes it");
    }
    sums
}

/// The start of a text that is quoted in a message.
pub(super) fn brief(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The digests that such a text lists, by name; the error is what is wrong in it.
pub(super) fn parse_sums(text: &str) -> Result<BTreeMap<String, Sha256>, String> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let (digest, name) = line
            .split_once("  ")
            .ok_or_else(|| format!("{:?} is not a digest and a name", brief(line)))?;
        let digest: Sha256 = brief(digest)
            .parse()
            .map_err(|error: ParseSha256Error| error.to_string())?;
        if ![RUN, SAMPLES, HISTOGRAMS, PAGE].contains(&name) {
            return Err(format!("{:?} is not a file of a bundle", brief(name)));
        }
        if sums.insert(name.to_owned(), digest).is_some() {
            return Err(format!("{name} is listed twice"));
        }
    }
    match [RUN, SAMPLES, HISTOGRAMS]
        .into_iter()
        .find(|name| !sums.contains_key(*name))
    {
        Some(name) => Err(format!("{name} is not listed")),
        None => Ok(sums),
    }
}

/// The list of digests of a folder, as text.
pub(super) fn read_sums(folder: &Path) -> std::io::Result<String> {
    let bytes = plain::read_start(&folder.join(SHA256SUMS), SUMS_MAX)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The files of a bundle by its list of digests; `None` where there is none.
fn listed(folder: &Path) -> Option<BTreeSet<String>> {
    let sums = parse_sums(&read_sums(folder).ok()?).ok()?;
    Some(sums.into_keys().chain([SHA256SUMS.to_owned()]).collect())
}
