//! What checks look at: a pure function from snapshot and wish to findings
//! for each concern.

use super::finding::Finding;
use super::snapshot::Host;
use super::want::Want;

/// Judges a host, the worst first.
#[must_use]
pub fn judge(_host: &Host, _want: &Want) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    findings.sort_by_key(|finding| finding.severity);
    findings
}
