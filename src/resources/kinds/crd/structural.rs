//! What makes a schema structural: every field has a type outside of `allOf`, `anyOf`, `oneOf` and `not`, and those only
//! restrict values.

use super::spec::text;
use crate::check::{At, Errors};
use crate::custom::pattern;
use mini_api::{FieldError, FieldPath};
use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Checks a whole schema; errors are sorted by their text, as upstream's are.
pub(super) fn validate(schema: &At<'_>, errors: &mut Errors) {
    let mut found = Vec::new();
    invariants(schema, Level::Root, &mut found);
    complete_values(schema, Some(schema.value), &schema.path, &mut found);
    found.sort_by_cached_key(ToString::to_string);
    errors.extend(found);
}

fn invariants(s: &At<'_>, level: Level, errors: &mut Errors) {
    if !s.value.is_object() {
        return;
    }
    let (kind, items) = (s.get("type"), s.get("items"));
    let flag = |name: &str| s.get(name).is_true();
    let (embedded, preserve) = (flag("x-kubernetes-embedded-resource"), flag("x-kubernetes-preserve-unknown-fields"));
    let int_or_string = flag("x-kubernetes-int-or-string");
    if kind.text() == "array" && !items.is_set() {
        errors.push(items.required("must be specified"));
    }
    invariants(&items, Level::Item, errors);
    for (_, property) in s.get("properties").entries() {
        invariants(&property, Level::Field, errors);
    }
    let additional = s.get("additionalProperties");
    if additional.is_set() {
        if level == Level::Root {
            errors.push(additional.forbidden("must not be used at the root"));
        }
        invariants(&additional, Level::Field, errors);
    }
    if int_or_string {
        for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if flag(name) {
                errors.push(s.get(name).invalid("must be false if x-kubernetes-int-or-string is true"));
            }
        }
    }
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let first_all = s.get("allOf").value.get(0).and_then(|first| first.get("anyOf"));
    values(s, s.get("anyOf").value == &either, first_all == Some(&either), errors);
    types(s, level, embedded, preserve || int_or_string, errors);
    let has_meta = level == Level::Root || embedded;
    for name in ["kind", "apiVersion"] {
        let field = property(s, name);
        if has_meta && field.is_set() && field.get("type").text() != "string" {
            errors.push(FieldError::invalid(&field.get("type").path, field.get("type").text(), "must be string"));
        }
    }
    metadata(&property(s, "metadata"), has_meta, level, errors);
    if embedded && !preserve && s.get("properties").is_empty() {
        errors.push(s.get("properties").required(
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

fn types(s: &At<'_>, level: Level, embedded: bool, untyped: bool, errors: &mut Errors) {
    let kind = s.get("type");
    if embedded && kind.text() != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() { kind.required(detail) } else { kind.invalid(detail) });
    } else if kind.is_empty() && !untyped {
        errors.push(kind.required(match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        }));
    }
    if embedded && s.get("additionalProperties").is_set() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(s.get("additionalProperties").forbidden(detail));
    }
    if level == Level::Root && !kind.is_empty() && kind.text() != "object" {
        errors.push(kind.invalid("must be object at the root"));
    }
}

fn property<'a>(s: &At<'a>, name: &str) -> At<'a> {
    let properties = s.get("properties");
    let path = properties.path.key(name);
    At { value: properties.get(name).value, path }
}

/// At the root, metadata is what it always is: a schema may only restrict the name and what it is generated from.
fn metadata(meta: &At<'_>, has_meta: bool, level: Level, errors: &mut Errors) {
    if !meta.is_set() {
        return;
    }
    if has_meta && meta.get("type").text() != "object" {
        let kind = meta.get("type");
        errors.push(FieldError::invalid(&kind.path, kind.text(), "must be object"));
    }
    let others = |v: &Value| {
        v.as_object().into_iter().flatten().any(|(name, value)| match name.as_str() {
            "type" | "default" => false,
            "properties" => value
                .as_object()
                .is_some_and(|p| !p.is_empty() && !p.keys().all(|k| matches!(k.as_str(), "name" | "generateName"))),
            _ => !matches!(value, Value::Bool(false)),
        })
    };
    if level == Level::Root && others(meta.value) {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(meta.forbidden(detail));
    }
}

