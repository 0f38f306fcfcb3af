//! ReplicationController and ReplicaSet.

use super::template;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, int};
use crate::defaults::{self, Default, Table};
use crate::kinds::pod::spec::label_selector;
use crate::resource::Hooks;
use jiff::Timestamp;
use mini_api::selector::LabelSelector;
use mini_api::{Meta, names};
use serde_json::Value;

pub(crate) const CONTROLLER: Hooks = Hooks {
    default: default_controller,
    status: STATUS,
    name: names::is_dns1123_subdomain,
    validate: validate_controller,
    validate_update: |new, _, subresource, errors| validate_status(new, subresource, errors),
    columns: COLUMNS,
    cells: |v, now| cells(v, now, columns::labels(columns::map(v, &["spec", "selector"]))),
    generation: true,
    ..Hooks::NONE
};

pub(crate) const SET: Hooks = Hooks {
    default: |v| {
        defaults::apply(DEFAULTS, v);
        template::default_at("spec.template", v);
    },
    status: STATUS,
    name: names::is_dns1123_subdomain,
    validate: validate_set,
    validate_update: |new, old, subresource, errors| {
        if subresource.is_none() {
            immutable_selector(new, old, errors);
        }
        validate_status(new, subresource, errors);
    },
    columns: COLUMNS,
    cells: |v, now| cells(v, now, columns::selector(v.get("spec").and_then(|s| s.get("selector")))),
    generation: true,
    ..Hooks::NONE
};

const DEFAULTS: Table = &[("spec.replicas", Default::Int(1))];
const STATUS: Table = &[("status", Default::Map), ("status.replicas", Default::Int(0))];

const COLUMNS: &[Column] = &[
    NAME,
    Column::number("Desired", "Pods asked for."),
    Column::number("Current", "Pods that exist."),
    Column::number("Ready", "Pods that are ready."),
    AGE,
    Column::wide("Containers", "Names of the containers of the template."),
    Column::wide("Images", "Images of the containers of the template."),
    Column::wide("Selector", "Labels of the pods that are counted."),
];

fn cells(v: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    let (names, images) = template_containers(v);
    vec![
        columns::name(v),
        int(v, &["spec", "replicas"]).into(),
        int(v, &["status", "replicas"]).into(),
        int(v, &["status", "readyReplicas"]).into(),
        columns::age(v, now),
        names.into(),
        images.into(),
        selector.into(),
    ]
}

/// Names and images of the containers of `spec.template`.
pub(crate) fn template_containers(v: &Value) -> (String, String) {
    let spec = v.get("spec").and_then(|s| s.get("template")).and_then(|t| t.get("spec"));
    columns::containers_and_images(spec)
}

/// A controller without a selector, or without labels, takes those of its template.
fn default_controller(v: &mut Value) {
    let labels = columns::map(v, &["spec", "template", "metadata", "labels"]).filter(|l| !l.is_empty()).cloned();
    if let Some(labels) = labels {
        let labels = Value::Object(labels);
        if columns::map(v, &["spec", "selector"]).is_none_or(serde_json::Map::is_empty)
            && let Some(spec) = v.get_mut("spec").filter(|s| s.is_object())
        {
            spec["selector"] = labels.clone();
        }
        if v.labels().is_none_or(serde_json::Map::is_empty) {
            v.meta_mut().insert("labels".to_owned(), labels);
        }
    }
    defaults::apply(DEFAULTS, v);
    template::default_at("spec.template", v);
}

fn validate_controller(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    spec.get("minReadySeconds").non_negative(errors);
    let selector = spec.get("selector");
    selector.must_be_set(errors);
    spec.get("replicas").non_negative(errors);
    let template = spec.get("template");
    if !template.is_set() {
        return errors.push(template.required(""));
    }
    let parsed = selector.value.as_object().and_then(|m| LabelSelector::from_map(m).ok()).unwrap_or_default();
    template::validate_replicated(&template, &parsed, "ReplicationController", errors);
}

fn validate_set(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    spec.get("replicas").non_negative(errors);
    spec.get("minReadySeconds").non_negative(errors);
    if let Some(selector) = workload_selector(&spec, "deployment", errors) {
        template::validate_replicated(&spec.get("template"), &selector, "ReplicaSet", errors);
    }
}

/// The selector of something in `apps`: there, well formed and not empty. None where it cannot be read.
pub(crate) fn workload_selector(spec: &At<'_>, kind: &str, errors: &mut Errors) -> Option<LabelSelector> {
    let at = spec.get("selector");
    // Upstream asks for that of a DaemonSet, too, but in the words about its template alone.
    let is_daemon = kind == "daemonset";
    if !at.is_set() && !is_daemon {
        errors.push(at.required(""));
    }
    label_selector(&at, errors);
    if at.is_set() && at.get("matchLabels").is_empty() && at.get("matchExpressions").is_empty() {
        errors.push(at.invalid(format!("empty selector is invalid for {kind}")));
    }
    match LabelSelector::from_value(at.value) {
        Ok(selector) => Some(selector),
        Err(_) if is_daemon => Some(LabelSelector::everything()),
        Err(_) => {
            errors.push(at.invalid("invalid label selector"));
            None
        }
    }
}

pub(crate) fn immutable_selector(new: &Value, old: &Value, errors: &mut Errors) {
    At::root(new).get("spec").get("selector").immutable(&At::root(old).get("spec").get("selector"), errors);
}

/// Counts of a status: none negative, no part greater than the whole.
fn validate_status(new: &Value, subresource: Option<&str>, errors: &mut Errors) {
    if subresource != Some("status") {
        return;
    }
    let status = At::root(new).get("status");
    let count = |name: &str| status.get(name).int().unwrap_or(0);
    for field in ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"] {
        status.get(field).non_negative(errors);
    }
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if count(field) > count("replicas") {
            errors.push(status.get(field).invalid("cannot be greater than status.replicas"));
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        errors.push(status.get("availableReplicas").invalid("cannot be greater than readyReplicas"));
    }
}
