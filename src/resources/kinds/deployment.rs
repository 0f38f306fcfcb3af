//! Deployment.

use super::replicas::{immutable_selector, template_containers, workload_selector};
use super::template;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, int};
use crate::defaults::{self, Default, Table};
use crate::resource::{Hooks, bump_generation, set_or_remove};
use mini_api::{FieldError, Meta, names};
use serde_json::{Value, json};

pub(crate) const HOOKS: Hooks = Hooks {
    default,
    status: &[("status", Default::Map)],
    prepare_update: |new, old, subresource| {
        if subresource == Some("status") {
            let labels = old.get("metadata").and_then(|m| m.get("labels")).cloned();
            set_or_remove(new.meta_mut(), "labels", labels);
        } else if annotations(new) != annotations(old) {
            // The controller copies annotations to ReplicaSets, so a change of them is work for it.
            bump_generation(new, old);
        }
    },
    name: names::is_dns1123_subdomain,
    validate,
    validate_update: |new, old, subresource, errors| match subresource {
        None => immutable_selector(new, old, errors),
        Some("status") => validate_status(new, old, errors),
        Some(_) => {}
    },
    columns: &[
        NAME,
        Column::text("Ready", "Pods that are ready, of those asked for."),
        Column::text("Up-to-date", "Pods of the newest template."),
        Column::text("Available", "Pods that have been ready long enough."),
        AGE,
        Column::wide("Containers", "Names of the containers of the template."),
        Column::wide("Images", "Images of the containers of the template."),
        Column::wide("Selector", "Labels of the pods that are counted."),
    ],
    cells: |v, now| {
        let (names, images) = template_containers(v);
        vec![
            columns::name(v),
            format!("{}/{}", int(v, &["status", "readyReplicas"]), int(v, &["spec", "replicas"])).into(),
            int(v, &["status", "updatedReplicas"]).into(),
            int(v, &["status", "availableReplicas"]).into(),
            columns::age(v, now),
            names.into(),
            images.into(),
            columns::selector(v.get("spec").and_then(|s| s.get("selector"))).into(),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

const DEFAULTS: Table = &[
    ("spec.replicas", Default::Int(1)),
    ("spec.revisionHistoryLimit", Default::Int(10)),
    ("spec.progressDeadlineSeconds", Default::Int(600)),
    ("spec.strategy", Default::Map),
    ("spec.strategy.type", Default::Str("RollingUpdate")),
];
const ROLLING: Table = &[("maxSurge", Default::Str("25%")), ("maxUnavailable", Default::Str("25%"))];

fn default(v: &mut Value) {
    defaults::apply(DEFAULTS, v);
    if v.text(&["spec", "strategy", "type"]) == "RollingUpdate" {
        let strategy = &mut v["spec"]["strategy"];
        if strategy.get("rollingUpdate").is_none_or(Value::is_null) {
            strategy["rollingUpdate"] = json!({});
        }
        defaults::apply_at("rollingUpdate", ROLLING, strategy);
    }
    template::default_at("spec.template", v);
}

fn annotations(v: &Value) -> Option<&serde_json::Map<String, Value>> {
    columns::map(v, &["metadata", "annotations"]).filter(|a| !a.is_empty())
}

fn validate(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    spec.get("replicas").non_negative(errors);
    if let Some(selector) = workload_selector(&spec, "deployment", errors) {
        template::validate_replicated(&spec.get("template"), &selector, "ReplicaSet", errors);
    }
    strategy(&spec.get("strategy"), errors);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        spec.get(field).non_negative(errors);
    }
    let deadline = spec.get("progressDeadlineSeconds");
    if deadline.int().is_some_and(|d| d <= spec.get("minReadySeconds").int().unwrap_or(0)) {
        errors.push(deadline.invalid("must be greater than minReadySeconds"));
    }
}

fn strategy(at: &At<'_>, errors: &mut Errors) {
    let rolling = at.get("rollingUpdate");
    match at.get("type").text() {
        "Recreate" => {
            if rolling.is_set() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(rolling.forbidden(detail));
            }
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            int_or_percent(&unavailable, errors);
            int_or_percent(&surge, errors);
            if is_zero(unavailable.value) && is_zero(surge.value) {
                errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
            }
            not_more_than_all(&unavailable, errors);
        }
        _ => errors.push(at.not_supported(&["Recreate", "RollingUpdate"])),
    }
}

/// A number that is not negative, or a percentage.
pub(crate) fn int_or_percent(at: &At<'_>, errors: &mut Errors) {
    match at.value {
        Value::String(text) => at.messages(names::is_percent(text), errors),
        Value::Number(_) => at.non_negative(errors),
        _ => {}
    }
}

fn percent(v: &Value) -> Option<i64> {
    v.as_str()?.strip_suffix('%')?.parse().ok()
}

pub(crate) fn is_zero(v: &Value) -> bool {
    v.as_i64() == Some(0) || percent(v) == Some(0)
}

pub(crate) fn not_more_than_all(at: &At<'_>, errors: &mut Errors) {
    if percent(at.value).is_some_and(|p| p > 100) {
        errors.push(FieldError::invalid(&at.path, at.value.clone(), "must not be greater than 100%"));
    }
}

fn validate_status(new: &Value, old: &Value, errors: &mut Errors) {
    let status = At::root(new).get("status");
    let count = |name: &str| status.get(name).int().unwrap_or(0);
    for field in [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
    ] {
        status.get(field).non_negative(errors);
    }
    for field in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
        if count(field) > count("replicas") {
            errors.push(status.get(field).invalid("cannot be greater than status.replicas"));
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        errors.push(status.get("availableReplicas").invalid("cannot be greater than readyReplicas"));
    }
    if count("collisionCount") < int(old, &["status", "collisionCount"]) {
        errors.push(FieldError::invalid(
            &status.get("collisionCount").path,
            count("collisionCount"),
            "cannot be decremented",
        ));
    }
}
