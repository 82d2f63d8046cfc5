//! What a run of the experiment leaves: a folder with `run.json`, the samples as CSV,
//! histograms, a page and the digests of all. `types` has the document; `figures`
//! are what is computed from its samples, by the run and by whoever checks it.

pub(crate) mod figures;
pub mod types;
