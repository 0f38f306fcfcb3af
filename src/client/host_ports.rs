//! Ports of the machine itself, which pods ask for: one holder per protocol, address and number.

use k8s_openapi::api::core::v1::{ContainerPort, Pod};

const ANY: &str = "0.0.0.0";

fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        spec.containers.iter().chain(sidecars)
    });
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.filter(|port| port.host_port.is_some_and(|number| number > 0))
}

fn clash(a: &ContainerPort, b: &ContainerPort) -> bool {
    fn address(port: &ContainerPort) -> &str {
        port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or(ANY)
    }
    fn protocol(port: &ContainerPort) -> &str {
        port.protocol.as_deref().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
    }
    a.host_port == b.host_port
        && protocol(a) == protocol(b)
        && (address(a) == address(b) || address(a) == ANY || address(b) == ANY)
}

/// Whether a pod asks for a port that one of the others holds.
pub fn conflict<'a>(pod: &Pod, mut others: impl Iterator<Item = &'a Pod>) -> bool {
    let wanted: Vec<_> = host_ports(pod).collect();
    !wanted.is_empty() && others.any(|other| host_ports(other).any(|held| wanted.iter().any(|want| clash(want, held))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_port_is_held_once() {
        let pod = |place: &str, ip: &str| -> Pod {
            let port = json!({"containerPort": 80, "hostPort": 8080, "hostIP": ip});
            let container = json!([{"name": "c", "restartPolicy": "Always", "ports": [port]}]);
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [], place: container}})).unwrap()
        };
        let clash = |a: &Pod, b: &Pod| conflict(a, [b].into_iter());
        assert!(clash(&pod("containers", ""), &pod("containers", "127.0.0.1")));
        assert!(!clash(&pod("containers", "127.0.0.2"), &pod("containers", "127.0.0.1")));
        assert!(clash(&pod("containers", ""), &pod("initContainers", "")), "a sidecar holds its ports too");
    }
}
