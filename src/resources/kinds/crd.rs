//! CustomResourceDefinition: what its author may leave out, and what makes a definition sound.

mod schema;
mod spec;
mod structural;

use crate::check::{At, Errors};
use crate::columns::{self, CREATED_AT, NAME};
use crate::custom::names::{Approval, approval_of, is_protected, is_true};
use crate::normalize;
use crate::resource::Hooks;
use mini_api::meta::{child_mut, object_mut};
use mini_api::{FieldError, Meta, names};
use serde_json::{Value, json};

const APPROVED: &str = "api-approved.kubernetes.io";
const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

pub(crate) const HOOKS: Hooks = Hooks {
    default,
    prepare_create: |v| {
        object_mut(v).insert("status".to_owned(), json!({"acceptedNames": {"kind": "", "plural": ""}}));
        keep_stored_version(v);
    },
    prepare_update: |new, _, subresource| {
        if subresource.is_none() {
            keep_stored_version(new);
        }
    },
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let at = At::root(v);
        spec::validate(&at.get("spec"), errors);
        status(&at, errors);
    },
    validate_create: |v, errors| {
        let at = At::root(v);
        let wanted = format!("{}.{}", v.text(&["spec", "names", "plural"]), v.text(&["spec", "group"]));
        if v.name() != wanted {
            errors.push(at.get("metadata").get("name").invalid("must be spec.names.plural+\".\"+spec.group"));
        }
        approval(&at, None, errors);
    },
    validate_update: |new, old, subresource, errors| {
        if subresource.is_some() {
            spec::names(&At::root(new).get("status").get("acceptedNames"), errors);
            return;
        }
        let (spec, old_spec) = (At::root(new).get("spec"), At::root(old).get("spec"));
        if is_true(old, "Established") {
            spec.get("scope").immutable(&old_spec.get("scope"), errors);
            spec.get("names").get("kind").immutable(&old_spec.get("names").get("kind"), errors);
        }
        spec.get("group").immutable(&old_spec.get("group"), errors);
        spec.get("names").get("plural").immutable(&old_spec.get("names").get("plural"), errors);
        approval(&At::root(new), Some(old), errors);
    },
    columns: &[NAME, CREATED_AT],
    cells: |v, _| vec![columns::name(v), v.text(&["metadata", "creationTimestamp"]).into()],
    generation: true,
    ..Hooks::NONE
};

fn default(v: &mut Value) {
    let spec = child_mut(object_mut(v), "spec");
    if spec.get("preserveUnknownFields") == Some(&Value::Bool(false)) {
        spec.remove("preserveUnknownFields");
    }
    let names = child_mut(spec, "names");
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (field, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
        if !kind.is_empty() && names.get(field).and_then(Value::as_str).unwrap_or_default().is_empty() {
            names.insert(field.to_owned(), value.into());
        }
    }
    let conversion = child_mut(spec, "conversion");
    if conversion.is_empty() {
        conversion.insert("strategy".to_owned(), "None".into());
    }
    if let Some(service) = spec.get_mut("conversion").and_then(|c| c.pointer_mut("/webhook/clientConfig/service")) {
        object_mut(service).entry("port").or_insert(443.into());
    }
    for version in spec.get_mut("versions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
            within(schema);
        }
    }
    let stored = v.get("status").and_then(|s| s.get("storedVersions")).and_then(Value::as_array);
    if stored.is_none_or(Vec::is_empty) {
        keep_stored_version(v);
    }
}

/// Fields that are a schema or something else are not decoded with the rest: what is unknown in them goes unreported.
fn within(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for (name, value) in map.iter_mut() {
        match (name.as_str(), value) {
            ("items" | "additionalProperties" | "additionalItems", value @ Value::Object(_)) => {
                // What cannot be decoded is refused by validation, as something else than a schema.
                let _ = normalize::part(SCHEMA, value, "");
                within(value);
            }
            ("not", value) => within(value),
            ("properties" | "patternProperties" | "definitions", Value::Object(schemas)) => {
                schemas.values_mut().for_each(within);
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => schemas.iter_mut().for_each(within),
            _ => {}
        }
    }
}

/// Adds the version that objects are stored in to those that they have been stored in.
fn keep_stored_version(v: &mut Value) {
    let versions = v.get("spec").and_then(|s| s.get("versions")).and_then(Value::as_array);
    let stored = versions.into_iter().flatten().find(|v| v.get("storage") == Some(&Value::Bool(true)));
    let Some(name) = stored.map(|v| Value::from(v.text(&["name"]))) else { return };
    let list = child_mut(object_mut(v), "status").entry("storedVersions").or_insert_with(|| json!([]));
    if let Value::Array(list) = list
        && !list.contains(&name)
    {
        list.push(name);
    }
}

fn status(at: &At<'_>, errors: &mut Errors) {
    let status = at.get("status");
    spec::names(&status.get("acceptedNames"), errors);
    let stored = status.get("storedVersions");
    if stored.is_empty() {
        errors.push(FieldError::invalid(&stored.path, json!([]), "must have at least one stored version"));
        return;
    }
    let versions = at.get("spec").get("versions").items();
    for version in &versions {
        let name = version.get("name");
        if version.get("storage").is_true() && !stored.items().iter().any(|s| s.text() == name.text()) {
            errors.push(stored.invalid(format!("must have the storage version {}", name.text())));
        }
    }
    for version in stored.items() {
        let name = version.text();
        if !versions.iter().any(|v| v.get("name").text() == name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.push(version.invalid(detail));
        }
    }
}

/// Groups of the Kubernetes project need an annotation that says where their kind was approved.
fn approval(at: &At<'_>, old: Option<&Value>, errors: &mut Errors) {
    if !is_protected(at.get("spec").get("group").text()) {
        return;
    }
    let of = |v: &Value| approval_of(v.text(&["metadata", "annotations", APPROVED]));
    let state = of(at.value);
    if old.is_some_and(|old| of(old) == state) {
        return;
    }
    let path = at.get("metadata").get("annotations").path.key(APPROVED);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match state {
        Approval::Approved | Approval::Bypassed => {}
        Approval::Missing => {
            let detail = format!("protected groups must have approval annotation \"{APPROVED}\", {see}");
            errors.push(FieldError::required(&path, detail));
        }
        Approval::Invalid => {
            let given = at.value.text(&["metadata", "annotations", APPROVED]);
            let detail = format!(
                "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting \
                 with \"unapproved\", {see}"
            );
            errors.push(FieldError::invalid(&path, given, detail));
        }
    }
}

#[cfg(test)]
mod tests;
