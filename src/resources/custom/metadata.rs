//! Embedded objects have a kind, a version and sound metadata, as the object that they are in.

use super::schema::{Additional, Schema};
use crate::check::{At, Errors};
use crate::metadata;
use mini_api::{FieldPath, names};
use serde_json::Value;

/// Checks every embedded object in `value`, which is itself one where the schema says so.
pub(crate) fn validate(schema: &Schema, value: &Value, path: &FieldPath, errors: &mut Errors) {
    match value {
        Value::Object(map) => {
            if schema.embedded {
                embedded(&At { value, path: path.clone() }, errors);
            }
            for (name, value) in map {
                if let Some(field) = schema.properties.get(name) {
                    validate(field, value, &path.child(name), errors);
                } else if let Additional::Of(entry) = &schema.additional {
                    validate(entry, value, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(element) = &schema.items else { return };
            for (i, item) in items.iter().enumerate() {
                validate(element, item, &path.index(i), errors);
            }
        }
        _ => {}
    }
}

fn embedded(at: &At<'_>, errors: &mut Errors) {
    for name in ["apiVersion", "kind"] {
        let field = at.get(name);
        match (at.value.get(name), field.text()) {
            (None, _) => errors.push(field.required("")),
            (Some(Value::String(_)), "") => errors.push(field.invalid("must not be empty")),
            (Some(Value::String(_)), text) if name == "apiVersion" && text.matches('/').count() > 1 => {
                errors.push(field.invalid(format!("unexpected GroupVersion string: {text}")));
            }
            (Some(Value::String(_)), text) if name == "kind" => {
                let wrong = names::is_dns1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    errors.push(field.invalid(detail));
                }
            }
            (Some(Value::String(_)), _) => {}
            (Some(_), _) => errors.push(field.invalid("must be a string")),
        }
    }
    if at.value.get("metadata").is_some() {
        metadata::validate_embedded(&at.get("metadata"), errors);
    }
}
