//! Pod: defaults of its own, QoS class, what its subresources may change, and its rules (below `pod/`).

mod cells;
mod containers;
mod env;
mod probes;
mod scheduling;
pub(crate) mod spec;
mod update;
mod volumes;

use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME};
use crate::defaults;
use crate::kinds::template::{self, CONTAINER_LISTS};
use crate::resource::{Hooks, set_or_remove};
use mini_api::quantity::Quantity;
use mini_api::{Meta, names};
use serde_json::{Map, Value, json};

pub(crate) const HOOKS: Hooks = Hooks {
    default,
    prepare_create,
    prepare_update,
    name: names::is_dns1123_subdomain,
    validate,
    validate_update: update::validate,
    columns: COLUMNS,
    cells: cells::cells,
    completed: |v| match v.text(&["status", "phase"]) {
        "Succeeded" => Some(("Succeeded", "The pod has completed successfully.")),
        "Failed" => Some(("Failed", "The pod failed.")),
        _ => None,
    },
    field: |v, path| match path {
        "status.podIP" => Some(match columns::list(v, &["status", "podIPs"]).first() {
            Some(first) => first.text(&["ip"]).to_owned(),
            None => v.text(&["status", "podIP"]).to_owned(),
        }),
        _ => None,
    },
    generation: true,
    ..Hooks::NONE
};

const COLUMNS: &[Column] = &[
    NAME,
    Column::text("Ready", "Containers that are ready, of all containers."),
    Column::text("Status", "What the pod is doing, or why it is not."),
    Column::text("Restarts", "How often containers were restarted, and when last."),
    AGE,
    Column::wide("IP", "Address of the pod."),
    Column::wide("Node", "Node the pod runs on."),
    Column::wide("Nominated Node", "Node where room is being made for the pod."),
    Column::wide("Readiness Gates", "Readiness gates that are true, of all."),
];

fn default(v: &mut Value) {
    let Some(spec) = v.get_mut("spec") else { return };
    template::default_spec(spec);
    if spec.is_object() && spec.get("enableServiceLinks").is_none_or(Value::is_null) {
        spec["enableServiceLinks"] = true.into();
    }
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    for list in &CONTAINER_LISTS[..2] {
        defaults::each(spec, &format!("{list}[].resources"), &mut requests_from_limits);
        if host_network {
            defaults::each(spec, &format!("{list}[].ports[]"), &mut |port| {
                if columns::int(port, &["hostPort"]) == 0
                    && let Some(container_port) = port.get("containerPort").cloned()
                {
                    port["hostPort"] = container_port;
                }
            });
        }
    }
    defaults::each(spec, "resources", &mut requests_from_limits);
}

/// A limit without a request is also the request.
fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|l| !l.is_empty()).cloned() else {
        return;
    };
    let requests = mini_api::meta::child_mut(mini_api::meta::object_mut(resources), "requests");
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

fn prepare_create(v: &mut Value) {
    // Admission may have set the account after defaults ran.
    if let Some(spec) = v.get_mut("spec")
        && let Some(account) = spec.get("serviceAccountName").and_then(Value::as_str).filter(|a| !a.is_empty())
    {
        spec["serviceAccount"] = account.to_owned().into();
    }
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(v)});
    if !columns::list(v, &["spec", "schedulingGates"]).is_empty() {
        status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
    }
    v["status"] = status;
}

fn prepare_update(new: &mut Value, old: &Value, subresource: Option<&str>) {
    match subresource {
        Some("status") => {
            // Owners and deletion are not the status writer's business.
            let owners = old.get("metadata").and_then(|m| m.get("ownerReferences")).cloned();
            set_or_remove(new.meta_mut(), "ownerReferences", owners);
            if let Some(class) = old.get("status").and_then(|s| s.get("qosClass")).cloned()
                && let Some(status) = new.get_mut("status").filter(|s| s.is_object())
            {
                status["qosClass"] = class;
            }
        }
        Some("ephemeralcontainers") => keep_spec_but(new, old, &["ephemeralContainers"]),
        Some("resize") => keep_spec_but(new, old, &["containers", "initContainers"]),
        _ => {}
    }
}

/// Takes only `fields` of the new spec and the whole rest from the old object.
fn keep_spec_but(new: &mut Value, old: &Value, fields: &[&str]) {
    let taken: Vec<_> = fields.iter().map(|f| (*f, new.get("spec").and_then(|s| s.get(*f)).cloned())).collect();
    let mut kept = old.clone();
    if let Some(managed) = new.get("metadata").and_then(|m| m.get("managedFields")).cloned() {
        kept.meta_mut().insert("managedFields".to_owned(), managed);
    }
    if let Some(version) = new.get("metadata").and_then(|m| m.get("resourceVersion")).cloned() {
        kept.meta_mut().insert("resourceVersion".to_owned(), version);
    }
    if let Some(spec) = kept.get_mut("spec").and_then(Value::as_object_mut) {
        for (field, value) in taken {
            set_or_remove(spec, field, value);
        }
    }
    *new = kept;
}

fn validate(v: &Value, errors: &mut Errors) {
    spec::validate(&At::root(v).get("spec"), errors);
}

/// `Guaranteed` where every container has cpu and memory limits that equal its requests, `BestEffort` where none asks for
/// anything, else `Burstable`.
#[must_use]
pub fn qos_class(pod: &Value) -> &'static str {
    let quantity = |m: Option<&Map<String, Value>>, name: &str| {
        m.and_then(|m| m.get(name))
            .and_then(Value::as_str)
            .and_then(|q| Quantity::parse(q).ok())
            .filter(|q| !q.is_zero())
    };
    let (mut any, mut all_equal) = (false, true);
    let mut look = |resources: Option<&Value>| {
        let part = |name: &str| resources.and_then(|r| r.get(name)).and_then(Value::as_object);
        for name in ["cpu", "memory"] {
            let (limit, request) = (quantity(part("limits"), name), quantity(part("requests"), name));
            any |= limit.is_some() || request.is_some();
            all_equal &= limit.is_some() && (request.is_none() || request == limit);
        }
    };
    // Resources of the pod as a whole outrank those of its containers.
    let pod_level = pod.get("spec").and_then(|s| s.get("resources")).filter(|r| {
        ["limits", "requests"].iter().any(|f| r.get(f).and_then(Value::as_object).is_some_and(|m| !m.is_empty()))
    });
    if pod_level.is_some() {
        look(pod_level);
    } else {
        for list in &CONTAINER_LISTS[..2] {
            for container in columns::list(pod, &["spec", list]) {
                look(container.get("resources"));
            }
        }
    }
    match (any, all_equal) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests;
