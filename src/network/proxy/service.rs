//! One Service and its EndpointSlices, reduced to what decides where its packets go.

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: u32 = 10_800;

/// Where one connection may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
    /// On this node: the only ones that a `Local` traffic policy may use.
    pub(super) local: bool,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) namespace: String,
    pub(super) service: String,
    /// `tcp`, `udp` or `sctp`.
    pub(super) protocol: &'static str,
    pub(super) port: u16,
    pub(super) cluster_ips: Vec<Ipv4Addr>,
    pub(super) node_port: Option<u16>,
    pub(super) external_ips: Vec<Ipv4Addr>,
    pub(super) load_balancer_ips: Vec<Ipv4Addr>,
    /// Who may use the load balancer's addresses; empty is everybody.
    pub(super) source_ranges: Vec<Ipv4Net>,
    /// Seconds for which a client stays with its endpoint.
    pub(super) affinity: Option<u32>,
    pub(super) internal_local: bool,
    pub(super) external_local: bool,
    pub(super) targets: Vec<Target>,
}

/// The ports of a Service; none for a headless one or an ExternalName.
pub(super) fn ports<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice> + Clone) -> Vec<Port> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let cluster_ips = match (&spec.cluster_ips, &spec.cluster_ip) {
        (Some(list), _) if !list.is_empty() => addresses(list),
        (_, Some(one)) => addresses([one]),
        _ => Vec::new(),
    };
    let headless = spec.cluster_ip.as_deref().is_none_or(|address| address.is_empty() || address == "None");
    if headless || spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    // A balancer in `Proxy` mode wants its own address to be reached through it.
    let ingress = ingress.into_iter().flatten().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let load_balancer_ips = addresses(ingress.filter_map(|ingress| ingress.ip.as_ref()));
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let client = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        client.and_then(|client| u32::try_from(client.timeout_seconds?).ok()).unwrap_or(AFFINITY_SECONDS)
    });
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let common = Port {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        service: service.metadata.name.clone().unwrap_or_default(),
        protocol: "tcp",
        port: 0,
        cluster_ips,
        node_port: None,
        external_ips: addresses(spec.external_ips.iter().flatten()),
        load_balancer_ips,
        source_ranges: ranges.filter_map(|range| range.trim().parse::<Ipv4Net>().ok()).map(|net| net.trunc()).collect(),
        affinity,
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        targets: Vec::new(),
    };
    let of = |port: &ServicePort| {
        Some(Port {
            protocol: protocol(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
            targets: targets(port, slices.clone()),
            ..common.clone()
        })
    };
    spec.ports.iter().flatten().filter_map(of).collect()
}

fn protocol(name: Option<&str>) -> Option<&'static str> {
    match name.unwrap_or("TCP") {
        "TCP" => Some("tcp"),
        "UDP" => Some("udp"),
        "SCTP" => Some("sctp"),
        _ => None,
    }
}

fn addresses(list: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<Ipv4Addr> {
    list.into_iter().filter_map(|address| address.as_ref().parse().ok()).collect()
}

/// The endpoints of a port: the ready ones, else those that still serve while they terminate.
fn targets<'a>(port: &ServicePort, slices: impl Iterator<Item = &'a EndpointSlice>) -> Vec<Target> {
    let (mut ready, mut terminating) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices.filter(|slice| slice.address_type == "IPv4") {
        let named = slice.ports.iter().flatten().find(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                && protocol(candidate.protocol.as_deref()) == protocol(port.protocol.as_deref())
        });
        let Some(number) = named.and_then(|found| u16::try_from(found.port?).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(address) = endpoint.addresses.first().and_then(|address| address.parse().ok()) else { continue };
            let target = Target { address, port: number, local: endpoint.node_name.is_some() };
            match usable(endpoint) {
                Some(true) => ready.insert(target),
                Some(false) => terminating.insert(target),
                None => continue,
            };
        }
    }
    if ready.is_empty() { terminating } else { ready }.into_iter().collect()
}

/// `true`: ready; `false`: not ready, but serving while it terminates; `None`: not to be used. Unknown means yes.
fn usable(endpoint: &Endpoint) -> Option<bool> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let drains = conditions.serving.unwrap_or(ready) && conditions.terminating.unwrap_or(false);
    (ready || drains).then_some(ready)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(in crate::proxy) fn read(service: Value, slices: &[Value]) -> Vec<Port> {
        let slices: Vec<EndpointSlice> =
            slices.iter().map(|slice| serde_json::from_value(slice.clone()).unwrap()).collect();
        ports(&serde_json::from_value(service).unwrap(), slices.iter())
    }

    fn slice(endpoints: &Value) -> Value {
        json!({ "metadata": { "name": "web-1" }, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }, { "name": "dns", "port": 53, "protocol": "UDP" }] })
    }

    fn web(spec: Value) -> Value {
        let mut all = json!({ "clusterIP": "10.152.183.7", "clusterIPs": ["10.152.183.7", "fd00::7"],
            "ports": [{ "name": "http", "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053 }] });
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        json!({ "metadata": { "name": "web", "namespace": "default" }, "spec": all })
    }

    #[test]
    fn ports_find_their_endpoints_by_name() {
        let ready = slice(
            &json!([{ "addresses": ["10.1.0.5"], "nodeName": "n" }, { "addresses": ["10.1.0.6"], "conditions": { "ready": true } }]),
        );
        let ports = read(web(json!({})), &[ready]);
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[0].cluster_ips, [Ipv4Addr::new(10, 152, 183, 7)]);
        let numbers: Vec<_> =
            ports[0].targets.iter().map(|target| (target.address.octets()[3], target.port, target.local)).collect();
        assert_eq!(numbers, [(5, 8080, true), (6, 8080, false)]);
        assert_eq!((ports[1].protocol, ports[1].node_port, ports[1].targets[0].port), ("udp", Some(30053), 53));
    }

    #[test]
    fn draining_endpoints_serve_only_while_nothing_is_ready() {
        let draining = json!({ "addresses": ["10.1.0.5"], "conditions": { "ready": false, "serving": true, "terminating": true } });
        let dead = json!({ "addresses": ["10.1.0.6"], "conditions": { "ready": false } });
        let ready = json!({ "addresses": ["10.1.0.7"], "conditions": { "ready": true } });
        let last = |endpoints: Value| {
            let ports = read(web(json!({})), &[slice(&endpoints)]);
            ports[0].targets.iter().map(|target| target.address.octets()[3]).collect::<Vec<_>>()
        };
        assert_eq!(last(json!([draining, dead])), [5]);
        assert_eq!(last(json!([draining, dead, ready])), [7]);
        assert!(last(json!([dead])).is_empty());
    }

    #[test]
    fn headless_and_external_name_have_no_rules() {
        assert!(read(web(json!({ "clusterIP": "None", "clusterIPs": ["None"] })), &[]).is_empty());
        assert!(read(web(json!({ "type": "ExternalName", "externalName": "example.org" })), &[]).is_empty());
    }
}
