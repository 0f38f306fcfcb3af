//! Host ports: one holder per protocol, address and number.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use crate::cluster::NodeState;

const ANY: &str = "0.0.0.0";

fn host_ports(pod: &Pod) -> Vec<&ContainerPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports.filter(|port| port.host_port.is_some_and(|number| number > 0)).collect()
}

fn clash(a: &ContainerPort, b: &ContainerPort) -> bool {
    fn address(port: &ContainerPort) -> &str {
        port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or(ANY)
    }
    fn protocol(port: &ContainerPort) -> &str {
        port.protocol.as_deref().unwrap_or("TCP")
    }
    a.host_port == b.host_port
        && protocol(a) == protocol(b)
        && (address(a) == address(b) || address(a) == ANY || address(b) == ANY)
}

pub(super) fn conflict(pod: &Pod, state: &NodeState) -> Option<String> {
    let wanted = host_ports(pod);
    let taken = |other: &Arc<Pod>| host_ports(other).iter().any(|held| wanted.iter().any(|want| clash(want, held)));
    let conflict = !wanted.is_empty() && state.pods.values().any(|placed| taken(&placed.pod));
    conflict.then(|| "node(s) didn't have free ports for the requested pod ports".to_owned())
}
