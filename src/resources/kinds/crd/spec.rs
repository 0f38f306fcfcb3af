//! The spec of a definition: group, names, versions with their columns and subresources, conversion.

use super::{schema, structural};
use crate::check::{At, Errors};
use mini_api::names::{is_dns1035_label, is_dns1123_subdomain};
use mini_api::{FieldError, Meta};
use serde_json::Value;
use std::collections::BTreeSet;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const SELECTABLE_MAX: usize = 8;
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub(super) fn validate(spec: &At<'_>, errors: &mut Errors) {
    let group = spec.get("group");
    if group.is_empty() {
        errors.push(group.required(""));
    } else {
        let wrong = is_dns1123_subdomain(group.text());
        if !wrong.is_empty() {
            errors.push(group.invalid(wrong.join(",")));
        } else if !group.text().contains('.') {
            errors.push(group.invalid("should be a domain with at least one dot"));
        }
    }
    spec.get("scope").required_one_of(&["Cluster", "Namespaced"], errors);
    let versions = spec.get("versions");
    for version in versions.items() {
        let schema = version.get("schema").get("openAPIV3Schema");
        if !schema.is_set() {
            errors.push(schema.required(""));
        }
    }
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for version in versions.items() {
        let name = version.get("name");
        unique &= seen.insert(name.text().to_owned());
        let wrong = is_dns1035_label(name.text());
        if !wrong.is_empty() {
            errors.push(name.invalid(wrong.join(",")));
        }
        validate_version(&version, errors);
    }
    if !unique {
        errors.push(versions.invalid("must contain unique version names"));
    }
    if versions.items().iter().filter(|v| v.get("storage").is_true()).count() != 1 {
        errors.push(versions.invalid("must have exactly one version marked as storage version"));
    }
    for name in ["plural", "singular", "kind", "listKind"] {
        let name = spec.get("names").get(name);
        if name.is_empty() {
            errors.push(name.required(""));
        }
    }
    names(&spec.get("names"), errors);
    conversion(&spec.get("conversion"), errors);
    let preserve = spec.get("preserveUnknownFields");
    if preserve.is_true() {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema \
                      instead";
        errors.push(preserve.invalid(detail));
    }
}

/// `spec.names` or `status.acceptedNames`, of which the second may be empty.
pub(super) fn names(names: &At<'_>, errors: &mut Errors) {
    let label = |at: &At<'_>, text: &str, start: &str, errors: &mut Errors| {
        let wrong = is_dns1035_label(text);
        if !wrong.is_empty() {
            errors.push(at.invalid(format!("{start}{}", wrong.join(","))));
        }
    };
    for name in ["plural", "singular"].map(|n| names.get(n)).iter().filter(|n| !n.is_empty()) {
        label(name, name.text(), "", errors);
    }
    for name in ["kind", "listKind"].map(|n| names.get(n)).iter().filter(|n| !n.is_empty()) {
        let start = "may have mixed case, but should otherwise match: ";
        label(name, &name.text().to_lowercase(), start, errors);
    }
    for name in names.get("shortNames").items() {
        label(&name, name.text(), "", errors);
    }
    let (kind, list_kind) = (names.get("kind"), names.get("listKind"));
    if !kind.is_empty() && kind.text() == list_kind.text() {
        errors.push(list_kind.invalid("kind and listKind may not be the same"));
    }
    for category in names.get("categories").items() {
        label(&category, category.text(), "", errors);
    }
}

fn validate_version(version: &At<'_>, errors: &mut Errors) {
    let warning = version.get("deprecationWarning");
    if warning.is_set() {
        deprecation(version, &warning, errors);
    }
    let subresources = version.get("subresources");
    let schema = version.get("schema").get("openAPIV3Schema");
    if schema.is_set() {
        schema::validate_root(&schema, subresources.get("status").is_set(), errors);
    }
    if subresources.get("scale").is_set() {
        scale(&subresources, errors);
    }
    for column in version.get("additionalPrinterColumns").items() {
        validate_column(&column, errors);
    }
    selectable_fields(version, errors);
}

fn deprecation(version: &At<'_>, warning: &At<'_>, errors: &mut Errors) {
    if !version.get("deprecated").is_true() {
        errors.push(warning.invalid("can only be set for deprecated versions"));
    }
    if warning.text().len() > 256 {
        errors.push(warning.invalid("must be <= 256 characters long"));
    }
    if warning.text().is_empty() {
        errors.push(warning.invalid("must not be an empty string"));
    }
    if let Some((i, _)) = warning.text().char_indices().find(|(_, c)| c.is_control()) {
        let detail = "must only contain printable UTF-8 characters; non-printable character found at index";
        errors.push(warning.invalid(format!("{detail} {i}")));
    }
}

fn validate_column(column: &At<'_>, errors: &mut Errors) {
    let (name, kind, format) = (column.get("name"), column.get("type"), column.get("format"));
    if name.is_empty() {
        errors.push(name.required(""));
    }
    let types = format!("must be one of {}", COLUMN_TYPES.join(","));
    if kind.is_empty() {
        errors.push(kind.required(&types));
    } else if !COLUMN_TYPES.contains(&kind.text()) {
        errors.push(kind.invalid(types));
    }
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format.text()) {
        errors.push(format.invalid(format!("must be one of {}", COLUMN_FORMATS.join(","))));
    }
    let path = At { value: column.get("jsonPath").value, path: column.path.child("JSONPath") };
    if path.is_empty() {
        errors.push(path.required(""));
    } else {
        simple_path(&path, &[], "", errors);
    }
}

