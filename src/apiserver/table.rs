//! The other forms of objects: `meta/v1.Table` for kubectl's columns, `PartialObjectMetadata` for those who need no more.

use crate::negotiate::{Include, Output, Shape};
use bytes::Bytes;
use mini_api::{Meta, Reason, Status, Value};
use mini_resources::{Column, Resource};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write;

/// One object in the form that is wanted.
///
/// # Errors
/// 406 if a list is wanted.
pub(crate) fn shape(resource: &Resource, output: Output, object: &Bytes) -> Result<Bytes, Status> {
    if output.shape == Shape::Object || is_status(object) {
        return Ok(object.clone());
    }
    match output.shape {
        Shape::Object => Ok(object.clone()),
        Shape::Metadata => metadata_only(output, object),
        Shape::MetadataList => {
            let kind = go_type(resource, "");
            let why =
                format!("you requested PartialObjectMetadataList, but the requested object is not a list ({kind})");
            Err(Status::new(Reason::NotAcceptable, why))
        }
        Shape::Table => {
            let value: Value = serde_json::from_slice(object).map_err(Status::internal)?;
            let row = row(resource, output, &value, object)?;
            let metadata = json!({"resourceVersion": value.resource_version()});
            Ok(table(output, Some(&resource.columns), &metadata, &[row]))
        }
    }
}

/// How upstream's messages name the type of a resource's objects, or of its lists.
pub(crate) fn go_type(resource: &Resource, suffix: &str) -> String {
    match (&resource.custom, resource.group.split('.').next().unwrap_or_default()) {
        (Some(_), _) => format!("*unstructured.Unstructured{suffix}"),
        (None, "") => format!("*core.{}{suffix}", resource.kind),
        (None, package) => format!("*{package}.{}{suffix}", resource.kind),
    }
}

/// A Status, such as a deletion's answer, has no other form.
fn is_status(object: &Bytes) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        api_version: Cow<'a, str>,
    }
    let kind = serde_json::from_slice::<Kind<'_>>(object);
    kind.is_ok_and(|named| named.kind == "Status" && named.api_version == "v1")
}

/// A Table of `rows` that are JSON already. Without columns they are left to an earlier Table of the same watch.
pub(crate) fn table(output: Output, columns: Option<&[Column]>, metadata: &Value, rows: &[String]) -> Bytes {
    let columns: Value = columns.map_or(Value::Array(Vec::new()), |columns| columns.iter().map(definition).collect());
    let version = output.version;
    Bytes::from(format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},\"columnDefinitions\":{columns},\
         \"rows\":[{}]}}",
        rows.join(",")
    ))
}

fn definition(column: &Column) -> Value {
    json!({"name": column.name, "type": column.type_, "format": column.format, "description": column.description,
           "priority": column.priority})
}

/// A row of a Table.
pub(crate) fn row(resource: &Resource, output: Output, value: &Value, bytes: &Bytes) -> Result<String, Status> {
    let cells = resource.cells(value, jiff::Timestamp::now());
    let completed = resource.completed(value).map(
        |(reason, message)| json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]),
    );
    row_of(cells, completed, output, bytes)
}

/// A row of these cells and conditions.
pub(crate) fn row_of(
    cells: Vec<Value>,
    conditions: Option<Value>,
    output: Output,
    bytes: &Bytes,
) -> Result<String, Status> {
    let mut row = format!("{{\"cells\":{}", Value::Array(cells));
    if let Some(conditions) = conditions {
        let _ = write!(row, ",\"conditions\":{conditions}");
    }
    let object = match output.include {
        Include::None => None,
        Include::Metadata => Some(metadata_only(output, bytes)?),
        Include::Object => Some(bytes.clone()),
    };
    if let Some(object) = object {
        let _ = write!(row, ",\"object\":{}", std::str::from_utf8(&object).map_err(Status::internal)?);
    }
    row.push('}');
    Ok(row)
}

/// The `PartialObjectMetadata` of an object: its metadata is copied as it stands.
pub(crate) fn metadata_only(output: Output, object: &Bytes) -> Result<Bytes, Status> {
    #[derive(Deserialize)]
    struct Partial<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let partial: Partial<'_> = serde_json::from_slice(object).map_err(Status::internal)?;
    Ok(Bytes::from(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{}\",\"metadata\":{}}}",
        output.version,
        partial.metadata.get()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_copied_untouched() {
        let object = Bytes::from_static(br#"{"kind":"A","metadata":{"name":"x", "labels":{"a":"b"}},"spec":{}}"#);
        let output = Output::negotiate(&http::HeaderMap::new(), &crate::call::Query::default()).unwrap();
        assert_eq!(
            metadata_only(output, &object).unwrap(),
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"x", "labels":{"a":"b"}}}"#
        );
    }
}
