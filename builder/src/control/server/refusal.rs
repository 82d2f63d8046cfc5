//! Why the server refuses a request.

use hyper::StatusCode;

use crate::control::types;

/// A request that is not served.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) error: types::Error,
    /// The methods that are, where the method is wrong.
    pub(crate) allow: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, error: String) -> Self {
        Self {
            status,
            error: types::Error {
                error,
                versions: None,
            },
            allow: None,
        }
    }
}
