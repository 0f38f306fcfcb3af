//! The schema of a custom kind as the OpenAPI documents publish it.

use super::Kind;
use mini_api::meta::{child_mut, object_mut};
use serde_json::{Map, Value, json};

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const JUNCTORS: [&str; 4] = ["allOf", "anyOf", "oneOf", "not"];

/// The schema of a version's objects. `v2` leaves out what that dialect lacks; `meta` refers to `ObjectMeta`.
pub(crate) fn definition(kind: &Kind, v2: bool, meta: &Value) -> Map<String, Value> {
    let preserves = flag(&kind.published, "x-kubernetes-preserve-unknown-fields");
    let mut schema = match &kind.published {
        Value::Object(_) if !(v2 && preserves) => kind.published.clone(),
        // Clients take a schema with fields for one that forbids all others.
        _ => return Map::from_iter([("type".to_owned(), "object".into())]),
    };
    unfold(&mut schema);
    if v2 {
        for_version_2(&mut schema);
    }
    embed(&mut schema, v2, meta);
    let properties = child_mut(object_mut(&mut schema), "properties");
    properties.insert("apiVersion".to_owned(), json!({"type": "string", "description": API_VERSION}));
    properties.insert("kind".to_owned(), json!({"type": "string", "description": KIND}));
    properties.insert("metadata".to_owned(), metadata(meta, v2));
    if !kind.selectable.is_empty() {
        let fields: Vec<Value> = kind.selectable.iter().map(|path| json!({"fieldPath": path})).collect();
        object_mut(&mut schema).insert("x-kubernetes-selectable-fields".to_owned(), fields.into());
    }
    object_mut(&mut schema).clone()
}

/// The schema of lists of a custom kind.
pub(crate) fn list(list_kind: &str, kind: &str, item: &Value, list_meta: &Value, v2: bool) -> Map<String, Value> {
    let items = if v2 { item.clone() } else { json!({"allOf": [item]}) };
    let description = format!("List of {kind} objects.");
    let list = json!({
        "description": format!("{list_kind} is a list of {kind}"),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "metadata": metadata(list_meta, v2),
            "items": {"type": "array", "items": items, "description": description},
        },
    });
    match list {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

/// A reference with a description, for which version 3 has to wrap it.
fn metadata(meta: &Value, v2: bool) -> Value {
    let mut out = if v2 { meta.clone() } else { json!({"allOf": [meta]}) };
    out["description"] = METADATA.into();
    out
}

/// The schemas right below this one that say what is there, not how its values are.
fn each_child(schema: &mut Value, mut visit: impl FnMut(&mut Value)) {
    let Value::Object(map) = schema else { return };
    for name in ["items", "additionalProperties"] {
        if let Some(child @ Value::Object(_)) = map.get_mut(name) {
            visit(child);
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(visit);
    }
}

/// Says of an int-or-string, in words that every client knows, what it is.
fn unfold(schema: &mut Value) {
    each_child(schema, unfold);
    if !flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let first_all = schema.get("allOf").and_then(|all| all.get(0)).and_then(|first| first.get("anyOf"));
    if schema.get("anyOf") == Some(&either) || first_all == Some(&either) {
        return;
    }
    let map = object_mut(schema);
    if map.contains_key("anyOf") {
        let mut all = map.get("allOf").and_then(Value::as_array).cloned().unwrap_or_default();
        all.insert(0, json!({"anyOf": either}));
        map.insert("allOf".to_owned(), all.into());
    } else {
        map.insert("anyOf".to_owned(), either);
    }
}

/// Version 2 has neither junctors nor nulls, and kubectl takes fields that are listed for all there are.
fn for_version_2(schema: &mut Value) {
    let nullable = |s: &Value| flag(s, "nullable");
    let without: Vec<String> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, field)| nullable(field))
        .map(|(name, _)| name.clone())
        .collect();
    let entries_nullable = schema.get("additionalProperties").is_some_and(nullable);
    each_child(schema, for_version_2);
    let preserves = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let is_nullable = nullable(schema);
    let map = object_mut(schema);
    for name in JUNCTORS {
        map.remove(name);
    }
    if let Some(Value::Array(required)) = map.get_mut("required") {
        required.retain(|r| !entries_nullable && !without.iter().any(|name| r == name));
        if required.is_empty() {
            map.remove("required");
        }
    }
    if is_nullable {
        for name in ["type", "nullable", "items", "properties"] {
            map.remove(name);
        }
    }
    if preserves {
        map.remove("items");
        map.remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str);
    let bare_list = kind == Some("array") && !map.contains_key("items");
    if bare_list || preserves && kind == Some("object") {
        map.remove("type");
    }
}

/// Embedded objects have a kind, a version and metadata.
fn embed(schema: &mut Value, v2: bool, meta: &Value) {
    each_child(schema, |child| embed(child, v2, meta));
    let preserves = flag(schema, "x-kubernetes-preserve-unknown-fields");
    if !flag(schema, "x-kubernetes-embedded-resource") || v2 && preserves {
        return;
    }
    let map = object_mut(schema);
    let mut required = map.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let properties = child_mut(map, "properties");
    for (name, description) in [("kind", KIND), ("apiVersion", API_VERSION)] {
        properties.insert(name.to_owned(), json!({"type": "string", "description": description}));
        if !required.iter().any(|r| r == name) {
            required.push(name.into());
        }
    }
    properties.insert("metadata".to_owned(), metadata(meta, v2));
    map.insert("required".to_owned(), required.into());
}
