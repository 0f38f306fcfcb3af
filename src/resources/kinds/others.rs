//! Kinds with little of their own: autoscalers, budgets, classes, signing requests, storage bookkeeping, pod templates.

use super::template;
use crate::check::At;
use crate::columns::{self, AGE, Column, NAME, NONE, UNSET, int, list, text_or};
use crate::defaults::{self, Default};
use crate::kinds::deployment::int_or_percent;
use crate::resource::Hooks;
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
    default: |v| defaults::apply(&[("status", Default::Map)], v),
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

pub(crate) const CSI_DRIVER: Hooks = Hooks {
    default: |v| {
        const TABLE: defaults::Table = &[
            ("spec.attachRequired", Default::Bool(true)),
            ("spec.podInfoOnMount", Default::Bool(false)),
            ("spec.storageCapacity", Default::Bool(false)),
            ("spec.fsGroupPolicy", Default::Str("ReadWriteOnceWithFSType")),
            ("spec.requiresRepublish", Default::Bool(false)),
            ("spec.seLinuxMount", Default::Bool(false)),
        ];
        defaults::apply(TABLE, v);
        if list(v, &["spec", "volumeLifecycleModes"]).is_empty() && v.get("spec").is_some_and(Value::is_object) {
            v["spec"]["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    },
    name: names::is_dns1123_subdomain,
    columns: &[
        NAME,
        Column::new("AttachRequired", "boolean", "", "Whether volumes must be attached first.", 0),
        Column::new("PodInfoOnMount", "boolean", "", "Whether the driver wants to know the pod.", 0),
        Column::new("StorageCapacity", "boolean", "", "Whether the driver publishes its capacity.", 0),
        Column::text("TokenRequests", "Audiences of the tokens the driver wants."),
        Column::new("RequiresRepublish", "boolean", "", "Whether volumes are published again and again.", 0),
        Column::text("Modes", "Sorts of volumes the driver serves."),
        AGE,
    ],
    cells: |v, now| {
        let flag = |field: &str, otherwise: bool| {
            Value::from(v.get("spec").and_then(|s| s.get(field)).and_then(Value::as_bool).unwrap_or(otherwise))
        };
        let tokens: Vec<&str> = list(v, &["spec", "tokenRequests"]).iter().map(|t| t.text(&["audience"])).collect();
        let modes: Vec<&str> = list(v, &["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect();
        vec![
            columns::name(v),
            flag("attachRequired", true),
            flag("podInfoOnMount", false),
            flag("storageCapacity", false),
            if tokens.is_empty() { UNSET.to_owned() } else { tokens.join(",") }.into(),
            flag("requiresRepublish", false),
            if modes.is_empty() { NONE.to_owned() } else { modes.join(",") }.into(),
            columns::age(v, now),
        ]
    },
    generation: true,
    ..Hooks::NONE
};

pub(crate) const CSI_NODE: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    columns: &[NAME, Column::number("Drivers", "Drivers on the node."), AGE],
    cells: |v, now| vec![columns::name(v), list(v, &["spec", "drivers"]).len().into(), columns::age(v, now)],
    ..Hooks::NONE
};

pub(crate) const CSI_CAPACITY: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    columns: &[
        NAME,
        Column::text("StorageClassName", "Class the capacity is for."),
        Column::text("Capacity", "Room that is left."),
    ],
    cells: |v, _| vec![columns::name(v), v.text(&["storageClassName"]).into(), text_or(v, &["capacity"], UNSET)],
    ..Hooks::NONE
};

pub(crate) const ATTACHMENT: Hooks = Hooks {
    default: |v| defaults::apply(&[("status", Default::Map), ("status.attached", Default::Bool(false))], v),
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let spec = At::root(v).get("spec");
        ["attacher", "nodeName"].iter().for_each(|f| spec.get(f).must_be_set(errors));
    },
    validate_update: |new, old, subresource, errors| {
        if subresource.is_none() {
            At::root(new).get("spec").immutable(&At::root(old).get("spec"), errors);
        }
    },
    columns: &[
        NAME,
        Column::new("Attacher", "string", "name", "Driver that attaches.", 0),
        Column::text("PV", "Volume that is attached."),
        Column::text("Node", "Node it is attached to."),
        Column::new("Attached", "boolean", "", "Whether it is attached.", 0),
        AGE,
    ],
    cells: |v, now| {
        let attached = v.get("status").and_then(|s| s.get("attached")).and_then(Value::as_bool).unwrap_or(false);
        vec![
            columns::name(v),
            v.text(&["spec", "attacher"]).into(),
            v.text(&["spec", "source", "persistentVolumeName"]).into(),
            v.text(&["spec", "nodeName"]).into(),
            attached.into(),
            columns::age(v, now),
        ]
    },
    ..Hooks::NONE
};

pub(crate) const ATTRIBUTES_CLASS: Hooks = Hooks {
    name: names::is_dns1123_subdomain,
    validate: |v, errors| At::root(v).get("driverName").must_be_set(errors),
    validate_update: |new, old, _, errors| {
        for field in ["driverName", "parameters"] {
            At::root(new).get(field).immutable(&At::root(old).get(field), errors);
        }
    },
    columns: &[NAME, Column::text("DriverName", "Driver of the volumes."), AGE],
    cells: |v, now| vec![columns::name(v), v.text(&["driverName"]).into(), columns::age(v, now)],
    ..Hooks::NONE
};
