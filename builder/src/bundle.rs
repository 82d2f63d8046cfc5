//! What a run of the experiment leaves: a folder with `run.json`, the samples as CSV,
//! histograms, a page and the digests of all. `types` has the document; `figures`
//! are what is computed from its samples, by the run and by whoever checks it.

mod compare;
pub mod conditions;
mod csv;
#[cfg(test)]
#[expect(unreachable_pub, reason = "integration tests have it, too")]
pub(crate) mod example;
pub(crate) mod figures;
pub mod files;
mod histograms;
mod merge;
mod open;
pub(crate) mod samples;
pub(crate) mod schema;
mod sound;
pub mod types;
mod verify;
mod write;

pub use compare::{Comparison, Differing, Figure, Unit, compare};
#[cfg(test)]
pub(crate) use example::example;
pub use figures::headline;
pub use merge::{MergeError, Merged, merge};
pub(crate) use open::looks_like_one;
pub use open::{FileDifference, OpenError, open};
pub use verify::{ContentDifference, Difference, verify};
pub use write::{Bundle, WriteError};
