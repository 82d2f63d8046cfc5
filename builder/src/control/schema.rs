//! The JSON Schema (draft 2020-12) of the control interface's documents.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::types;

/// One document, whose `$defs` hold a schema for each type; `paths` names those
/// that a request takes and its answer gives.
pub(crate) fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    macro_rules! reference {
        ($type:ty) => {
            generator.subschema_for::<$type>().to_value()
        };
    }
    let fleet = reference!(types::Fleet);
    let memory = reference!(types::Memory);
    let guest = reference!(types::Guest);
    let act = reference!(types::ActRequest);
    let acted = reference!(types::ActAnswer);
    let scale = reference!(types::ScaleRequest);
    let ask = reference!(types::AskRequest);
    let answer = reference!(types::Answer);
    let typed = reference!(types::Typed);
    let attend = reference!(types::AttendRequest);
    let event = reference!(types::Event);
    let error = reference!(types::Error);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The control interface of an imgbuild fleet",
        "version": types::API_VERSION,
        "paths": {
            "GET /v1/fleet": { "answer": fleet },
            "GET /v1/memory": { "answer": memory },
            "GET /v1/guests/ID": { "answer": guest },
            "POST /v1/stop": { "request": act, "answer": acted },
            "POST /v1/kill": { "request": act, "answer": acted },
            "POST /v1/restart": { "request": act, "answer": acted },
            "POST /v1/scale": { "request": scale, "answer": acted },
            "POST /v1/ask": { "request": ask, "answer a line": answer },
            "POST /v1/attend": { "request": attend },
            "POST /v1/guests/ID/console": { "answer": typed },
            "GET /v1/events": { "answer a line": event },
        },
        "error": error,
        "$defs": generator.take_definitions(true),
    })
}
