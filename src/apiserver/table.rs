//! The other forms of objects: `meta/v1.Table` for kubectl's columns, `PartialObjectMetadata` for those who need no more.

use crate::negotiate::{Include, Output, Shape};
use bytes::Bytes;
use mini_api::{Meta, Status, Value};
use mini_resources::{Column, Resource};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

/// One object in the form that is wanted.
pub(crate) fn shape(resource: &Resource, output: Output, object: &Bytes) -> Result<Bytes, Status> {
    match output.shape {
        Shape::Object => Ok(object.clone()),
        Shape::Metadata => metadata_only(object),
        Shape::Table => {
            let value: Value = serde_json::from_slice(object).map_err(Status::internal)?;
            // A Status, such as a deletion's answer, has no columns.
            if value.text(&["kind"]) == "Status" && resource.kind != "Status" {
                return Ok(object.clone());
            }
            let row = row(resource, output.include, &value, object)?;
            Ok(table(Some(&resource.columns), &json!({"resourceVersion": value.resource_version()}), &[row]))
        }
    }
}

/// A Table of `rows` that are JSON already. Without columns they are left to an earlier Table of the same watch.
pub(crate) fn table(columns: Option<&[Column]>, metadata: &Value, rows: &[String]) -> Bytes {
    let columns: Value = columns.map_or(Value::Array(Vec::new()), |columns| columns.iter().map(definition).collect());
    Bytes::from(format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":{columns},\
         \"rows\":[{}]}}",
        rows.join(",")
    ))
}

fn definition(column: &Column) -> Value {
    json!({"name": column.name, "type": column.type_, "format": column.format, "description": column.description,
           "priority": column.priority})
}

/// A row of a Table.
pub(crate) fn row(resource: &Resource, include: Include, value: &Value, bytes: &Bytes) -> Result<String, Status> {
    let cells = Value::Array(resource.cells(value, jiff::Timestamp::now()));
    Ok(match include {
        Include::None => format!("{{\"cells\":{cells}}}"),
        Include::Metadata => format!("{{\"cells\":{cells},\"object\":{}}}", text(&metadata_only(bytes)?)?),
        Include::Object => format!("{{\"cells\":{cells},\"object\":{}}}", text(bytes)?),
    })
}

fn text(bytes: &Bytes) -> Result<&str, Status> {
    std::str::from_utf8(bytes).map_err(Status::internal)
}

/// The `PartialObjectMetadata` of an object: its metadata is copied as it stands.
pub(crate) fn metadata_only(object: &Bytes) -> Result<Bytes, Status> {
    #[derive(Deserialize)]
    struct Partial<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let partial: Partial<'_> = serde_json::from_slice(object).map_err(Status::internal)?;
    Ok(Bytes::from(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{}}}",
        partial.metadata.get()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_copied_untouched() {
        let object = Bytes::from_static(br#"{"kind":"A","metadata":{"name":"x", "labels":{"a":"b"}},"spec":{}}"#);
        assert_eq!(
            metadata_only(&object).unwrap(),
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"x", "labels":{"a":"b"}}}"#
        );
    }
}
