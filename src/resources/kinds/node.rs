//! Node.

use crate::check::{At, Errors};
use crate::columns::{self, AGE, Column, NAME, NONE, UNKNOWN, list, text_or};
use crate::defaults::{self, Default};
use crate::kinds::pod::spec::{resource_amount, taints};
use crate::resource::Hooks;
use ipnet::IpNet;
use mini_api::{FieldError, Meta, names};
use serde_json::Value;
use std::collections::BTreeSet;

pub(crate) const HOOKS: Hooks = Hooks {
    default: |v| {
        defaults::apply(&[("spec", Default::Map)], v);
        // A kubelet that reserves nothing offers all it has.
        if let Some(status) = v.get_mut("status")
            && status.get("allocatable").is_none()
            && let Some(capacity) = status.get("capacity").cloned()
        {
            status["allocatable"] = capacity;
        }
    },
    status: &[("status", Default::Map)],
    // The kubelet registers a node together with its status.
    status_reset: false,
    name: names::is_dns1123_subdomain,
    validate,
    validate_update: |new, old, subresource, errors| {
        if subresource.is_some() {
            status_rules(new, errors);
            return;
        }
        let (new, old) = (At::root(new).get("spec"), At::root(old).get("spec"));
        if !old.get("podCIDRs").is_empty() && new.get("podCIDRs").value != old.get("podCIDRs").value {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(new.get("podCIDRs").forbidden(detail));
        }
        if !old.get("providerID").is_empty() && new.get("providerID").value != old.get("providerID").value {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errors.push(new.get("providerID").forbidden(detail));
        }
    },
    columns: &[
        NAME,
        Column::text("Status", "Whether the node is ready, and whether it takes pods."),
        Column::text("Roles", "Roles of the node, from its labels."),
        AGE,
        Column::text("Version", "Version of the kubelet."),
        Column::wide("Internal-IP", "Address inside the cluster."),
        Column::wide("External-IP", "Address outside the cluster."),
        Column::wide("OS-Image", "Operating system."),
        Column::wide("Kernel-Version", "Version of the kernel."),
        Column::wide("Container-Runtime", "Container runtime and its version."),
    ],
    cells: |v, now| {
        vec![
            columns::name(v),
            status(v).into(),
            roles(v).into(),
            columns::age(v, now),
            v.text(&["status", "nodeInfo", "kubeletVersion"]).into(),
            address(v, "InternalIP").into(),
            address(v, "ExternalIP").into(),
            text_or(v, &["status", "nodeInfo", "osImage"], UNKNOWN),
            text_or(v, &["status", "nodeInfo", "kernelVersion"], UNKNOWN),
            text_or(v, &["status", "nodeInfo", "containerRuntimeVersion"], UNKNOWN),
        ]
    },
    ..Hooks::NONE
};

fn status(v: &Value) -> String {
    let ready = list(v, &["status", "conditions"]).iter().find(|c| c.text(&["type"]) == "Ready");
    let mut status = match ready.map(|c| c.text(&["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if v.get("spec").and_then(|s| s.get("unschedulable")).and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(v: &Value) -> String {
    let roles: BTreeSet<&str> = v
        .labels()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { NONE.to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address(v: &Value, kind: &str) -> String {
    let found = list(v, &["status", "addresses"]).iter().find(|a| a.text(&["type"]) == kind);
    found.map_or(NONE, |a| a.text(&["address"])).to_owned()
}

fn validate(v: &Value, errors: &mut Errors) {
    let spec = At::root(v).get("spec");
    // Upstream takes them for metadata.
    let path = At::root(v).get("metadata").path.child("taints");
    taints(&At { value: spec.get("taints").value, path }, errors);
    let ranges = spec.get("podCIDRs");
    let mut families = Vec::new();
    for range in ranges.items() {
        match range.text().parse::<IpNet>() {
            Ok(net) => families.push(matches!(net, IpNet::V4(_))),
            Err(_) => errors.push(range.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")),
        }
    }
    if families.len() > 2 || (families.len() == 2 && families.first() == families.last()) {
        errors.push(ranges.invalid("may specify no more than one CIDR for each IP family"));
    }
    status_rules(v, errors);
}

fn status_rules(v: &Value, errors: &mut Errors) {
    let status = At::root(v).get("status");
    for part in ["capacity", "allocatable"] {
        for (name, amount) in status.get(part).entries() {
            resource_amount(name, &amount, errors);
        }
    }
    let mut seen = BTreeSet::new();
    for address in status.get("addresses").items() {
        if !seen.insert((address.get("type").text(), address.get("address").text())) {
            errors.push(FieldError::duplicate(&address.path, address.value.clone()));
        }
    }
}
