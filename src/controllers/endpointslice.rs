//! EndpointSlices of Services with a selector: which pod addresses serve, within milliseconds of their readiness.

pub(crate) mod slices;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use mini_client::{Cache, Caches, Client, reference};

use crate::driver::{Key, Outcome, Source, Writes};
use crate::endpoint_pods::{self, addresses, hostname, of_pods, selector, target};
use crate::owner::matches;
use crate::pods;
use slices::Group;

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

pub(crate) struct Controller {
    client: Client,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
}

fn label<'a>(slice: &'a EndpointSlice, name: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches) -> Self {
        let (services, slices, pods, nodes) = (caches.of(), caches.of(), caches.of(), caches.of());
        Self { client: client.clone(), services, slices, pods, nodes }
    }

    /// What the slices of a service should hold, by address family and ports.
    fn wish(&self, service: &Service, selector: &kube::core::Selector) -> Vec<Group> {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let spec = service.spec.clone().unwrap_or_default();
        let families = spec.ip_families.clone().unwrap_or_else(|| vec!["IPv4".to_owned()]);
        let unready_too = spec.publish_not_ready_addresses == Some(true);
        let mut groups: Vec<Group> = Vec::new();
        for family in &families {
            for pod in self.pods.list_in(namespace) {
                let ips = addresses(&pod, family == "IPv6");
                if ips.is_empty() || pods::is_finished(&pod) || !matches(selector, &pod.metadata) {
                    continue;
                }
                let ports = ports(&pod, &spec.ports.clone().unwrap_or_default());
                let endpoint = self.endpoint(&pod, service, ips, unready_too);
                match groups.iter_mut().find(|group| group.family == *family && group.ports == ports) {
                    Some(group) => group.endpoints.push(endpoint),
                    None => groups.push(Group { family: family.clone(), ports, endpoints: vec![endpoint] }),
                }
            }
            // A service without pods still has a slice, so that one can tell it from one not seen yet.
            if !groups.iter().any(|group| group.family == *family) {
                groups.push(Group { family: family.clone(), ports: Vec::new(), endpoints: Vec::new() });
            }
        }
        groups
    }

    fn endpoint(&self, pod: &Pod, service: &Service, addresses: Vec<String>, unready_too: bool) -> Endpoint {
        let serving = pods::is_ready(pod);
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let zone = node.as_ref().and_then(|node| self.nodes.get("", node));
        let mut target = reference(pod);
        // Revisions change with every status write; they would rewrite the slice each time.
        (target.api_version, target.resource_version) = (None, None);
        Endpoint {
            addresses,
            conditions: Some(EndpointConditions {
                ready: Some(unready_too || (serving && !terminating)),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: hostname(pod, service),
            target_ref: Some(target),
            zone: zone.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned()),
            node_name: node,
            ..Endpoint::default()
        }
    }

    fn labels(service: &Service) -> std::collections::BTreeMap<String, String> {
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        if service.spec.as_ref().is_some_and(endpoint_pods::is_headless) {
            labels.insert(endpoint_pods::HEADLESS.to_owned(), String::new());
        }
        labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        labels
    }
}

/// A service's ports as this pod serves them.
fn ports(pod: &Pod, wished: &[k8s_openapi::api::core::v1::ServicePort]) -> Vec<EndpointPort> {
    let resolve = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target(pod, port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    wished.iter().filter_map(resolve).collect()
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn sources(&self) -> Vec<Source> {
        let slices = Source::of(&self.slices, |change| {
            let slice = change.object();
            let ours = label(slice, MANAGED_BY) == Some(MANAGER);
            let service = label(slice, SERVICE_NAME).filter(|_| ours);
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            service.map(|service| Key::new(namespace, service)).into_iter().collect()
        });
        vec![Source::own(&self.services), of_pods(&self.pods, &self.services), slices]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let ours = |slice: &EndpointSlice| {
            label(slice, MANAGED_BY) == Some(MANAGER) && label(slice, SERVICE_NAME) == Some(&key.name)
        };
        let present: Vec<_> = self.slices.list_in(&key.namespace).into_iter().filter(|slice| ours(slice)).collect();
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            // Their owner is gone: the garbage collector deletes them.
            return Ok(None);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        // Without a selector its endpoints are somebody else's to keep, and what is there stays.
        let Some(selector) = selector(&service) else { return Ok(None) };
        let groups = self.wish(&service, &selector);
        let plan = slices::plan(service.as_ref(), Self::labels(&service), groups, present);
        slices::carry_out(&self.client, &self.slices, &key.namespace, plan, writes).await
    }
}

#[cfg(test)]
mod tests;
