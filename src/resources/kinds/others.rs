//! Kinds with little of their own: pod templates, budgets, autoscalers, signing requests, classes of pods.

use super::template;
use crate::check::At;
use crate::columns::{self, AGE, Column, NAME, NONE, int, list, text_or};
use crate::defaults::{self, Default};
use crate::kinds::deployment::int_or_percent;
use crate::resource::{Hooks, set_or_remove};
use mini_api::{Meta, names};
use serde_json::{Value, json};

pub(crate) const POD_TEMPLATE: Hooks = Hooks {
    default: |v| template::default_at("template", v),
    name: names::is_dns1123_subdomain,
    validate: |v, errors| template::validate(&At::root(v).get("template"), errors),
    columns: &[
        NAME,
        Column::text("Containers", "Names of the containers."),
        Column::text("Images", "Images of the containers."),
        Column::text("Pod Labels", "Labels of the pods."),
    ],
    cells: |v, _| {
        let (names, images) = columns::containers_and_images(v.get("template").and_then(|t| t.get("spec")));
        let labels = columns::labels(columns::map(v, &["template", "metadata", "labels"]));
        vec![columns::name(v), names.into(), images.into(), labels.into()]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const BUDGET: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        let (least, most) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
        if least.is_set() && most.is_set() {
            errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
        }
        int_or_percent(&least, errors);
        int_or_percent(&most, errors);
        crate::kinds::pod::spec::label_selector(&spec.get("selector"), errors);
        spec.get("unhealthyPodEvictionPolicy").one_of(&["AlwaysAllow", "IfHealthyBudget"], errors);
    },
    columns: &[
        NAME,
        Column::text("Min Available", "Pods that must stay."),
        Column::text("Max Unavailable", "Pods that may be missing."),
        Column::number("Allowed Disruptions", "Pods that may go now."),
        AGE,
    ],
    cells: |v, now| {
        let bound = |field: &str| match v.get("spec").and_then(|s| s.get(field)) {
            Some(Value::String(s)) => s.clone(),
            Some(Value::Number(n)) => n.to_string(),
            _ => "N/A".to_owned(),
        };
        vec![
            columns::name(v),
            bound("minAvailable").into(),
            bound("maxUnavailable").into(),
            int(v, &["status", "disruptionsAllowed"]).into(),
            columns::age(v, now),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const AUTOSCALER: Hooks = Hooks {
    default: |v| {
        defaults::apply(&[("spec.minReplicas", Default::Int(1))], v);
        if list(v, &["spec", "metrics"]).is_empty() && v.get("spec").is_some_and(Value::is_object) {
            v["spec"]["metrics"] = json!([{"type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        }
    },
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        let (least, most) = (spec.get("minReplicas"), spec.get("maxReplicas"));
        if least.int().is_some_and(|n| n < 1) {
            errors.push(least.invalid("must be greater than or equal to 1"));
        }
        if most.int().unwrap_or(0) < 1 {
            errors.push(mini_api::FieldError::invalid(&most.path, most.int().unwrap_or(0), "must be greater than 0"));
        } else if least.int().is_some_and(|n| Some(n) > most.int()) {
            errors.push(most.invalid("must be greater than or equal to `minReplicas`"));
        }
        for field in ["kind", "name"] {
            spec.get("scaleTargetRef").get(field).must_be_set(errors);
        }
    },
    columns: &[
        NAME,
        Column::text("Reference", "What is scaled."),
        Column::text("Targets", "Metrics, now and as wanted."),
        Column::text("MinPods", "Fewest pods."),
        Column::text("MaxPods", "Most pods."),
        Column::text("Replicas", "Pods now."),
        AGE,
    ],
    cells: |v, now| {
        let target = ["kind", "name"].map(|f| v.text(&["spec", "scaleTargetRef", f])).join("/");
        let current = list(v, &["status", "currentMetrics"]);
        let metrics = list(v, &["spec", "metrics"]).iter().enumerate().map(|(i, metric)| {
            let wanted = int(metric, &["resource", "target", "averageUtilization"]);
            let now = current.get(i).and_then(|m| m.get("resource")).and_then(|r| r.get("current"));
            let now = now.and_then(|c| c.get("averageUtilization")).and_then(Value::as_i64);
            let now = now.map_or_else(|| columns::UNKNOWN.to_owned(), |n| format!("{n}%"));
            format!("{}: {now}/{wanted}%", metric.text(&["resource", "name"]))
        });
        let metrics = metrics.collect::<Vec<_>>().join(", ");
        vec![
            columns::name(v),
            target.into(),
            if metrics.is_empty() { NONE.to_owned() } else { metrics }.into(),
            int(v, &["spec", "minReplicas"]).to_string().into(),
            int(v, &["spec", "maxReplicas"]).into(),
            int(v, &["status", "currentReplicas"]).into(),
            columns::age(v, now),
        ]
    },
    ..Hooks::NONE
};

pub(crate) const SIGNING_REQUEST: Hooks = Hooks {
    status: &[("status", Default::Map)],
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        for field in ["request", "signerName", "usages"] {
            spec.get(field).must_be_set(errors);
        }
        let seconds = spec.get("expirationSeconds");
        if seconds.int().is_some_and(|n| n < 600) {
            errors.push(seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
        }
    },
    validate_update: |new, old, _, errors| {
        At::root(new).get("spec").immutable(&At::root(old).get("spec"), errors);
    },
    prepare_update: |new, old, subresource| {
        // An approver decides and issues nothing.
        if subresource == Some("approval") {
            let conditions = new.get("status").and_then(|s| s.get("conditions")).cloned();
            new["status"] = old.get("status").filter(|s| s.is_object()).cloned().unwrap_or_else(|| json!({}));
            set_or_remove(mini_api::meta::object_mut(&mut new["status"]), "conditions", conditions);
        }
    },
    name: names::is_dns1123_subdomain,
    columns: &[
        NAME,
        AGE,
        Column::text("SignerName", "Who signs."),
        Column::text("Requestor", "Who asks."),
        Column::text("RequestedDuration", "How long the certificate shall hold."),
        Column::text("Condition", "How the request stands."),
    ],
    cells: |v, now| {
        let has = |name: &str| list(v, &["status", "conditions"]).iter().any(|c| c.text(&["type"]) == name);
        let mut condition = match (has("Denied"), has("Approved")) {
            (true, _) => "Denied",
            (_, true) => "Approved",
            _ => "Pending",
        }
        .to_owned();
        if has("Failed") {
            condition.push_str(",Failed");
        }
        if !v.text(&["status", "certificate"]).is_empty() {
            condition.push_str(",Issued");
        }
        let duration = match int(v, &["spec", "expirationSeconds"]) {
            0 => NONE.to_owned(),
            seconds => columns::human_duration(seconds),
        };
        vec![
            columns::name(v),
            columns::age(v, now),
            text_or(v, &["spec", "signerName"], NONE),
            v.text(&["spec", "username"]).into(),
            duration.into(),
            condition.into(),
        ]
    },
    ..Hooks::NONE
};

pub(crate) const PRIORITY_CLASS: Hooks = Hooks {
    default: |v| defaults::apply(&[("preemptionPolicy", Default::Str("PreemptLowerPriority"))], v),
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        /// Above this only the system's own classes.
        const HIGHEST: i64 = 1_000_000_000;
        let value = At::root(v).get("value");
        let system = v.name().starts_with("system-");
        if system && !matches!(v.name(), "system-node-critical" | "system-cluster-critical") {
            let path = mini_api::FieldPath::new("metadata").child("name");
            let detail = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            errors.push(mini_api::FieldError::forbidden(&path, detail));
        } else if !system && value.int().unwrap_or(0) > HIGHEST {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.push(value.forbidden(&detail));
        }
        At::root(v).get("preemptionPolicy").one_of(&["Never", "PreemptLowerPriority"], errors);
    },
    validate_update: |new, old, _, errors| {
        let (new, old) = (At::root(new), At::root(old));
        if new.get("value").int().unwrap_or(0) != old.get("value").int().unwrap_or(0) {
            errors.push(new.get("value").forbidden("may not be changed in an update."));
        }
        new.get("preemptionPolicy").immutable(&old.get("preemptionPolicy"), errors);
    },
    columns: &[
        NAME,
        Column::number("Value", "Priority of pods of this class."),
        Column::new("Global-Default", "boolean", "", "Whether pods without a class get this one.", 0),
        AGE,
        Column::text("PreemptionPolicy", "Whether pods of this class push others out."),
    ],
    cells: |v, now| {
        vec![
            columns::name(v),
            int(v, &["value"]).into(),
            v.get("globalDefault").and_then(Value::as_bool).unwrap_or(false).into(),
            columns::age(v, now),
            v.text(&["preemptionPolicy"]).into(),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const RUNTIME_CLASS: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let handler = At::root(v).get("handler");
        handler.messages(names::is_dns1123_label(handler.text()), errors);
    },
    validate_update: |new, old, _, errors| {
        At::root(new).get("handler").immutable(&At::root(old).get("handler"), errors)
    },
    columns: &[NAME, Column::text("Handler", "Handler of the container runtime."), AGE],
    cells: |v, now| vec![columns::name(v), v.text(&["handler"]).into(), columns::age(v, now)],
    ..Hooks::NONE
};
