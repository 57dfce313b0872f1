//! The shape of the report for programs, as a JSON Schema (draft 2020-12), derived from the very types that are written.
//! `docs/report.schema.json` is what this gives.

use schemars::{Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::Value;

use super::Report;

/// The schema, with a newline at the end.
pub fn render() -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(&schema())? + "\n")
}

/// The schema.
pub fn schema() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .with_transform(RecursiveTransform(may_be_null))
        .into_generator()
        .into_root_schema_for::<Report>()
}

/// JSON has no infinity and no NaN: a number that is not finite is written as `null`.
fn may_be_null(schema: &mut Schema) {
    let is_number = schema.get("type").is_some_and(|kind| kind == "number");
    if is_number {
        schema.insert("type".into(), Value::from(vec!["number", "null"]));
    }
}
