//! Defaults of a structural schema, for what clients write and for what was stored before the default was there.

use super::schema::{Additional, Schema};
use serde_json::Value;

/// Fills in what is absent, or null where null is not allowed.
pub(crate) fn apply(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, field) in &schema.properties {
                let Some(default) = &field.default else { continue };
                if map.get(name).is_none_or(|v| v.is_null() && !field.nullable) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(field) = schema.properties.get(name) {
                    apply(field, value);
                } else if let Additional::Of(entry) = &schema.additional {
                    fill(entry, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(element) = &schema.items {
                items.iter_mut().for_each(|item| fill(element, item));
            }
        }
        _ => {}
    }
}

/// An element or entry that is null gets its default.
fn fill(schema: &Schema, value: &mut Value) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
    apply(schema, value);
}
