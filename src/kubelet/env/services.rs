//! Variables that name Services: `<NAME>_SERVICE_HOST` and the older link form.

use super::Env;
use k8s_openapi::api::core::v1::Service;
use std::sync::Arc;

/// The Services of `namespace` (when links are on) and, always, `default/kubernetes`.
pub(super) fn environment(services: &[Arc<Service>], namespace: &str, links: bool) -> Env {
    let mut env = Env::default();
    let mut sorted: Vec<&Arc<Service>> = services.iter().collect();
    sorted.sort_by_key(|s| (s.metadata.namespace.clone(), s.metadata.name.clone()));
    for service in sorted {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = own == "default" && name == "kubernetes";
        if !(master || links && own == namespace) {
            continue;
        }
        // A Service of that name in the pod's own namespace goes before the API's.
        if master
            && namespace != "default"
            && links
            && services
                .iter()
                .any(|s| s.metadata.namespace.as_deref() == Some(namespace) && s.metadata.name.as_deref() == Some(name))
        {
            continue;
        }
        add(&mut env, name, service);
    }
    env
}

fn add(env: &mut Env, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let ip = match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => return,
        Some(ip) => ip,
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let prefix = variable(name);
    env.set(&format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    env.set(&format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            env.set(&format!("{prefix}_SERVICE_PORT_{}", variable(name)), port.port.to_string());
        }
    }
    for (i, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if i == 0 {
            env.set(&format!("{prefix}_PORT"), url.clone());
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.set(&port_prefix, url);
        env.set(&format!("{port_prefix}_PROTO"), protocol.to_lowercase());
        env.set(&format!("{port_prefix}_PORT"), port.port.to_string());
        env.set(&format!("{port_prefix}_ADDR"), ip.to_owned());
    }
}

fn variable(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, ip: &str) -> Arc<Service> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name},
                "spec": {"clusterIP": ip, "ports": [{"name": "p-x", "port": 80, "protocol": "TCP"}]}}))
            .unwrap(),
        )
    }

    #[test]
    fn own_services_and_the_api_are_named() {
        let all = [
            service("default", "kubernetes", "10.0.0.1"),
            service("ns", "red-is", "10.0.0.2"),
            service("other", "x", "10.0.0.3"),
            service("ns", "headless", "None"),
        ];
        let env = environment(&all, "ns", true);
        assert_eq!(env.get("KUBERNETES_SERVICE_HOST"), Some("10.0.0.1"));
        assert_eq!(env.get("RED_IS_SERVICE_PORT_P_X"), Some("80"));
        assert_eq!(env.get("RED_IS_PORT_80_TCP"), Some("tcp://10.0.0.2:80"));
        assert_eq!(env.get("X_SERVICE_HOST"), None);
        assert_eq!(env.get("HEADLESS_SERVICE_HOST"), None);
        assert_eq!(environment(&all, "ns", false).get("RED_IS_SERVICE_HOST"), None);
    }
}
