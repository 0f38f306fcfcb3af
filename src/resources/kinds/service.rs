//! Service: defaults, what an update keeps, printed columns. Its rules are in `service/rules.rs`; addresses and node ports
//! are given out by the API server.

pub(crate) mod rules;

use crate::columns::{self, AGE, Column, NAME, NONE, int, list};
use crate::defaults::{self, Default, Table};
use crate::resource::Hooks;
use mini_api::{Meta, names};
use serde_json::{Value, json};

pub(crate) const HOOKS: Hooks = Hooks {
    default,
    status: &[("status", Default::Map), ("status.loadBalancer", Default::Map)],
    prepare_create: fill_cluster_ips,
    prepare_update: |new, old, subresource| {
        if subresource.is_none() {
            keep_cluster_ips(new, old);
            drop_what_type_lacks(new, old);
            keep_allocated(new, old);
        }
    },
    name: names::is_dns1035_label,
    validate: rules::validate,
    validate_update: |new, old, subresource, errors| {
        if subresource.is_none() {
            rules::validate_update(new, old, errors);
        }
    },
    columns: &[
        NAME,
        Column::text("Type", "How the service is reached."),
        Column::text("Cluster-IP", "Address inside the cluster."),
        Column::text("External-IP", "Addresses outside the cluster."),
        Column::text("Port(s)", "Ports, with their node ports."),
        AGE,
        Column::wide("Selector", "Labels of the pods behind the service."),
    ],
    cells: |v, now| {
        vec![
            columns::name(v),
            v.text(&["spec", "type"]).into(),
            cluster_ips(v).first().map_or(NONE, |ip| ip.as_str().unwrap_or(NONE)).into(),
            external_ip(v).into(),
            ports(v).into(),
            columns::age(v, now),
            columns::labels(columns::map(v, &["spec", "selector"])).into(),
        ]
    },
    ..Hooks::NONE
};

const DEFAULTS: Table = &[
    ("spec.type", Default::Str("ClusterIP")),
    ("spec.sessionAffinity", Default::Str("None")),
    ("spec.ports[].protocol", Default::Str("TCP")),
];

/// Seconds for which a client stays with one endpoint.
const AFFINITY_SECONDS: i64 = 10800;

fn default(v: &mut Value) {
    defaults::apply(DEFAULTS, v);
    let Some(spec) = v.get_mut("spec").filter(|s| s.is_object()) else { return };
    match spec.text(&["sessionAffinity"]) {
        "None" => {
            mini_api::meta::object_mut(spec).remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            const STICKY: Table = &[
                ("sessionAffinityConfig", Default::Map),
                ("sessionAffinityConfig.clientIP", Default::Map),
                ("sessionAffinityConfig.clientIP.timeoutSeconds", Default::Int(AFFINITY_SECONDS)),
            ];
            defaults::apply(STICKY, spec);
        }
        _ => {}
    }
    defaults::each(spec, "ports[]", &mut |port| {
        let unset = match port.get("targetPort") {
            None | Some(Value::Null) => true,
            Some(Value::Number(n)) => n.as_i64() == Some(0),
            Some(Value::String(s)) => s.is_empty(),
            Some(_) => false,
        };
        if unset && let Some(number) = port.get("port").cloned() {
            port["targetPort"] = number;
        }
    });
    let kind = spec.text(&["type"]).to_owned();
    if kind != "ExternalName" {
        defaults::apply(&[("internalTrafficPolicy", Default::Str("Cluster"))], spec);
        let families = ["clusterIPs", "ipFamilies"].iter().map(|f| list(spec, &[f]).len()).max().unwrap_or(0);
        if families == 2 {
            defaults::apply(&[("ipFamilyPolicy", Default::Str("RequireDualStack"))], spec);
        }
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || !list(spec, &["externalIPs"]).is_empty() {
        defaults::apply(&[("externalTrafficPolicy", Default::Str("Cluster"))], spec);
    }
    if kind == "LoadBalancer" {
        defaults::apply(&[("allocateLoadBalancerNodePorts", Default::Bool(true))], spec);
    }
}

pub(super) fn cluster_ips(v: &Value) -> &[Value] {
    list(v, &["spec", "clusterIPs"])
}

pub(super) fn is_headless(v: &Value) -> bool {
    matches!(cluster_ips(v), [only] if only == "None")
}

fn needs_node_port(v: &Value) -> bool {
    matches!(v.text(&["spec", "type"]), "NodePort" | "LoadBalancer")
}

fn needs_cluster_ip(v: &Value) -> bool {
    v.text(&["spec", "type"]) != "ExternalName"
}

fn same(new: &Value, old: &Value, field: &str) -> bool {
    let of = |v: &Value| v.get("spec").and_then(|s| s.get(field)).cloned();
    of(new) == of(old)
}

/// An author who knows only `clusterIP` means `clusterIPs` too.
fn fill_cluster_ips(v: &mut Value) {
    let ip = v.text(&["spec", "clusterIP"]).to_owned();
    if !ip.is_empty() && cluster_ips(v).is_empty() {
        v["spec"]["clusterIPs"] = json!([ip]);
    }
}

fn keep_cluster_ips(new: &mut Value, old: &Value) {
    let (ip, old_ip) = (new.text(&["spec", "clusterIP"]).to_owned(), old.text(&["spec", "clusterIP"]));
    if !cluster_ips(old).is_empty() && cluster_ips(new).is_empty() && ip == old_ip {
        new["spec"]["clusterIPs"] = cluster_ips(old).into();
    }
    if ip != old_ip && cluster_ips(new) == cluster_ips(old) {
        if ip.is_empty() {
            remove(new, "clusterIPs");
        } else {
            new["spec"]["clusterIPs"] = json!([ip]);
        }
    }
}

fn remove(v: &mut Value, field: &str) {
    if let Some(spec) = v.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove(field);
    }
}

