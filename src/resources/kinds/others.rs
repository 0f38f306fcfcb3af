//! Kinds with little of their own: pod templates, budgets, classes of pods, migrations.

use super::template;
use crate::check::At;
use crate::columns::{self, AGE, Column, NAME, int};
use crate::defaults::{self, Default};
use crate::kinds::deployment::{int_or_percent, not_more_than_all};
use crate::resource::Hooks;
use mini_api::{Meta, names};
use serde_json::Value;

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

pub(crate) const COMPONENT: Hooks = Hooks {
    columns: &[
        NAME,
        Column::text("Status", "Whether the component is well."),
        Column::text("Message", "What it says."),
        Column::text("Error", "What is wrong with it."),
    ],
    cells: |v, _| {
        let healthy = columns::list(v, &["conditions"]).iter().find(|c| c.text(&["type"]) == "Healthy");
        let text = |field: &str| healthy.map_or("", |condition| condition.text(&[field]));
        let status = match text("status") {
            "True" => "Healthy",
            "" => "Unknown",
            _ => "Unhealthy",
        };
        vec![columns::name(v), status.into(), text("message").into(), text("error").into()]
    },
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
        for bound in [&least, &most] {
            int_or_percent(bound, errors);
            not_more_than_all(bound, errors);
        }
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
            let detail = format!(
                "priority class names with 'system-' prefix are reserved for system use only. error: {} is not a known \
                 system priority class",
                v.name()
            );
            errors.push(mini_api::FieldError::forbidden(&path, detail));
        } else if !system && value.int().unwrap_or(0) > HIGHEST {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.push(value.forbidden(&detail));
        }
        At::root(v).get("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"], errors);
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

pub(crate) const MIGRATION: Hooks = Hooks {
    status: &[("status", Default::Map)],
    name: names::is_dns1123_subdomain,
    validate: |v, errors| {
        let resource = At::root(v).get("spec").get("resource").get("resource");
        if resource.is_empty() {
            errors.push(resource.required("resource is required"));
        }
    },
    validate_update: |new, old, _, errors| {
        let of = |v| At::root(v).get("spec").get("resource");
        of(new).immutable(&of(old), errors);
    },
    columns: &[
        Column::text("Name", "Name of the object, unique in its scope."),
        Column::text("Resource", "What is written anew."),
    ],
    cells: |v, _| {
        // Of the core group upstream prints the dot too.
        let resource = ["resource", "group"].map(|field| v.text(&["spec", "resource", field])).join(".");
        vec![columns::name(v), resource.into()]
    },
    ..Hooks::NONE
};
