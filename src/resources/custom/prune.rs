//! What the decoder does to a custom object: unknown fields go and are reported, nulls that are not allowed go, and
//! metadata, the object's own and that of embedded objects, is brought into the shape of `ObjectMeta`.

use super::schema::Schema;
use crate::normalize;
use mini_api::meta::object_mut;
use serde_json::{Map, Value};
use std::fmt::Write;

/// Fields that every object has, whatever its schema says.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];
/// No more unknown fields than this are reported.
const REPORTED_MAX: usize = 100;

pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Prunes an object and answers its unknown fields.
///
/// # Errors
/// What is wrong with metadata, in upstream's words.
pub(super) fn normalize(schema: &Schema, object: &mut Value) -> Result<Vec<String>, String> {
    let mut unknown = match object.get_mut("metadata") {
        Some(meta) => object_meta(meta, "metadata", false)?,
        None => Vec::new(),
    };
    unknown.extend(prune(schema, object).into_iter().map(|path| format!("unknown field \"{path}\"")));
    drop_nulls(object, Some(schema));
    coerce(schema, object, "", true, false, &mut unknown)?;
    Ok(unknown)
}

/// As [`normalize`] for what is read from the store: nothing is reported, and malformed metadata is dropped.
pub(super) fn repair(schema: &Schema, object: &mut Value) {
    prune(schema, object);
    drop_nulls(object, Some(schema));
    // With malformed fields dropped nothing is left to fail.
    let _ = coerce(schema, object, "", true, true, &mut Vec::new());
}

/// Drops the unknown fields of a whole object; answers their paths, sorted.
pub(crate) fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut walk = Walk { path: String::new(), unknown: Vec::new() };
    walk.value(object, Some(schema), true);
    walk.unknown.sort_unstable();
    walk.unknown
}

/// As [`prune`] for a value in an object; `embedded` where it is an object of its own.
pub(crate) fn prune_part(schema: &Schema, value: &mut Value) {
    Walk { path: String::new(), unknown: Vec::new() }.value(value, Some(schema), schema.embedded);
}

struct Walk {
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    /// `schema` is `None` below what no schema names; `resource` says that this is an object with metadata.
    fn value(&mut self, value: &mut Value, schema: Option<&Schema>, resource: bool) {
        self.part(value, schema, resource, schema.is_some_and(|s| s.preserve_unknown));
    }

    /// `keep` says that unknown fields stay, as they do in the elements of a list that preserves them.
    fn part(&mut self, value: &mut Value, schema: Option<&Schema>, resource: bool, keep: bool) {
        match value {
            Value::Object(map) => self.map(map, schema, resource, keep),
            Value::Array(items) => {
                let element = schema.and_then(|s| s.items.as_deref());
                if keep && element.is_none() {
                    return;
                }
                let (embedded, keep) = element.map_or((false, keep), |s| (s.embedded, keep || s.preserve_unknown));
                for (i, item) in items.iter_mut().enumerate() {
                    let length = self.path.len();
                    let _ = write!(self.path, "[{i}]");
                    self.part(item, element, embedded, keep);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn map(&mut self, map: &mut Map<String, Value>, schema: Option<&Schema>, resource: bool, keep: bool) {
        map.retain(|name, value| {
            if resource && META.contains(&name.as_str()) {
                return true;
            }
            let field = schema.and_then(|s| s.field(name));
            if keep && field.is_none() {
                return true;
            }
            let length = self.path.len();
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            let known = field.is_some() || schema.is_some_and(Schema::admits_any_field);
            if known {
                self.value(value, field, field.is_some_and(|f| f.embedded));
            } else if self.unknown.len() < REPORTED_MAX {
                self.unknown.push(self.path.clone());
            }
            self.path.truncate(length);
            known
        });
    }
}

/// Drops nulls where the schema allows none and has no default for them.
pub(super) fn drop_nulls(value: &mut Value, schema: Option<&Schema>) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let field = schema.and_then(|s| s.field(name));
            if value.is_null() && field.is_some_and(|f| !f.nullable && f.default.is_none()) {
                return false;
            }
            drop_nulls(value, field);
            true
        }),
        Value::Array(items) => {
            let schema = schema.and_then(|s| s.items.as_deref());
            items.iter_mut().for_each(|item| drop_nulls(item, schema));
        }
        _ => {}
    }
}

/// Checks the type and metadata of embedded objects; `root` leaves out those of the object itself. `lenient` drops what
/// is malformed instead of failing.
pub(crate) fn coerce(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    root: bool,
    lenient: bool,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) => {
            if schema.embedded && !root {
                for name in ["apiVersion", "kind"] {
                    match map.get(name) {
                        Some(v) if !v.is_string() && lenient => drop(map.remove(name)),
                        Some(v) if !v.is_string() => {
                            return Err(format!("{}: Invalid value: {v}: must be a string", child(name)));
                        }
                        _ => {}
                    }
                }
                if let Some(meta) = map.get_mut("metadata") {
                    unknown.extend(object_meta(meta, &child("metadata"), lenient)?);
                }
            }
            for (name, value) in map.iter_mut() {
                if let Some(field) = schema.field(name) {
                    let at = if schema.properties.contains_key(name) { child(name) } else { format!("{path}[{name}]") };
                    coerce(field, value, &at, false, lenient, unknown)?;
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = &schema.items else { return Ok(()) };
            for (i, item) in items.iter_mut().enumerate() {
                coerce(schema, item, &format!("{path}[{i}]"), false, lenient, unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Brings metadata at `path` into shape; answers its unknown fields.
fn object_meta(meta: &mut Value, path: &str, lenient: bool) -> Result<Vec<String>, String> {
    let given = meta.clone();
    match normalize::part(OBJECT_META, meta, path) {
        Ok(unknown) => Ok(unknown),
        Err(_) if lenient => {
            *meta = given;
            object_mut(meta).retain(|name, value| {
                let mut one = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
                normalize::part(OBJECT_META, &mut one, path).is_ok()
            });
            Ok(normalize::part(OBJECT_META, meta, path).unwrap_or_default())
        }
        Err(why) => Err(format!("{path}: Invalid value: {given}: {why}")),
    }
}
