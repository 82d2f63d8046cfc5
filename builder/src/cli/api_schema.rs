//! `imgbuild api-schema`.

use super::{Exit, Failure, print};
use crate::fleet::api::schema::schema;

pub fn run() -> Result<Exit, Failure> {
    print(&serde_json::to_string_pretty(&schema())?)?;
    Ok(Exit::Done)
}
