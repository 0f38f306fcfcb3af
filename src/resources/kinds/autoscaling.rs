//! HorizontalPodAutoscaler, in its second version, which is stored, and in its first, which says the same with fewer
//! fields and keeps the rest in annotations.

use super::pod::spec::label_selector;
use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, NONE, int, list};
use crate::defaults::{self, Default};
use crate::resource::Hooks;
use mini_api::meta::{child_mut, object_mut};
use mini_api::{FieldError, Meta, names};
use serde_json::{Map, Value, json};

const WINDOW_MAX: i64 = 3600;
const PERIOD_MAX: i64 = 1800;
const KINDS: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const PREFIX: &str = "autoscaling.alpha.kubernetes.io/";

pub(crate) const V2: Hooks = Hooks {
    default: default_v2,
    status: STATUS,
    name: names::is_dns1123_subdomain,
    validate: |v, errors| validate(v, errors),
    validate_update: validate_status,
    columns: &[
        NAME,
        Column::text("Reference", "What is scaled."),
        Column::text("Targets", "Metrics, now and as wanted."),
        Column::text("MinPods", "Fewest pods."),
        Column::text("MaxPods", "Most pods."),
        Column::text("Replicas", "Pods now."),
        AGE,
    ],
    cells,
    ..Hooks::NONE
};

pub(crate) const V1: Hooks = Hooks {
    default: |v| defaults::apply(&[("spec.minReplicas", Default::Int(1))], v),
    validate: |v, errors| {
        let mut second = v.clone();
        to_second(&mut second);
        validate(&second, errors);
    },
    cells: |v, now| {
        let mut second = v.clone();
        to_second(&mut second);
        cells(&second, now)
    },
    to_stored: Some(to_second),
    from_stored: Some(from_second),
    ..V2
};

const STATUS: defaults::Table = &[
    ("status", Default::Map),
    ("status.currentReplicas", Default::Int(0)),
    ("status.desiredReplicas", Default::Int(0)),
];

