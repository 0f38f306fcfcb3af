//! What a schema in a definition may say at all: upstream's rules for `openAPIV3Schema`, and for its defaults.

use super::spec::text;
use super::structural;
use crate::check::{At, Errors};
use crate::custom::schema::Schema;
use crate::custom::{metadata, prune, validate};
use mini_api::FieldError;
use serde_json::{Value, json};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const META: [&str; 3] = ["metadata", "kind", "apiVersion"];
const RULE_REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// Fields that a schema may have at its root when the status is a subresource, and must be validated on its own.
const AT_ROOT: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

/// Checks the schema of a version.
pub(super) fn validate_root(schema: &At<'_>, has_status: bool, errors: &mut Errors) {
    if has_status {
        let kind = schema.get("type");
        let known = |name: &String| AT_ROOT.iter().any(|(_, json)| json == name);
        let unset = |v: &Value| matches!(v, Value::Bool(false)) || v.as_str() == Some("");
        let fields = schema.value.as_object().into_iter().flatten();
        if kind.is_set() && kind.text() != "object" {
            let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is \
                          enabled";
            errors.push(kind.invalid(detail));
        } else if fields.filter(|(_, v)| !unset(v)).any(|(name, _)| !known(name)) {
            let names = AT_ROOT.map(|(name, _)| name).join(" ");
            let detail = format!(
                "only [{names}] fields are allowed at the root of the schema if the status subresource is enabled"
            );
            errors.push(schema.invalid(detail));
        }
    }
    if schema.get("nullable").is_true() {
        errors.push(schema.get("nullable").forbidden("nullable cannot be true at the root"));
    }
    let before = errors.len();
    structural::validate(schema, errors);
    if errors.len() == before {
        defaults(schema, &Schema::read(schema.value), Place::Root, errors);
    }
    walk(schema, &Context { defaults: None, inside_meta: false }, true, errors);
}

/// What holds of a schema because of where it is.
struct Context {
    /// Why there may be no default.
    defaults: Option<String>,
    inside_meta: bool,
}