fn scale(subresources: &At<'_>, errors: &mut Errors) {
    for (name, under, should) in [
        ("specReplicasPath", &[".spec."][..], "should be a json path under .spec"),
        ("statusReplicasPath", &[".status."], "should be a json path under .status"),
        ("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status"),
    ] {
        let path = subresources.get("scale").get(name);
        if !path.is_empty() {
            simple_path(&path, under, should, errors);
        } else if name != "labelSelectorPath" {
            errors.push(path.required(""));
        }
    }
}

fn simple_path(path: &At<'_>, under: &[&str], should: &str, errors: &mut Errors) {
    if !path.text().starts_with('.') {
        errors.push(path.invalid("must be a simple json path starting with ."));
    } else if !under.is_empty() && !under.iter().any(|start| path.text().starts_with(start)) {
        errors.push(path.invalid(should));
    }
}

fn selectable_fields(version: &At<'_>, errors: &mut Errors) {
    let fields = version.get("selectableFields");
    let schema = version.get("schema").get("openAPIV3Schema");
    if fields.is_empty() {
        return;
    }
    if !schema.is_set() {
        let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
        errors.push(FieldError::invalid(&fields.path, "", detail));
        return;
    }
    let mut seen = BTreeSet::new();
    for field in fields.items() {
        let path = field.get("jsonPath");
        if path.is_empty() {
            errors.push(path.required(""));
            continue;
        }
        let kind = match structural::field_type(schema.value, path.text()) {
            Ok(kind) => kind,
            Err(why) => {
                errors.push(path.invalid(format!("is an invalid path: {why}")));
                continue;
            }
        };
        if path.text().starts_with(".metadata") {
            errors.push(path.invalid("must not point to fields in metadata"));
        }
        if !matches!(kind, "string" | "boolean" | "integer") {
            errors.push(path.invalid(
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                 are allowed.",
            ));
        }
        if !seen.insert(path.text()) {
            errors.push(path.duplicate());
        }
    }
    if seen.len() > SELECTABLE_MAX {
        errors.push(FieldError {
            kind: mini_api::FieldErrorType::TooMany,
            path: fields.path.clone(),
            value: Some(seen.len().into()),
            detail: format!("must have at most {SELECTABLE_MAX} items"),
        });
    }
}

fn conversion(conversion: &At<'_>, errors: &mut Errors) {
    if !conversion.is_set() {
        return;
    }
    conversion.get("strategy").required_one_of(&["None", "Webhook"], errors);
    let webhook = conversion.get("webhook");
    // Upstream's fields of old, under which it still reports them.
    let client = At { value: webhook.get("clientConfig").value, path: conversion.path.child("webhookClientConfig") };
    let versions = webhook.get("conversionReviewVersions");
    let versions = At { value: versions.value, path: conversion.path.child("conversionReviewVersions") };
    if conversion.get("strategy").text() != "Webhook" {
        for field in [&client, &versions] {
            if field.is_set() {
                errors.push(field.forbidden("should not be set when strategy is not set to Webhook"));
            }
        }
        return;
    }
    let (url, service) = (client.get("url"), client.get("service"));
    if !client.is_set() {
        errors.push(client.required("required when strategy is set to Webhook"));
    } else if url.is_set() == service.is_set() {
        errors.push(client.required("exactly one of url or service is required"));
    } else if url.is_set() {
        webhook_url(&url, errors);
    } else {
        service.get("name").must_be_set(errors);
        service.get("namespace").must_be_set(errors);
        let port = service.get("port");
        if port.int().is_some_and(|p| !(1..=65535).contains(&p)) {
            errors.push(port.invalid("port is not valid: must be between 1 and 65535, inclusive"));
        }
    }
    review_versions(&versions, errors);
}

fn webhook_url(url: &At<'_>, errors: &mut Errors) {
    let form = "; desired format: https://host[/path]";
    let rest = url.text().split_once("://");
    match rest {
        Some(("https", rest)) if !rest.is_empty() && !rest.starts_with('/') => {
            for (mark, what) in [('@', "user information"), ('#', "fragments"), ('?', "query parameters")] {
                if let Some((_, after)) = rest.split_once(mark) {
                    let after = if mark == '@' { rest.split('@').next().unwrap_or_default() } else { after };
                    let detail = format!("{what} are not permitted in the URL");
                    errors.push(FieldError::invalid(&url.path, after, detail));
                }
            }
        }
        Some(("https", _)) => {
            errors.push(FieldError::invalid(&url.path, "", format!("host must be specified{form}")));
        }
        Some((scheme, _)) => {
            let detail = format!("'https' is the only allowed URL scheme{form}");
            errors.push(FieldError::invalid(&url.path, scheme, detail));
        }
        None => {
            let detail = format!("'https' is the only allowed URL scheme{form}");
            errors.push(FieldError::invalid(&url.path, "", detail));
        }
    }
}

fn review_versions(versions: &At<'_>, errors: &mut Errors) {
    if versions.is_empty() {
        errors.push(versions.required(""));
        return;
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        if !seen.insert(version.text().to_owned()) {
            errors.push(version.invalid("duplicate version"));
            continue;
        }
        version.messages(is_dns1035_label(version.text()), errors);
    }
    if !REVIEW_VERSIONS.iter().any(|v| seen.contains(*v)) {
        errors.push(versions.invalid(format!("must include at least one of {}", REVIEW_VERSIONS.join(", "))));
    }
}

/// The text of a field of a schema.
pub(super) fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema.text(&[name])
}
