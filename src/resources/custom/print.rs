//! Printed columns of a custom kind, each the value of a JSONPath.

use super::json_path::JsonPath;
use crate::columns::{self, Column};
use jiff::Timestamp;
use mini_api::Meta;
use serde_json::Value;
use std::borrow::Cow;

/// The path of a column and the type it is shown as.
#[derive(Clone, Debug)]
pub(super) struct Printed {
    /// `None`: a path that cannot be read, which shows nothing.
    path: Option<JsonPath>,
    kind: String,
}

/// The columns that a version declares, the name first; without any there is the age.
pub(super) fn columns(version: &Value) -> (Vec<Column>, Vec<Printed>) {
    let declared = version.get("additionalPrinterColumns").and_then(Value::as_array).filter(|c| !c.is_empty());
    let age = [serde_json::json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
                                  "description": columns::AGE.description})];
    let mut shown = vec![columns::NAME];
    let mut printed = Vec::new();
    for column in declared.map_or(&age[..], Vec::as_slice) {
        let text = |name: &str| column.text(&[name]).to_owned();
        let path = text("jsonPath");
        shown.push(Column {
            name: Cow::Owned(text("name")),
            type_: Cow::Owned(text("type")),
            format: Cow::Owned(text("format")),
            description: Cow::Owned(match text("description") {
                empty if empty.is_empty() => {
                    format!("Custom resource definition column (in JSONPath format): {path}")
                }
                description => description,
            }),
            priority: column.get("priority").and_then(Value::as_i64).and_then(|p| p.try_into().ok()).unwrap_or(0),
        });
        printed.push(Printed { path: JsonPath::parse(&path), kind: text("type") });
    }
    (shown, printed)
}

pub(super) fn cells(printed: &[Printed], object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![columns::name(object)];
    cells.extend(printed.iter().map(|column| {
        let found = column.path.as_ref().and_then(|path| path.find(object).first().copied());
        found.map_or(Value::Null, |value| cell(&column.kind, value, now))
    }));
    cells
}

fn cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(n)) => match n.as_f64() {
            #[allow(clippy::cast_possible_truncation)]
            Some(f) if !n.is_i64() => (f as i64).into(),
            _ => value.clone(),
        },
        ("date", Value::String(at)) => match mini_api::time::parse(at) {
            Ok(_) => columns::since(at, now).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}