fn walk(schema: &At<'_>, context: &Context, root: bool, errors: &mut Errors) {
    if !schema.value.is_object() {
        return;
    }
    unsupported(schema, context, errors);
    let additional = schema.get("additionalProperties");
    let same = || Context { defaults: context.defaults.clone(), inside_meta: context.inside_meta };
    if schema.get("uniqueItems").is_true() {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(schema.get("uniqueItems").forbidden(detail));
    }
    if additional.is_set() {
        if !schema.get("properties").is_empty() && !additional.is_true() {
            errors.push(additional.forbidden("additionalProperties and properties are mutual exclusive"));
        }
        let mut context = same();
        if context.inside_meta {
            context.defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        walk(&additional, &context, false, errors);
    }
    for (name, property) in schema.get("properties").entries() {
        let mut context = same();
        if (root || schema.get("x-kubernetes-embedded-resource").is_true()) && META.contains(&name) {
            context.inside_meta = true;
            if root {
                context.defaults = Some(format!("in top-level {name}"));
            }
        }
        walk(&property, &context, false, errors);
    }
    walk(&schema.get("not"), context, false, errors);
    for junctor in ["allOf", "oneOf", "anyOf"] {
        schema.get(junctor).items().iter().for_each(|s| walk(s, context, false, errors));
    }
    walk(&schema.get("items"), context, false, errors);
    extensions(schema, errors);
    list_type(schema, errors);
    rules(&schema.get("x-kubernetes-validations"), errors);
}

/// Upstream's `specStandardValidatorV3`.
fn unsupported(schema: &At<'_>, context: &Context, errors: &mut Errors) {
    let kind = schema.get("type");
    if !kind.is_empty() && !TYPES.contains(&kind.text()) {
        errors.push(kind.not_supported(&TYPES));
    }
    if let Some(reason) = &context.defaults
        && schema.get("default").is_set()
    {
        errors.push(schema.get("default").forbidden(&format!("must not be set {reason}")));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if !schema.get(name).is_empty() {
            errors.push(schema.get(name).forbidden(&format!("{name} is not supported")));
        }
    }
    if kind.text() == "null" {
        errors.push(kind.forbidden("type cannot be set to null, use nullable as an alternative"));
    }
    if schema.get("items").value.is_array() {
        errors.push(schema.get("items").forbidden("items must be a schema object and not an array"));
    }
    let embedded = schema.get("x-kubernetes-embedded-resource");
    if context.inside_meta && embedded.is_true() {
        errors.push(embedded.forbidden("must not be used inside of resource meta"));
    }
}

fn extensions(schema: &At<'_>, errors: &mut Errors) {
    let preserve = schema.get("x-kubernetes-preserve-unknown-fields");
    if preserve.is_set() && !preserve.is_true() {
        errors.push(preserve.invalid("must be true or undefined"));
    }
    let (map_type, kind) = (schema.get("x-kubernetes-map-type"), schema.get("type"));
    if map_type.is_set() && kind.text() != "object" {
        errors.push(must_be(&kind, "must be object if x-kubernetes-map-type is specified"));
    }
    map_type.one_of(&["atomic", "granular"], errors);
}

fn must_be(kind: &At<'_>, detail: &str) -> FieldError {
    if kind.is_empty() { kind.required(detail) } else { kind.invalid(detail) }
}

fn list_type(schema: &At<'_>, errors: &mut Errors) {
    let (list_type, keys) = (schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys"));
    let (kind, items) = (schema.get("type"), schema.get("items"));
    if list_type.is_set() && kind.text() != "array" {
        errors.push(must_be(&kind, "must be array if x-kubernetes-list-type is specified"));
    } else if list_type.text() == "set" {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let (inner_list, inner_map) = (items.get("x-kubernetes-list-type"), items.get("x-kubernetes-map-type"));
        match items.get("type").text() {
            "array" if inner_list.is_set() && inner_list.text() != "atomic" => errors.push(inner_list.invalid(detail)),
            "object" if inner_map.text() != "atomic" => errors.push(inner_map.invalid(detail)),
            _ => {}
        }
    }
    list_type.one_of(&["atomic", "set", "map"], errors);
    if !keys.is_empty() && list_type.text() != "map" {
        errors.push(must_be(&list_type, "must be map if x-kubernetes-list-map-keys is non-empty"));
    }
    if list_type.text() == "map" {
        map_keys(&keys, &items, errors);
    }
    if matches!(list_type.text(), "map" | "set") && items.get("nullable").is_true() {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {}", list_type.text());
        errors.push(items.get("nullable").forbidden(&detail));
    }
    if list_type.text() == "map" {
        let required: Vec<&str> = items.get("required").items().iter().map(At::text).collect();
        for key in keys.items() {
            let properties = items.get("properties");
            let Some(value) = properties.value.get(key.text()) else { continue };
            let property = At { value, path: properties.path.key(key.text()) };
            if !required.contains(&key.text()) && !property.get("default").is_set() {
                errors.push(property.get("default").required(
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                ));
            }
            if property.get("nullable").is_true() {
                let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                errors.push(property.get("nullable").forbidden(detail));
            }
        }
    }
}

fn map_keys(keys: &At<'_>, items: &At<'_>, errors: &mut Errors) {
    if keys.is_empty() {
        errors.push(keys.required("must not be empty if x-kubernetes-list-type is map"));
    }
    if !items.is_set() {
        errors.push(items.required("must have a schema if x-kubernetes-list-type is map"));
    } else if items.value.is_array() {
        errors.push(items.invalid("must only have a single schema if x-kubernetes-list-type is map"));
    } else if items.get("type").text() != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(&items.get("type").path, items.get("type").text(), detail));
    } else {
        let mut seen: Vec<&str> = Vec::new();
        for key in keys.items() {
            let properties = items.get("properties");
            match properties.value.get(key.text()) {
                None => errors.push(keys.invalid("entries must all be names of item properties")),
                Some(property) if matches!(text(property, "type"), "array" | "object") => {
                    let path = properties.path.key(key.text()).child("type");
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    errors.push(FieldError::invalid(&path, items.get("type").text(), detail));
                }
                Some(_) => {}
            }
            if seen.contains(&key.text()) {
                errors.push(keys.invalid("must not contain duplicate entries"));
            }
            seen.push(key.text());
        }
    }
}

