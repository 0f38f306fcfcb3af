//! Whether this node takes a pod that has been bound to it: the last word, after whoever bound it.
//!
//! Upstream's general predicates: resources, number of pods, node selector and affinity, host ports; and AppArmor. Pure but
//! for [`app_armor_enabled`]. A pod that is refused fails, and stays failed.

use crate::pod;
use crate::resources;
use k8s_openapi::api::core::v1::{Node, Pod};
use mini_client::requests::{Amounts, needs};
use mini_client::{host_ports, node_selector};
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
    let offers = [("cpu", resources::machine_cpus() * 1000), ("memory", resources::machine_memory() - RESERVED_MEMORY)];
    let predicate = |name: &str, why: &str| {
        Some(Refusal { reason: name.to_owned(), message: format!("Predicate {name} failed: {why}") })
    };
    if let Some(refusal) = lacks(new, others, i64::from(max_pods), offers) {
        return Some(refusal);
    }
    let selects = |node: &Node| new.spec.as_ref().is_none_or(|spec| node_selector::selects(spec, node));
    if node.is_some_and(|node| !selects(node)) {
        return predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    if host_ports::conflict(new, others.iter().map(AsRef::as_ref)) {
        return predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    if wants_app_armor(new) && !app_armor_enabled() {
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        return Some(Refusal { reason: "AppArmor".to_owned(), message: message.to_owned() });
    }
    None
}

fn lacks(new: &Pod, others: &[Arc<Pod>], max_pods: i64, offers: [(&str, i64); 2]) -> Option<Refusal> {
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
    let mut used = Amounts::default();
    others.iter().for_each(|other| used.add(&needs(other)));
    let asked = needs(new);
    let short = offers.into_iter().find(|(name, offered)| asked.get(name) > (offered - used.get(name)).max(0));
    short.and_then(|(name, offered)| out_of(name, asked.get(name), used.get(name), offered))
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
        let offers = [("cpu", 1000), ("memory", 1 << 30)];
        let others = [Arc::new(asks("600m"))];
        assert_eq!(lacks(&asks("400m"), &others, 2, offers), None);
        let refusal = lacks(&asks("401m"), &others, 2, offers).unwrap();
        assert_eq!(refusal.reason, "OutOfcpu");
        assert_eq!(refusal.message, "Node didn't have enough resource: cpu, requested: 401, used: 600, capacity: 1000");
        assert_eq!(lacks(&asks("0"), &others, 1, offers).unwrap().reason, "OutOfpods");
        assert_eq!(lacks(&asks("0"), &[Arc::new(asks("2"))], 9, offers), None, "who asks for nothing fits");
    }

    #[test]
    fn selectors_must_hold() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}})).unwrap();
        let refused = |disk: &str| {
            let pod = pod(json!({"containers": [], "nodeSelector": {"disk": disk}}));
            refuse(&pod, &[], Some(&node), 9).map(|refusal| refusal.reason)
        };
        assert_eq!(refused("ssd"), None);
        assert_eq!(refused("hdd").as_deref(), Some("NodeAffinity"));
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
