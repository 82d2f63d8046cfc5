//! The JSON Schema (draft 2020-12) of `run.json`.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::types::Run;

/// One document, whose `$defs` hold a schema for each type.
pub(crate) fn schema() -> Value {
    let generator = SchemaSettings::draft2020_12().into_generator();
    generator.into_root_schema_for::<Run>().to_value()
}
