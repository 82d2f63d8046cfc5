//! What could not be read.

use serde::{Deserialize, Serialize};

/// Something that could not be seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unseen {
    /// Its path, or another name.
    pub what: String,
    /// Why, such as `Permission denied` or `"abc" is not a number`.
    pub why: String,
}
