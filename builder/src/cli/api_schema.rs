//! `imgbuild api-schema`.

use super::output::print_as_it_is;
use super::{Exit, Failure};
use crate::control::schema::schema;
use crate::text;

pub(super) fn run() -> Result<Exit, Failure> {
    print_as_it_is(&text::json_pretty(&schema())?)?;
    Ok(Exit::Done)
}
