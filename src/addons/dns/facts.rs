//! What names need to know of a Service and of an EndpointSlice, without the rest.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use std::net::IpAddr;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

#[derive(Debug, PartialEq)]
pub(super) struct Port {
    /// Empty when unnamed.
    pub(super) name: String,
    /// In lower case, as labels have it.
    pub(super) protocol: String,
    pub(super) number: u16,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Service {
    /// All cluster IPs; none when headless.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) headless: bool,
    /// The target of an ExternalName Service.
    pub(super) external: Option<String>,
    pub(super) unready_too: bool,
    pub(super) ports: Vec<Port>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Slice {
    pub(super) service: String,
    pub(super) ports: Vec<Port>,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Endpoint {
    pub(super) hostname: Option<String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ready: bool,
}

fn port(name: Option<&String>, protocol: Option<&String>, number: i32) -> Option<Port> {
    Some(Port {
        name: name.map(|name| name.to_ascii_lowercase()).unwrap_or_default(),
        protocol: protocol.map_or_else(|| "tcp".to_owned(), |protocol| protocol.to_ascii_lowercase()),
        number: u16::try_from(number).ok()?,
    })
}

impl Service {
    pub(super) fn of(service: &core::Service) -> Self {
        let Some(spec) = &service.spec else { return Self::default() };
        if spec.type_.as_deref() == Some("ExternalName") {
            // An address is no name; upstream does not serve those either.
            let external = spec.external_name.clone().filter(|name| name.parse::<IpAddr>().is_err());
            return Self { external, ..Self::default() };
        }
        let several = spec.cluster_ips.as_ref().filter(|ips| !ips.is_empty());
        let texts = several.cloned().unwrap_or_else(|| spec.cluster_ip.iter().cloned().collect());
        Self {
            headless: texts.first().is_some_and(|first| first == "None"),
            addresses: texts.iter().filter_map(|text| text.parse().ok()).collect(),
            external: None,
            unready_too: spec.publish_not_ready_addresses == Some(true),
            ports: (spec.ports.iter().flatten())
                .filter_map(|p| port(p.name.as_ref(), p.protocol.as_ref(), p.port))
                .collect(),
        }
    }
}

impl Slice {
    /// `None` for a slice of no Service.
    pub(super) fn of(slice: &discovery::EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
        let ports = slice.ports.iter().flatten();
        let endpoints = slice.endpoints.iter().flatten().map(|endpoint| Endpoint {
            hostname: endpoint.hostname.as_ref().filter(|name| !name.is_empty()).map(|name| name.to_ascii_lowercase()),
            addresses: endpoint.addresses.iter().filter_map(|text| text.parse().ok()).collect(),
            ready: endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false),
        });
        Some(Self {
            service,
            ports: ports.filter_map(|p| port(p.name.as_ref(), p.protocol.as_ref(), p.port?)).collect(),
            endpoints: endpoints.collect(),
        })
    }
}