/// The value checks of a schema; `skip` tells the two patterns in which an int-or-string may name its types.
fn values(v: &At<'_>, skip_any: bool, skip_first_all: bool, errors: &mut Errors) {
    if !skip_any {
        v.get("anyOf").items().iter().for_each(|n| nested(n, false, errors));
    }
    for (i, n) in v.get("allOf").items().iter().enumerate() {
        nested(n, skip_first_all && i == 0, errors);
    }
    v.get("oneOf").items().iter().for_each(|n| nested(n, false, errors));
    if v.get("not").is_set() {
        nested(&v.get("not"), false, errors);
    }
    let pattern = v.get("pattern");
    if !pattern.is_empty()
        && let Err(why) = pattern::compile(pattern.text())
    {
        errors.push(pattern.invalid(format!("must be a valid regular expression, but isn't: {why}")));
    }
}

/// A schema inside `allOf`, `anyOf`, `oneOf` or `not`: nothing but value checks.
fn nested(v: &At<'_>, skip_any: bool, errors: &mut Errors) {
    if !v.value.is_object() {
        return;
    }
    values(v, skip_any, false, errors);
    nested(&v.get("items"), false, errors);
    for (name, field) in v.get("properties").entries() {
        nested(&field, false, errors);
        if name == "metadata" {
            errors.push(field.forbidden("must not be specified in a nested context"));
        }
    }
    if v.get("additionalProperties").is_set() {
        errors.push(v.get("additionalProperties").forbidden("must be undefined to be structural"));
    }
    for (name, what) in [
        ("type", "empty"),
        ("default", "undefined"),
        ("title", "empty"),
        ("description", "empty"),
        ("nullable", "false"),
        ("x-kubernetes-preserve-unknown-fields", "false"),
        ("x-kubernetes-embedded-resource", "false"),
        ("x-kubernetes-int-or-string", "false"),
        ("x-kubernetes-list-map-keys", "empty"),
        ("x-kubernetes-list-type", "undefined"),
        ("x-kubernetes-map-type", "undefined"),
        ("x-kubernetes-validations", "empty"),
    ] {
        let field = v.get(name);
        let unset = match what {
            "false" => !field.is_true(),
            "empty" => field.is_empty(),
            _ => !field.is_set(),
        };
        if !unset {
            errors.push(field.forbidden(&format!("must be {what} to be structural")));
        }
    }
}

/// What value checks name must be there outside of them too. `s` is the schema that they are about, at `path`.
fn complete_values(v: &At<'_>, s: Option<&Value>, path: &FieldPath, errors: &mut Errors) {
    if v.get("not").is_set() {
        complete(&v.get("not"), s, path, errors);
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        v.get(junctor).items().iter().for_each(|n| complete(n, s, path, errors));
    }
}

fn complete(v: &At<'_>, s: Option<&Value>, path: &FieldPath, errors: &mut Errors) {
    if !v.value.is_object() {
        return;
    }
    let Some(schema) = s else {
        errors.push(FieldError::required(path, format!("because it is defined in {}", v.path)));
        return;
    };
    complete_values(v, s, path, errors);
    complete(&v.get("items"), schema.get("items"), &path.child("items"), errors);
    for (name, field) in v.get("properties").entries() {
        let below = schema.get("properties").and_then(|p| p.get(name));
        complete(
            &At { value: field.value, path: field.path.clone() },
            below,
            &path.child("properties").key(name),
            errors,
        );
    }
}

/// The type of the field at a dotted path such as `.spec.color`.
pub(super) fn field_type<'a>(schema: &'a Value, path: &str) -> Result<&'a str, String> {
    let Some(path) = path.strip_prefix('.') else { return Err("expected [ or . but got: ".to_owned() + path) };
    let mut at = schema;
    for name in path.split('.') {
        if name.is_empty() || name.contains(['[', ']']) {
            return Err(format!("unexpected array notation or empty name in {path}"));
        }
        let property = at.get("properties").and_then(|p| p.get(name));
        let entry = at.get("additionalProperties").filter(|a| a.is_object());
        at = match property.or(entry) {
            Some(next) => next,
            None if name == "metadata" => &Value::Null,
            None => return Err(format!("does not refer to a valid field: {name}")),
        };
    }
    Ok(text(at, "type"))
}
