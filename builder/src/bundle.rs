//! What a run of the experiment leaves: a folder with `run.json`, the samples as CSV,
//! histograms, a page and the digests of all. `types` has the document; `figures`
//! are what is computed from its samples, by the run and by whoever checks it.

pub mod conditions;
mod csv;
#[cfg(test)]
#[expect(unreachable_pub, reason = "integration tests have it, too")]
pub(crate) mod example;
pub(crate) mod figures;
pub mod files;
mod histograms;
mod samples;
pub mod types;
mod write;

#[cfg(test)]
#[expect(unused_imports, reason = "other rooms' tests may have it")]
pub(crate) use example::example;
pub use figures::headline;
pub use write::{Bundle, WriteError};
