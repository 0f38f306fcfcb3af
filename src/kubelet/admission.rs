//! Whether this node takes a pod that has been bound to it: the last word, after whoever bound it.
//!
//! Upstream's general predicates: resources, number of pods, node selector and affinity, host ports; and AppArmor. Pure but
//! for [`app_armor_enabled`]. A pod that is refused fails, and stays failed.

use crate::pod;
use crate::resources;
use k8s_openapi::api::core::v1::{Container, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};
use mini_api::selector::{Operator, Requirement};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Memory that pods cannot have: what is less counts as pressure.
pub(crate) const RESERVED_MEMORY: i64 = 100 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// `others` are the pods of this node that are not over.
pub(crate) fn refuse(new: &Pod, others: &[Arc<Pod>], node: Option<&Node>, max_pods: u16) -> Option<Refusal> {
    let offers = |what: Resource| match what {
        Resource::Cpu => resources::machine_cpus() * 1000,
        Resource::Memory => resources::machine_memory() - RESERVED_MEMORY,
    };
    let predicate = |name: &str, why: &str| {
        Some(Refusal { reason: name.to_owned(), message: format!("Predicate {name} failed: {why}") })
    };
    if let Some(refusal) = lacks(new, others, i64::from(max_pods), offers) {
        return Some(refusal);
    }
    if node.is_some_and(|node| !selects(new, node)) {
        return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    let taken: BTreeSet<_> = others.iter().flat_map(|other| host_ports(other)).collect();
    if host_ports(new).iter().any(|port| taken.iter().any(|other| clash(port, other))) {
        return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    if wants_app_armor(new) && !app_armor_enabled() {
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        return Some(Refusal { reason: "AppArmor".to_owned(), message: message.to_owned() });
    }
    None
}

#[derive(Clone, Copy)]
enum Resource {
    Cpu,
    Memory,
}

fn lacks(new: &Pod, others: &[Arc<Pod>], max_pods: i64, offers: impl Fn(Resource) -> i64) -> Option<Refusal> {
    let out_of = |name: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Some(Refusal { reason: format!("OutOf{name}"), message })
    };
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count >= max_pods {
        return out_of("pods", 1, count, max_pods);
    }
    for (name, what) in [("cpu", Resource::Cpu), ("memory", Resource::Memory)] {
        let requested = needs(new, what);
        let used: i64 = others.iter().map(|other| needs(other, what)).sum();
        if requested > 0 && requested > offers(what) - used {
            return out_of(name, requested, used, offers(what));
        }
    }
    None
}

/// Containers and sidecars together, or any init container with the sidecars before it, whichever is more; and the overhead.
fn needs(pod: &Pod, what: Resource) -> i64 {
    let read = |list: &_| match what {
        Resource::Cpu => resources::milli_cpu(list).unwrap_or(0),
        Resource::Memory => resources::whole(list, "memory").unwrap_or(0),
    };
    let of = |container: &Container| read(&resources::requests(container));
    let (mut sidecars, mut most) = (0, 0);
    for container in pod::init_containers(pod) {
        if pod::is_sidecar(container) {
            sidecars += of(container);
            most = sidecars.max(most);
        } else {
            most = (sidecars + of(container)).max(most);
        }
    }
    let mains: i64 = pod::main_containers(pod).iter().map(of).sum();
    let spec = pod.spec.as_ref();
    let whole = spec.and_then(|s| s.resources.as_ref()).map_or(0, |r| read(&r.requests));
    let together = if whole > 0 { whole } else { (mains + sidecars).max(most) };
    together + spec.map_or(0, |s| read(&s.overhead))
}

fn selects(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let label = |key: &str| node.metadata.labels.as_ref()?.get(key).map(String::as_str);
    if !spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref();
    let holds = |term: &NodeSelectorTerm| {
        let labels = term.match_expressions.iter().flatten();
        let fields = term.match_fields.iter().flatten();
        // An empty term holds for no node.
        (labels.clone().next().is_some() || fields.clone().next().is_some())
            && labels.clone().all(|r| meets(r, label(&r.key)))
            && fields.clone().all(|r| meets(r, name.filter(|_| r.key == "metadata.name")))
    };
    required.is_none_or(|required| required.node_selector_terms.iter().any(holds))
}

fn meets(wanted: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let operator = match wanted.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    Requirement::new(&wanted.key, operator, wanted.values.clone().unwrap_or_default()).is_ok_and(|r| r.matches(found))
}

/// Protocol, address and port.
type HostPort = (String, String, i32);

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let ports = pod::main_containers(pod).iter().flat_map(|c| c.ports.iter().flatten());
    let text = |text: &Option<String>, otherwise: &str| {
        text.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| otherwise.to_owned())
    };
    ports
        .filter_map(|p| Some((text(&p.protocol, "TCP"), text(&p.host_ip, "0.0.0.0"), p.host_port.filter(|p| *p > 0)?)))
        .collect()
}