fn default_v2(v: &mut Value) {
    defaults::apply(&[("spec.minReplicas", Default::Int(1))], v);
    if !v.get("spec").is_some_and(Value::is_object) {
        return;
    }
    if list(v, &["spec", "metrics"]).is_empty() {
        v["spec"]["metrics"] = json!([{"type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    }
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let behavior = v.get("spec").and_then(|s| s.get("behavior"));
    if !behavior.is_some_and(|b| b.get("scaleUp").is_some() || b.get("scaleDown").is_some()) {
        return;
    }
    let up = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent]});
    let down = json!({"selectPolicy": "Max", "policies": [percent]});
    let behavior = child_mut(child_mut(object_mut(v), "spec"), "behavior");
    for (direction, rules) in [("scaleUp", up), ("scaleDown", down)] {
        let own = child_mut(behavior, direction);
        for (field, value) in rules.as_object().into_iter().flatten() {
            own.entry(field.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn cells(v: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let target = ["kind", "name"].map(|f| v.text(&["spec", "scaleTargetRef", f])).join("/");
    let current = list(v, &["status", "currentMetrics"]);
    let metrics: Vec<String> =
        list(v, &["spec", "metrics"]).iter().enumerate().map(|(i, wanted)| metric(wanted, current.get(i))).collect();
    let shown = match metrics.len() {
        0 => NONE.to_owned(),
        1..=2 => metrics.join(", "),
        more => format!("{} + {} more...", metrics[..2].join(", "), more - 2),
    };
    let least = v.get("spec").and_then(|s| s.get("minReplicas")).and_then(Value::as_i64);
    vec![
        columns::name(v),
        target.into(),
        shown.into(),
        least.map_or_else(|| "<unset>".to_owned(), |n| n.to_string()).into(),
        int(v, &["spec", "maxReplicas"]).into(),
        int(v, &["status", "currentReplicas"]).into(),
        columns::age(v, now),
    ]
}

/// `cpu: 12%/80%`: a metric now and as wanted.
fn metric(wanted: &Value, current: Option<&Value>) -> String {
    let kind = source_field(wanted.text(&["type"]));
    let (source, now) = (wanted.get(kind), current.and_then(|c| c.get(kind)).and_then(|c| c.get("current")));
    let Some(source) = source else { return "<unknown type>".to_owned() };
    let target = source.get("target");
    let text = |of: Option<&Value>, field: &str| match of.and_then(|v| v.get(field)) {
        Some(Value::String(s)) => Some(s.clone()),
        Some(Value::Number(n)) => Some(n.to_string()),
        _ => None,
    };
    let unknown = || columns::UNKNOWN.to_owned();
    let average = text(target, "averageValue");
    match kind {
        "resource" | "containerResource" => {
            let name = source.text(&["name"]);
            match average {
                Some(value) => format!("{name}: {}/{value}", text(now, "averageValue").unwrap_or_else(unknown)),
                None => {
                    let current = text(now, "averageUtilization").map_or_else(unknown, |n| format!("{n}%"));
                    let wanted = text(target, "averageUtilization").map_or("<auto>".to_owned(), |n| format!("{n}%"));
                    format!("{name}: {current}/{wanted}")
                }
            }
        }
        "pods" => format!("{}/{}", text(now, "averageValue").unwrap_or_else(unknown), average.unwrap_or_default()),
        _ => match average {
            Some(value) => format!("{}/{value} (avg)", text(now, "averageValue").unwrap_or_else(unknown)),
            None => {
                format!("{}/{}", text(now, "value").unwrap_or_else(unknown), text(target, "value").unwrap_or_default())
            }
        },
    }
}

fn source_field(kind: &str) -> &'static str {
    match kind {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => "",
    }
}

fn validate_status(new: &Value, _: &Value, subresource: Option<&str>, errors: &mut Errors) {
    if subresource == Some("status") {
        for field in ["currentReplicas", "desiredReplicas"] {
            At::root(new).get("status").get(field).non_negative(errors);
        }
    }
}

fn validate(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    let (least, most) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if least.int().is_some_and(|n| n < 1) {
        errors.push(least.invalid("must be greater than or equal to 1"));
    }
    let count = most.int().unwrap_or(0);
    if count < 1 {
        errors.push(FieldError::invalid(&most.path, count, "must be greater than 0"));
    }
    if least.int().is_some_and(|n| n > count) {
        errors.push(FieldError::invalid(&most.path, count, "must be greater than or equal to `minReplicas`"));
    }
    reference(&spec.get("scaleTargetRef"), errors);
    let metrics = spec.get("metrics");
    metrics.items().iter().for_each(|m| validate_metric(m, errors));
    let of_nothing = |metric: &At<'_>| matches!(metric.get("type").text(), "Object" | "External");
    if least.int() == Some(0) && !metrics.items().iter().any(of_nothing) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(metrics.forbidden(detail));
    }
    let behavior = spec.get("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        let rules = behavior.get(direction);
        if rules.is_set() {
            scaling(&rules, errors);
        }
    }
}

fn reference(at: &At<'_>, errors: &mut Errors) {
    for field in ["kind", "name"] {
        let field = at.get(field);
        if field.is_empty() {
            errors.push(field.required(""));
        } else {
            field.messages(names::is_path_segment(field.text()), errors);
        }
    }
}

fn scaling(at: &At<'_>, errors: &mut Errors) {
    let window = at.get("stabilizationWindowSeconds");
    if window.int().is_some_and(|n| n < 0) {
        errors.push(window.invalid("must be greater than or equal to zero"));
    }
    if window.int().is_some_and(|n| n > WINDOW_MAX) {
        errors.push(window.invalid(format!("must be less than or equal to {WINDOW_MAX}")));
    }
    at.get("selectPolicy").one_of(&["Disabled", "Max", "Min"], errors);
    let policies = at.get("policies");
    if policies.is_empty() {
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        let kind = policy.get("type");
        if !matches!(kind.text(), "Pods" | "Percent") {
            errors.push(FieldError::not_supported(&kind.path, kind.text(), &["Percent", "Pods"]));
        }
        for field in ["value", "periodSeconds"] {
            let at = policy.get(field);
            let number = at.int().unwrap_or(0);
            if number <= 0 {
                errors.push(FieldError::invalid(&at.path, number, "must be greater than zero"));
            }
        }
        let period = policy.get("periodSeconds");
        if period.int().is_some_and(|n| n > PERIOD_MAX) {
            errors.push(period.invalid(format!("must be less than or equal to {PERIOD_MAX}")));
        }
    }
}

fn validate_metric(at: &At<'_>, errors: &mut Errors) {
    let kind = at.get("type");
    let known = KINDS.contains(&kind.text());
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    if !known {
        errors.push(FieldError::not_supported(&kind.path, kind.text(), &KINDS));
    }
    let present: Vec<&str> = ["object", "external", "pods", "resource", "containerResource"]
        .into_iter()
        .filter(|f| at.get(f).is_set())
        .collect();
    if let Some(first) = present.first() {
        source(first, &at.get(first), errors);
    }
    let own = source_field(kind.text());
    if known {
        if !at.get(own).is_set() {
            errors.push(at.get(own).required("must populate information for the given metric source"));
        }
    } else {
        errors.push(FieldError::not_supported(&kind.path, kind.text(), &KINDS));
    }
    if present.len() != 1 {
        for other in present.iter().filter(|f| **f != own) {
            errors.push(at.get(other).forbidden("must populate the given metric source only"));
        }
    }
}

fn source(field: &str, at: &At<'_>, errors: &mut Errors) {
    let target = at.get("target");
    let has = |field| target.get(field).is_set();
    match field {
        "resource" | "containerResource" => {
            if at.get("name").is_empty() {
                errors.push(at.get("name").required("must specify a resource name"));
            }
            if field == "containerResource" {
                let container = at.get("container");
                if container.is_empty() {
                    errors.push(container.required("must specify a container"));
                } else {
                    container.messages(names::is_dns1123_label(container.text()), errors);
                }
            }
        }
        _ => {
            if field == "object" {
                reference(&at.get("describedObject"), errors);
            }
            let metric = at.get("metric");
            let name = metric.get("name");
            if name.is_empty() {
                errors.push(name.required("must specify a metric name"));
            } else {
                name.messages(names::is_path_segment(name.text()), errors);
            }
            label_selector(&metric.get("selector"), errors);
        }
    }
    metric_target(&target, errors);
    let average = target.get("averageValue");
    match field {
        "resource" | "containerResource" => {
            if !has("averageUtilization") && !has("averageValue") {
                let detail = "must set either a target raw value or a target utilization";
                errors.push(target.get("averageUtilization").required(detail));
            }
            if has("averageUtilization") && has("averageValue") {
                errors.push(average.forbidden("may not set both a target raw value and a target utilization"));
            }
        }
        "pods" if !has("averageValue") => {
            errors.push(average.required("must specify a positive target averageValue"));
        }
        "object" if !has("value") && !has("averageValue") => {
            errors.push(average.required("must set either a target value or averageValue"));
        }
        "external" if !has("value") && !has("averageValue") => {
            errors.push(average.required("must set either a target value for metric or a per-pod target"));
        }
        "external" if has("value") && has("averageValue") => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.push(target.get("value").forbidden(detail));
        }
        _ => {}
    }
}

fn metric_target(at: &At<'_>, errors: &mut Errors) {
    let kind = at.get("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&kind.path, kind.text(), detail));
    }
    for field in ["value", "averageValue"] {
        let amount = at.get(field);
        if amount.quantity().is_some_and(|q| q.is_negative() || q.is_zero()) {
            errors.push(amount.invalid("must be positive"));
        }
    }
    let utilization = at.get("averageUtilization");
    if utilization.int().is_some_and(|n| n < 1) {
        errors.push(utilization.invalid("must be greater than 0"));
    }
}

fn is_cpu(metric: &Value, inner: &str) -> bool {
    metric.text(&["type"]) == "Resource"
        && metric.text(&["resource", "name"]) == "cpu"
        && metric.pointer(inner).is_some_and(Value::is_number)
}

fn take_annotation(v: &mut Value, name: &str) -> Option<Value> {
    let annotations = v.meta_mut().get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(&format!("{PREFIX}{name}"))?;
    if annotations.is_empty() {
        v.meta_mut().remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn put_annotation(v: &mut Value, name: &str, value: &Value) {
    let annotations = child_mut(v.meta_mut(), "annotations");
    annotations.insert(format!("{PREFIX}{name}"), value.to_string().into());
}

/// A list of metrics, the one for the CPU apart.
fn without_cpu(metrics: Option<Value>, inner: &str) -> (Option<Value>, Vec<Value>) {
    let Some(Value::Array(mut metrics)) = metrics else { return (None, Vec::new()) };
    let cpu = metrics.iter().position(|metric| is_cpu(metric, inner)).map(|i| metrics.remove(i));
    (cpu.and_then(|metric| metric.pointer(inner).cloned()), metrics)
}

fn from_second(v: &mut Value) {
    object_mut(v).insert("apiVersion".to_owned(), "autoscaling/v1".into());
    let spec = child_mut(object_mut(v), "spec");
    let behavior = spec.remove("behavior");
    let (cpu, others) = without_cpu(spec.remove("metrics"), "/resource/target/averageUtilization");
    if let Some(cpu) = cpu {
        spec.insert("targetCPUUtilizationPercentage".to_owned(), cpu);
    }
    if !others.is_empty() {
        put_annotation(v, "metrics", &others.iter().map(flat).collect());
    }
    if let Some(behavior) = behavior {
        put_annotation(v, "behavior", &behavior);
    }
    if !v.get("status").is_some_and(Value::is_object) {
        return;
    }
    let status = child_mut(object_mut(v), "status");
    let conditions = status.remove("conditions");
    let (cpu, others) = without_cpu(status.remove("currentMetrics"), "/resource/current/averageUtilization");
    if let Some(cpu) = cpu {
        status.insert("currentCPUUtilizationPercentage".to_owned(), cpu);
    }
    if !others.is_empty() {
        put_annotation(v, "current-metrics", &others.iter().map(flat).collect());
    }
    if let Some(conditions) = conditions {
        put_annotation(v, "conditions", &conditions);
    }
}

fn to_second(v: &mut Value) {
    let metrics = take_annotation(v, "metrics");
    let behavior = take_annotation(v, "behavior");
    let (current, conditions) = (take_annotation(v, "current-metrics"), take_annotation(v, "conditions"));
    object_mut(v).insert("apiVersion".to_owned(), "autoscaling/v2".into());
    let nested = |metrics: Option<Value>, field: &str| -> Vec<Value> {
        metrics.iter().filter_map(Value::as_array).flatten().map(|metric| deep(metric, field)).collect()
    };
    if v.get("spec").is_some_and(Value::is_object) {
        let spec = child_mut(object_mut(v), "spec");
        let mut list = nested(metrics, "target");
        if let Some(cpu) = spec.remove("targetCPUUtilizationPercentage") {
            let target = json!({"type": "Utilization", "averageUtilization": cpu});
            list.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !list.is_empty() {
            spec.insert("metrics".to_owned(), list.into());
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if v.get("status").is_some_and(Value::is_object) {
        let status = child_mut(object_mut(v), "status");
        let mut list = nested(current, "current");
        if let Some(cpu) = status.remove("currentCPUUtilizationPercentage") {
            list.insert(
                0,
                json!({"type": "Resource",
                "resource": {"name": "cpu", "current": {"averageUtilization": cpu}}}),
            );
        }
        if !list.is_empty() {
            status.insert("currentMetrics".to_owned(), list.into());
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
    // What is stored is read in the second version, where a CPU target is a default.
    default_v2(v);
}

/// Words of a metric's fields in the first version, by what they are in the second.
const FLAT: [(&str, &str, &str); 3] = [
    ("value", "targetValue", "currentValue"),
    ("averageValue", "targetAverageValue", "currentAverageValue"),
    ("averageUtilization", "targetAverageUtilization", "currentAverageUtilization"),
];

/// A metric as an annotation of the first version has it.
fn flat(metric: &Value) -> Value {
    let field = source_field(metric.text(&["type"]));
    let Some(source) = metric.get(field) else { return metric.clone() };
    let mut out = Map::new();
    for (name, value) in source.as_object().into_iter().flatten() {
        match name.as_str() {
            "target" | "current" => {
                for (deep, target, current) in FLAT {
                    // Of an Object's values only the one has a prefix.
                    let word = match (name.as_str(), field, deep) {
                        (_, "object", "averageValue") => "averageValue",
                        ("target", ..) => target,
                        _ => current,
                    };
                    if let Some(value) = value.get(deep) {
                        out.insert(word.to_owned(), value.clone());
                    }
                }
            }
            "describedObject" => drop(out.insert("target".to_owned(), value.clone())),
            "metric" => {
                out.insert("metricName".to_owned(), value.text(&["name"]).into());
                if let Some(selector) = value.get("selector") {
                    let word = if field == "external" { "metricSelector" } else { "selector" };
                    out.insert(word.to_owned(), selector.clone());
                }
            }
            _ => drop(out.insert(name.clone(), value.clone())),
        }
    }
    let mut result = json!({"type": metric.text(&["type"])});
    result[field] = Value::Object(out);
    result
}

/// The other way round; `into` is `target` or `current`.
fn deep(metric: &Value, into: &str) -> Value {
    let field = source_field(metric.text(&["type"]));
    let Some(source) = metric.get(field).and_then(Value::as_object) else { return metric.clone() };
    let (mut out, mut values, mut identifier) = (Map::new(), Map::new(), Map::new());
    for (name, value) in source {
        let amount = FLAT.iter().find(|(_, target, current)| name == target || name == current);
        match (name.as_str(), amount) {
            (_, Some((deep, ..))) => drop(values.insert((*deep).to_owned(), value.clone())),
            ("averageValue", _) => drop(values.insert("averageValue".to_owned(), value.clone())),
            ("metricName", _) => drop(identifier.insert("name".to_owned(), value.clone())),
            ("metricSelector" | "selector", _) => drop(identifier.insert("selector".to_owned(), value.clone())),
            ("target", _) => drop(out.insert("describedObject".to_owned(), value.clone())),
            _ => drop(out.insert(name.clone(), value.clone())),
        }
    }
    if into == "target" {
        let kind = match () {
            () if values.contains_key("averageUtilization") => "Utilization",
            () if values.contains_key("averageValue") => "AverageValue",
            () => "Value",
        };
        values.insert("type".to_owned(), kind.into());
    }
    if !identifier.is_empty() {
        out.insert("metric".to_owned(), identifier.into());
    }
    out.insert(into.to_owned(), values.into());
    let mut result = json!({"type": metric.text(&["type"])});
    result[field] = Value::Object(out);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_the_same() {
        let pods = json!({"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": "1k"}}});
        let object = json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
            "metric": {"name": "m"}, "target": {"type": "Value", "value": "10"}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}});
        let second = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h"},
            "spec": {"minReplicas": 1, "maxReplicas": 3, "metrics": [cpu, pods, object]},
            "status": {"currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}]}});
        let mut first = second.clone();
        from_second(&mut first);
        assert_eq!(first["spec"], json!({"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(first["status"]["currentCPUUtilizationPercentage"], 7);
        let kept: Value =
            serde_json::from_str(first.text(&["metadata", "annotations", "autoscaling.alpha.kubernetes.io/metrics"]))
                .unwrap();
        assert_eq!(kept[0]["pods"]["targetAverageValue"], "1k");
        to_second(&mut first);
        assert_eq!(first, second);
        assert_eq!(cells(&second, jiff::Timestamp::UNIX_EPOCH)[2], "cpu: 7%/50%, <unknown>/1k + 1 more...");
    }

    #[test]
    fn a_behavior_is_filled() {
        let mut v = json!({"spec": {"maxReplicas": 3, "behavior": {"scaleDown": {"selectPolicy": "Min"}}}});
        default_v2(&mut v);
        let down = json!({"selectPolicy": "Min", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]});
        assert_eq!(v["spec"]["behavior"]["scaleDown"], down);
        assert_eq!(v["spec"]["behavior"]["scaleUp"]["policies"][0]["value"], 4);
        let once = v.clone();
        default_v2(&mut v);
        assert_eq!(v, once);
    }
}
