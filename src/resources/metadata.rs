//! Rules for `metadata` of every kind: names, labels, annotations, owners, finalizers, and what an update may change.

use crate::check::{At, Errors};
use crate::resource::Resource;
use mini_api::apply::managers::is_printable;
use mini_api::{FieldError, names};
use serde_json::Value;

/// All annotations of an object together may not be larger, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;
/// The longest names of a manager of fields and of the subresource it used, in bytes.
const MANAGER_MAX: usize = 128;
/// Nobody has as many; whoever sends them wants the server's time.
const MANAGERS_MAX: usize = 1000;
const SUBRESOURCE_MAX: usize = 256;

pub(crate) fn validate(resource: &Resource, v: &Value, errors: &mut Errors) {
    let meta = At::root(v).get("metadata");
    let (name, prefix) = (meta.get("name"), meta.get("generateName"));
    if !prefix.is_empty() {
        // What is generated is the prefix and a suffix, so a dash at the end is fine.
        let masked = prefix.text().strip_suffix('-').map(|p| format!("{p}a"));
        prefix.messages((resource.hooks.name)(masked.as_deref().unwrap_or(prefix.text())), errors);
    }
    if name.is_empty() {
        errors.push(name.required("name or generateName is required"));
    } else {
        name.messages((resource.hooks.name)(name.text()), errors);
    }
    let namespace = meta.get("namespace");
    if resource.namespaced {
        if namespace.is_empty() {
            errors.push(namespace.required(""));
        } else {
            namespace.messages(names::is_dns1123_label(namespace.text()), errors);
        }
    } else if !namespace.is_empty() {
        errors.push(namespace.forbidden("not allowed on this type"));
    }
    shared(&meta, errors);
    if standard_finalizers(resource) {
        for item in meta.get("finalizers").items() {
            if !item.text().contains('/') && !matches!(item.text(), "kubernetes" | "orphan" | "foregroundDeletion") {
                errors.push(item.invalid("name is neither a standard finalizer name nor is it fully qualified"));
            }
        }
    }
}

/// Kinds whose finalizers are upstream's own or have a domain: all but those that upstream checks outside its core.
fn standard_finalizers(resource: &Resource) -> bool {
    const GENERIC: [&str; 4] =
        ["admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "coordination.k8s.io"];
    resource.custom.is_none() && !GENERIC.contains(&resource.group.as_str())
}

/// The metadata of an object inside another one, which needs no name and may have a namespace.
pub(crate) fn validate_embedded(meta: &At<'_>, errors: &mut Errors) {
    for name in [meta.get("generateName"), meta.get("name")].iter().filter(|name| !name.is_empty()) {
        name.messages(names::is_path_segment(name.text()), errors);
    }
    let namespace = meta.get("namespace");
    if !namespace.is_empty() {
        namespace.messages(names::is_dns1123_label(namespace.text()), errors);
    }
    shared(meta, errors);
}

fn shared(meta: &At<'_>, errors: &mut Errors) {
    labels(&meta.get("labels"), errors);
    annotations(&meta.get("annotations"), errors);
    owners(&meta.get("ownerReferences"), errors);
    finalizers(&meta.get("finalizers"), errors);
    managed_fields(&meta.get("managedFields"), errors);
}

fn managed_fields(at: &At<'_>, errors: &mut Errors) {
    let count = at.items().len();
    if count > MANAGERS_MAX {
        return errors.push(FieldError::too_many(&at.path, count, MANAGERS_MAX));
    }
    for entry in at.items() {
        let (operation, kind, manager) = (entry.get("operation"), entry.get("fieldsType"), entry.get("manager"));
        if operation.is_empty() {
            errors.push(operation.required("must not be empty"));
        } else {
            operation.one_of(&["Apply", "Update"], errors);
        }
        if !kind.is_empty() && kind.text() != "FieldsV1" {
            errors.push(kind.invalid("must be `FieldsV1`"));
        }
        if manager.text().len() > MANAGER_MAX {
            errors.push(FieldError::too_long(&manager.path, MANAGER_MAX));
        }
        if !manager.text().chars().all(is_printable) {
            errors.push(manager.invalid("should only contain printable characters"));
        }
        if entry.get("subresource").text().len() > SUBRESOURCE_MAX {
            errors.push(FieldError::too_long(&entry.get("subresource").path, SUBRESOURCE_MAX));
        }
    }
}

/// A map of labels; errors name the map, as upstream's do.
pub(crate) fn labels(at: &At<'_>, errors: &mut Errors) {
    for (key, value) in at.entries() {
        for message in names::is_qualified_name(key) {
            errors.push(FieldError::invalid(&at.path, key, message));
        }
        for message in names::is_label_value(value.text()) {
            errors.push(FieldError::invalid(&at.path, value.text(), message));
        }
    }
}

pub(crate) fn annotations(at: &At<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in at.entries() {
        for message in names::is_qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(&at.path, key, message));
        }
        size += key.len() + value.text().len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(&at.path, ANNOTATIONS_MAX));
    }
}

fn owners(at: &At<'_>, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in at.items() {
        let version = owner.get("apiVersion");
        if !version.is_empty() && (version.text().matches('/').count() > 1 || version.text().ends_with('/')) {
            errors.push(version.invalid("must be <group>/<version> or <version>"));
        }
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).is_empty() {
                errors.push(owner.get(field).required("must not be empty"));
            }
        }
        if owner.get("kind").text() == "Event" && version.text() == "v1" {
            errors.push(owner.invalid("/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner.get("controller").is_true() {
            let name = format!("{}/{}", owner.get("kind").text(), owner.get("name").text());
            match &controller {
                Some(first) => errors.push(at.invalid(format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                ))),
                None => controller = Some(name),
            }
        }
    }
}

fn finalizers(at: &At<'_>, errors: &mut Errors) {
    let mut policies = 0;
    for item in at.items() {
        for message in names::is_qualified_name(item.text()) {
            errors.push(FieldError::invalid(&at.path, item.text(), message));
        }
        policies += usize::from(matches!(item.text(), "orphan" | "foregroundDeletion"));
    }
    if policies > 1 {
        errors.push(at.invalid("finalizer orphan and foregroundDeletion cannot be both set"));
    }
}

pub(crate) fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (meta, old_meta) = (At::root(new).get("metadata"), At::root(old).get("metadata"));
    for field in ["name", "namespace", "uid"] {
        meta.get(field).immutable(&old_meta.get(field), errors);
    }
    let (deleted, old_deleted) = (meta.get("deletionTimestamp"), old_meta.get("deletionTimestamp"));
    if deleted.is_set() && !old_deleted.is_set() {
        errors.push(deleted.invalid("field is immutable; may only be changed via deletion"));
    }
    if old_deleted.is_set() {
        let before: Vec<&str> = old_meta.get("finalizers").items().iter().map(At::text).collect();
        let finalizers = meta.get("finalizers");
        let added: Vec<&str> = finalizers.items().iter().map(At::text).filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.iter().map(|f| format!("\"{f}\"")).collect::<Vec<_>>().join(", ")
            );
            errors.push(finalizers.forbidden(&detail));
        }
    }
}
