//! From a backend of an Ingress to addresses: the Service's port, and the endpoints that serve it.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceBackendPort;
use std::net::{IpAddr, SocketAddr};

/// The Service's port that a backend names by number or name.
pub(super) fn port<'a>(service: &'a Service, wanted: &ServiceBackendPort) -> Option<&'a ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let tcp = ports.iter().filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    let name = wanted.name.as_deref().filter(|name| !name.is_empty());
    tcp.into_iter().find(|port| match (name, wanted.number) {
        (Some(name), _) => port.name.as_deref() == Some(name),
        (None, Some(number)) => port.port == number,
        (None, None) => false,
    })
}

/// The addresses of the endpoints of a port that are ready, each once; where none is, of those that still serve while
/// they go.
pub(super) fn of<'a>(port: &ServicePort, slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<SocketAddr> {
    let name = port.name.as_deref().unwrap_or_default();
    let (mut ready, mut leaving) = (Vec::new(), Vec::new());
    for slice in slices {
        let numbers = slice.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or_default() == name && p.protocol.as_deref().is_none_or(|p| p == "TCP")
        });
        let numbers: Vec<u16> = numbers.filter_map(|p| u16::try_from(p.port?).ok()).collect();
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.as_ref();
            let is = |condition: Option<bool>| condition == Some(true);
            let list = if conditions.is_none_or(|c| c.ready.unwrap_or(true)) {
                &mut ready
            } else if conditions.is_some_and(|c| is(c.serving) && is(c.terminating)) {
                &mut leaving
            } else {
                continue;
            };
            let address = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
            list.extend(
                address.into_iter().flat_map(|ip| numbers.iter().map(move |number| SocketAddr::new(ip, *number))),
            );
        }
    }
    let mut chosen = if ready.is_empty() { leaving } else { ready };
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_found_by_number_or_name() {
        let service: Service = serde_json::from_value(json!({"spec": {"ports": [
            {"port": 53, "protocol": "UDP"}, {"port": 80, "name": "web"}, {"port": 53, "name": "dns", "protocol": "TCP"}]}}))
        .unwrap();
        let find = |name: Option<&str>, number| {
            let wanted = ServiceBackendPort { name: name.map(str::to_owned), number };
            port(&service, &wanted).and_then(|port| port.name.clone())
        };
        assert_eq!(find(None, Some(53)).as_deref(), Some("dns"));
        assert_eq!(find(Some("web"), None).as_deref(), Some("web"));
        assert_eq!(find(Some("x"), None), None);
        assert_eq!(find(None, Some(1)), None);
    }

    #[test]
    fn only_those_that_answer() {
        let slice = |ready: bool, serving: bool, terminating: bool, address: &str| -> EndpointSlice {
            serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4",
                "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}, {"name": "other", "port": 9}],
                "endpoints": [{"addresses": [address],
                    "conditions": {"ready": ready, "serving": serving, "terminating": terminating}}]}))
            .unwrap()
        };
        let web = ServicePort { name: Some("web".to_owned()), port: 80, ..ServicePort::default() };
        let addresses = |slices: &[EndpointSlice]| -> Vec<String> {
            of(&web, slices.iter()).iter().map(ToString::to_string).collect()
        };
        let (up, leaving) = (slice(true, true, false, "10.0.0.1"), slice(false, true, true, "10.0.0.2"));
        let down = slice(false, false, false, "10.0.0.3");
        assert_eq!(addresses(&[up.clone(), leaving.clone(), down.clone(), up]), ["10.0.0.1:8080"]);
        assert_eq!(addresses(&[leaving, down.clone()]), ["10.0.0.2:8080"]);
        assert_eq!(addresses(&[down]), Vec::<String>::new());
    }
}
