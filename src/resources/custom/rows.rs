//! From a definition to its rows, one for each version that is served.

use super::schema::{Schema, strings};
use super::{Kind, Scale, print, version};
use crate::resource::{Hooks, Resource, Subresource};
use mini_api::{Meta, names};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const TERMINATING: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];
const CHANGE: &[&str] = &["get", "patch", "update"];

/// What all custom kinds share; the rest is in their [`Kind`].
static HOOKS: Hooks = Hooks { name: names::is_dns1123_subdomain, status_reset: false, ..Hooks::NONE };

/// The rows of a definition whose names are accepted.
#[must_use]
pub fn rows(definition: &Value) -> Vec<Resource> {
    let spec = definition.get("spec").unwrap_or(&Value::Null);
    let versions = spec.get("versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is = |v: &Value, name: &str| v.get(name).and_then(Value::as_bool) == Some(true);
    let stored = versions.iter().find(|v| is(v, "storage")).unwrap_or(&Value::Null);
    let stored_schema = Arc::new(Schema::read(schema_of(stored)));
    versions
        .iter()
        .filter(|v| is(v, "served"))
        .map(|v| row(definition, spec, v, (stored.text(&["name"]), stored_schema.clone())))
        .collect()
}

/// The row of the version in which objects are stored, served or not, for deleting them: whatever version they are
/// stored in, they are read.
#[must_use]
pub fn stored_row(definition: &Value) -> Resource {
    let mut definition = definition.clone();
    if let Some(conversion) = definition.pointer_mut("/spec/conversion") {
        *conversion = serde_json::json!({"strategy": "None"});
    }
    let definition = &definition;
    let spec = definition.get("spec").unwrap_or(&Value::Null);
    let versions = spec.get("versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let stored = versions.iter().find(|v| v.get("storage") == Some(&Value::Bool(true))).unwrap_or(&Value::Null);
    row(definition, spec, stored, (stored.text(&["name"]), Arc::new(Schema::read(schema_of(stored)))))
}

/// Differs whenever what is served of a definition differs.
#[must_use]
pub fn identity(definition: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    definition.uid().hash(&mut hasher);
    for part in [definition.get("spec"), definition.get("status").and_then(|s| s.get("acceptedNames"))] {
        part.map(ToString::to_string).hash(&mut hasher);
    }
    hasher.finish()
}

fn schema_of(version: &Value) -> &Value {
    version.get("schema").and_then(|s| s.get("openAPIV3Schema")).unwrap_or(&Value::Null)
}

fn row(definition: &Value, spec: &Value, version: &Value, stored: (&str, Arc<Schema>)) -> Resource {
    let group = spec.text(&["group"]);
    let accepted = definition.get("status").and_then(|s| s.get("acceptedNames"));
    let names = accepted.or(spec.get("names")).unwrap_or(&Value::Null);
    let name = |field: &str| names.text(&[field]).to_owned();
    let (kind, list_kind, plural) = (name("kind"), name("listKind"), name("plural"));
    let (api_name, schema) = (version.text(&["name"]).to_owned(), Arc::new(Schema::read(schema_of(version))));
    let (columns, printed) = print::columns(version);
    let fields: Vec<String> = version
        .get("selectableFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|f| f.text(&["jsonPath"]).trim_start_matches('.').to_owned())
        .collect();
    let subresource = |field: &str| version.get("subresources").and_then(|s| s.get(field));
    let mut subresources = Vec::new();
    if subresource("status").is_some() {
        subresources.push(Subresource {
            name: "status",
            kind: Cow::Owned(kind.clone()),
            group: Cow::Owned(group.to_owned()),
            version: Cow::Owned(api_name.clone()),
            verbs: CHANGE,
        });
    }
    if subresource("scale").is_some() {
        subresources.push(Subresource {
            name: "scale",
            kind: Cow::Borrowed("Scale"),
            group: Cow::Borrowed("autoscaling"),
            version: Cow::Borrowed("v1"),
            verbs: CHANGE,
        });
    }
    let (stored_name, stored_schema) = stored;
    let terminating = definition.is_deleting();
    let defaults = schema.any(&|s| s.default.is_some());
    // A definition that was never changed has stored nothing that it would not store now.
    let untouched = definition.get("metadata").and_then(|m| m.get("generation")).and_then(Value::as_i64) == Some(1);
    let webhook = spec.get("conversion").is_some_and(|c| c.text(&["strategy"]) == "Webhook");
    let custom = Kind {
        identity: identity(definition),
        list_kind,
        scale: subresource("scale").map(Scale::read),
        terminating,
        warning: deprecation(spec, version),
        webhook,
        unconvertible: webhook && stored_name != api_name,
        published: schema_of(version).clone(),
        selectable: fields.clone(),
        as_stored: stored_name == api_name && untouched && !defaults,
        stored: (format!("{group}/{stored_name}"), stored_schema),
        has_status: subresource("status").is_some(),
        schema,
        printed,
    };
    let mut reversed: Vec<&str> = group.split('.').collect();
    reversed.reverse();
    Resource {
        group: group.to_owned(),
        definition: format!("{}.{api_name}.{kind}", reversed.join(".")),
        // No built-in kind's objects are below this, whatever the names: a colon is in none of theirs.
        storage: format!("custom:{plural}.{group}"),
        version: api_name,
        kind,
        singular: name("singular"),
        short_names: strings(names.get("shortNames")),
        categories: strings(names.get("categories")),
        namespaced: spec.text(&["scope"]) == "Namespaced",
        verbs: if terminating { TERMINATING.to_vec() } else { VERBS.to_vec() },
        subresources,
        columns,
        fields,
        hooks: &HOOKS,
        custom: Some(Arc::new(custom)),
        plural,
    }
}

/// What clients of a deprecated version are told.
fn deprecation(spec: &Value, version: &Value) -> Option<String> {
    let is = |v: &Value, name: &str| v.get(name).and_then(Value::as_bool) == Some(true);
    if !is(version, "deprecated") {
        return None;
    }
    if let Some(own) = version.get("deprecationWarning").and_then(Value::as_str) {
        return Some(own.to_owned());
    }
    let (group, kind, name) = (spec.text(&["group"]), spec.text(&["names", "kind"]), version.text(&["name"]));
    let versions = spec.get("versions").and_then(Value::as_array).into_iter().flatten();
    let mut better: Vec<&str> = versions
        .filter(|v| is(v, "served") && !is(v, "deprecated"))
        .map(|v| v.text(&["name"]))
        .filter(|other| version::compare(other, name).is_lt())
        .collect();
    better.sort_by(|a, b| version::compare(a, b));
    let instead = better.first().map(|best| format!("; use {group}/{best} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{instead}"))
}