/// A change of type drops what the new type has no use for, unless the author changed it in the same request.
fn drop_what_type_lacks(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if same(new, old, "clusterIP") && same(new, old, "clusterIPs") {
            remove(new, "clusterIP");
            remove(new, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            if same(new, old, field) {
                remove(new, field);
            }
        }
    }
    let node_ports = |v: &Value| list(v, &["spec", "ports"]).iter().map(|p| int(p, &["nodePort"])).collect::<Vec<_>>();
    if needs_node_port(old) && !needs_node_port(new) && node_ports(new) == node_ports(old) {
        defaults::each(new, "spec.ports[]", &mut |port| {
            mini_api::meta::object_mut(port).remove("nodePort");
        });
    }
    let external = |v: &Value| needs_node_port(v) || !list(v, &["spec", "externalIPs"]).is_empty();
    if external(old) && !external(new) && same(new, old, "externalTrafficPolicy") {
        remove(new, "externalTrafficPolicy");
    }
    let health = |v: &Value| {
        v.text(&["spec", "type"]) == "LoadBalancer" && v.text(&["spec", "externalTrafficPolicy"]) == "Local"
    };
    if health(old) && !health(new) && same(new, old, "healthCheckNodePort") {
        remove(new, "healthCheckNodePort");
    }
    if old.text(&["spec", "type"]) == "LoadBalancer" && new.text(&["spec", "type"]) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(new, old, field) {
                remove(new, field);
            }
        }
    }
}

/// What was allocated stays where the author does not mention it.
fn keep_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        let old_ip = old.text(&["spec", "clusterIP"]);
        if new.text(&["spec", "clusterIP"]).is_empty() && !old_ip.is_empty() {
            new["spec"]["clusterIP"] = old_ip.into();
        }
        if cluster_ips(new).is_empty() && !cluster_ips(old).is_empty() && new.text(&["spec", "clusterIP"]) == old_ip {
            new["spec"]["clusterIPs"] = cluster_ips(old).into();
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old.get("spec").and_then(|s| s.get(field))
                && new.get("spec").is_some_and(|s| s.is_object() && s.get(field).is_none())
            {
                new["spec"][field] = value.clone();
            }
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        let key = |p: &Value| (p.text(&["protocol"]).to_owned(), int(p, &["port"]));
        let before: Vec<_> = list(old, &["spec", "ports"]).iter().map(|p| (key(p), int(p, &["nodePort"]))).collect();
        let mut used: Vec<i64> = list(new, &["spec", "ports"]).iter().map(|p| int(p, &["nodePort"])).collect();
        defaults::each(new, "spec.ports[]", &mut |port| {
            if int(port, &["nodePort"]) != 0 {
                return;
            }
            let kept = before.iter().find(|(k, _)| *k == key(port)).map_or(0, |(_, number)| *number);
            if kept != 0 && !used.contains(&kept) {
                used.push(kept);
                port["nodePort"] = kept.into();
            }
        });
    }
    if old.text(&["spec", "externalTrafficPolicy"]) == "Local"
        && new.text(&["spec", "externalTrafficPolicy"]) == "Local"
        && int(new, &["spec", "healthCheckNodePort"]) == 0
        && int(old, &["spec", "healthCheckNodePort"]) != 0
    {
        new["spec"]["healthCheckNodePort"] = int(old, &["spec", "healthCheckNodePort"]).into();
    }
}

fn external_ip(v: &Value) -> String {
    let given: Vec<&str> = list(v, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).collect();
    match v.text(&["spec", "type"]) {
        "ClusterIP" | "NodePort" if given.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => given.join(","),
        "LoadBalancer" => {
            let mut all = load_balancer(v);
            all.extend(given.into_iter().map(str::to_owned));
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => v.text(&["spec", "externalName"]).to_owned(),
        _ => columns::UNKNOWN.to_owned(),
    }
}

/// Addresses or names of `status.loadBalancer`, sorted.
pub(crate) fn load_balancer(v: &Value) -> Vec<String> {
    let mut all: Vec<String> = list(v, &["status", "loadBalancer", "ingress"])
        .iter()
        .map(|i| if i.text(&["ip"]).is_empty() { i.text(&["hostname"]) } else { i.text(&["ip"]) }.to_owned())
        .filter(|a| !a.is_empty())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn ports(v: &Value) -> String {
    let ports = list(v, &["spec", "ports"]);
    if ports.is_empty() {
        return NONE.to_owned();
    }
    let one = |p: &Value| {
        let (port, node, protocol) = (int(p, &["port"]), int(p, &["nodePort"]), p.text(&["protocol"]));
        if node > 0 { format!("{port}:{node}/{protocol}") } else { format!("{port}/{protocol}") }
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
