//! Lists that are sets or maps hold nothing twice.

use super::schema::{Additional, List, Schema};
use mini_api::{FieldError, FieldPath};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The elements of sets and maps that are there already.
pub(crate) fn validate(schema: &Schema, value: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(schema, value, path, &mut errors);
    errors
}

fn walk(schema: &Schema, value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(field) = schema.properties.get(name) {
                    walk(field, value, &path.child(name), errors);
                } else if let Additional::Of(entry) = &schema.additional {
                    walk(entry, value, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            match &schema.list {
                List::Atomic => {}
                List::Set => twice(items, path, errors),
                List::Map(keys) => map(keys, items, path, errors),
            }
            if let Some(element) = &schema.items {
                for (i, item) in items.iter().enumerate() {
                    walk(element, item, &path.index(i), errors);
                }
            }
        }
        _ => {}
    }
}

fn map(keys: &[String], items: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some((i, item)) = items.iter().enumerate().find(|(_, item)| !item.is_null() && !item.is_object()) {
        let detail = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(&path.index(i), item.clone(), detail));
        return;
    }
    let of = |item: &Value| -> Value {
        keys.iter().filter_map(|k| Some((k.clone(), item.get(k)?.clone()))).collect::<Map<_, _>>().into()
    };
    twice(&items.iter().map(of).collect::<Vec<_>>(), path, errors);
}

/// Each value that has been there is reported where it comes for the second time.
fn twice(items: &[Value], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (i, item) in items.iter().enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            errors.push(FieldError::duplicate(&path.index(i), item.clone()));
        }
    }
}
