//! LimitRange.

use crate::check::{At, Errors};
use crate::columns::{self, NAME};
use crate::kinds::pod::spec::resource_amount;
use crate::resource::Hooks;
use mini_api::meta::{child_mut, object_mut};
use mini_api::{FieldError, Meta, names};
use serde_json::Value;
use std::collections::BTreeSet;

pub(crate) const RANGE: Hooks = Hooks {
    default: |v| crate::defaults::each(v, "spec.limits[]", &mut default_limit),
    name: names::is_dns1123_subdomain,
    validate: validate_range,
    columns: &[NAME, columns::CREATED_AT],
    cells: |v, _| vec![columns::name(v), v.text(&["metadata", "creationTimestamp"]).into()],
    ..Hooks::NONE
};

/// For containers the maximum is the default limit, and the default limit the default request.
fn default_limit(item: &mut Value) {
    if item.text(&["type"]) != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let source = item.get(from).and_then(Value::as_object).cloned().unwrap_or_default();
        if source.is_empty() {
            continue;
        }
        let target = child_mut(object_mut(item), to);
        for (name, amount) in source {
            target.entry(name).or_insert(amount);
        }
    }
}

fn validate_range(v: &Value, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for item in At::root(v).get("spec").get("limits").items() {
        let kind = item.get("type");
        if !kind.text().contains('/') {
            kind.required_one_of(&["Container", "PersistentVolumeClaim", "Pod"], errors);
        }
        if !seen.insert(kind.text()) {
            errors.push(kind.duplicate());
        }
        let fields = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
        let mut resources = BTreeSet::new();
        for field in fields {
            let at = item.get(field);
            if kind.text() == "Pod" && field.starts_with("default") && !at.is_empty() {
                errors.push(at.forbidden("may not be specified when `type` is 'Pod'"));
                continue;
            }
            for (name, amount) in at.entries() {
                resources.insert(name);
                for message in names::is_qualified_name(name) {
                    errors.push(FieldError::invalid(&amount.path, name, message));
                }
                resource_amount(name, &amount, errors);
            }
        }
        if kind.text() == "PersistentVolumeClaim" && !["min", "max"].iter().any(|f| item.get(f).get("storage").is_set())
        {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(&item.path.child("limits"), detail));
        }
        for name in resources {
            ordered(&item, name, errors);
        }
    }
}

/// Minimum, default request, default and maximum of one resource, from small to large.
fn ordered(item: &At<'_>, name: &str, errors: &mut Errors) {
    const ORDER: [(&str, &str, &str, &str, &str); 6] = [
        ("min", "max", "min", "min value", "max value"),
        ("min", "defaultRequest", "defaultRequest", "min value", "default request value"),
        ("defaultRequest", "max", "defaultRequest", "default request value", "max value"),
        ("defaultRequest", "default", "defaultRequest", "default request value", "default limit value"),
        ("min", "default", "default", "min value", "default value"),
        ("default", "max", "default", "default value", "max value"),
    ];
    let amount = |field: &str| {
        let at = item.get(field);
        At { value: at.value.get(name).unwrap_or(&Value::Null), path: at.path.key(name) }
    };
    for (small, large, blamed, small_words, large_words) in ORDER {
        let (Some(low), Some(high)) = (amount(small).quantity(), amount(large).quantity()) else { continue };
        if low > high {
            errors.push(amount(blamed).invalid(format!("{small_words} {low} is greater than {large_words} {high}")));
        }
    }
}