/// The form of rules in CEL; what they say is not looked at.
fn rules(rules: &At<'_>, errors: &mut Errors) {
    for rule in rules.items() {
        let (message, expression) = (rule.get("message"), rule.get("messageExpression"));
        let breaks = |at: &At<'_>| at.text().trim().contains(['\n', '\r']);
        let blank = |at: &At<'_>| !at.text().is_empty() && at.text().trim().is_empty();
        if rule.get("rule").text().trim().is_empty() {
            errors.push(rule.get("rule").required("rule is not specified"));
        } else if blank(&message) {
            errors.push(message.invalid("must be non-empty if specified"));
        } else if breaks(&message) {
            errors.push(message.invalid("must not contain line breaks"));
        } else if breaks(&rule.get("rule")) && message.text().trim().is_empty() {
            errors.push(message.required("message must be specified if rule contains line breaks"));
        }
        if blank(&expression) {
            errors.push(expression.required("messageExpression must be non-empty if specified"));
        }
        rule.get("reason").one_of(&RULE_REASONS, errors);
        let path = rule.get("fieldPath");
        if blank(&path) {
            errors.push(path.invalid("must be non-empty if specified"));
        }
        if path.text().contains(['\n', '\r']) {
            errors.push(path.invalid("must not contain line breaks"));
        }
    }
}

/// Where a default is: the fields of an object that are metadata may only be judged with the rest of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// An object with metadata of its own.
    Root,
    Field,
    /// In the metadata, kind or version of one.
    Meta,
}

/// Defaults must be what an author could have written.
fn defaults(at: &At<'_>, schema: &Schema, place: Place, errors: &mut Errors) {
    let place = if schema.embedded { Place::Root } else { place };
    if let Some(default) = &schema.default {
        let path = at.path.child("default");
        let mut pruned = default.clone();
        prune::prune_part(schema, &mut pruned);
        let mut coerced = default.clone();
        if place != Place::Meta && pruned != *default {
            errors.push(FieldError::invalid(&path, default.clone(), "must not have unknown fields"));
        }
        let mut unknown = Vec::new();
        match prune::coerce(schema, &mut coerced, "", false, false, &mut unknown) {
            Err(why) => {
                let detail = why.split_once(": Invalid value: ").map_or(why.as_str(), |(_, detail)| detail);
                errors.push(FieldError::invalid(&path, default.clone(), detail));
            }
            Ok(()) => {
                let before = errors.len();
                metadata::validate(schema, &coerced, &path, errors);
                if errors.len() == before {
                    errors.extend(validate::validate(schema, default, None, &path));
                }
            }
        }
        if place == Place::Meta {
            meta_default(&path, at, default, errors);
        }
    }
    if let Some(items) = &schema.items {
        let below = if place == Place::Meta { Place::Meta } else { Place::Field };
        defaults(&at.get("items"), items, below, errors);
    }
    let properties = at.get("properties");
    for (name, property) in &schema.properties {
        let value = properties.value.get(name).unwrap_or(&Value::Null);
        let below = match place {
            Place::Meta => Place::Meta,
            Place::Root if META.contains(&name.as_str()) => Place::Meta,
            _ => Place::Field,
        };
        defaults(&At { value, path: properties.path.key(name) }, property, below, errors);
    }
}

/// A default of an embedded object's own kind, version or metadata must make them sound.
fn meta_default(path: &mini_api::FieldPath, at: &At<'_>, default: &Value, errors: &mut Errors) {
    let name = at.path.as_str().rsplit('[').next().unwrap_or_default().trim_end_matches(']');
    let mut object = json!({"apiVersion": "validation/v1", "kind": "Validation"});
    if !META.contains(&name) {
        return;
    }
    object[name] = default.clone();
    let embedded = Schema { embedded: true, ..Schema::default() };
    let mut wrong = Vec::new();
    metadata::validate(&embedded, &object, &mini_api::FieldPath::default(), &mut wrong);
    if let Some(first) = wrong.first() {
        errors.push(FieldError::invalid(path, default.clone(), format!("must result in valid metadata: {first}")));
    }
}