fn clash(a: &HostPort, b: &HostPort) -> bool {
    let everywhere = |p: &HostPort| p.1 == "0.0.0.0";
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || everywhere(a) || everywhere(b))
}

fn wants_app_armor(pod: &Pod) -> bool {
    let of_pod = pod.spec.iter().filter_map(|s| s.security_context.as_ref()?.app_armor_profile.as_ref());
    let containers = pod::main_containers(pod).iter().chain(pod::init_containers(pod));
    let own = containers.filter_map(|c| c.security_context.as_ref()?.app_armor_profile.as_ref());
    of_pod.chain(own).any(|profile| profile.type_ != "Unconfined")
}

fn app_armor_enabled() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn asks(cpu: &str) -> Pod {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
    }

    #[test]
    fn what_does_not_fit_is_refused_in_upstreams_words() {
        let offers = |what| if matches!(what, Resource::Cpu) { 1000 } else { 1 << 30 };
        let others = [Arc::new(asks("600m"))];
        assert_eq!(lacks(&asks("400m"), &others, 2, offers), None);
        let refusal = lacks(&asks("401m"), &others, 2, offers).unwrap();
        assert_eq!(refusal.reason, "OutOfcpu");
        assert_eq!(refusal.message, "Node didn't have enough resource: cpu, requested: 401, used: 600, capacity: 1000");
        assert_eq!(lacks(&asks("0"), &others, 1, offers).unwrap().reason, "OutOfpods");
        assert_eq!(lacks(&asks("0"), &[Arc::new(asks("2"))], 9, offers), None, "who asks for nothing fits");
    }

    #[test]
    fn selectors_and_affinity_must_hold() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"disk": "ssd", "size": "7"}}})).unwrap();
        let affine = |term: Value| {
            pod(json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}))
        };
        let wants = |operator: &str, key: &str, values: Value| {
            affine(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        for (pod, fits) in [
            (pod(json!({"containers": [], "nodeSelector": {"disk": "ssd"}})), true),
            (pod(json!({"containers": [], "nodeSelector": {"disk": "hdd"}})), false),
            (wants("In", "disk", json!(["hdd", "ssd"])), true),
            (wants("NotIn", "disk", json!(["ssd"])), false),
            (wants("Gt", "size", json!(["6"])), true),
            (wants("Lt", "size", json!(["6"])), false),
            (affine(json!({})), false),
            (affine(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]})), true),
            (affine(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]})), false),
        ] {
            assert_eq!(selects(&pod, &node), fits, "{:?}", pod.spec);
        }
    }

    #[test]
    fn a_host_port_is_given_once() {
        let port = |ip: &str| {
            let port = json!({"containerPort": 80, "hostPort": 8080, "hostIP": ip});
            pod(json!({"containers": [{"name": "c", "ports": [port]}]}))
        };
        let refused = |a: &str, b: &str| refuse(&port(a), &[Arc::new(port(b))], None, 9).map(|r| r.reason);
        assert_eq!(refused("", "127.0.0.1").as_deref(), Some("NodePorts"));
        assert_eq!(refused("127.0.0.2", "127.0.0.1"), None);
    }
}
