//! Endpoints, the older form of EndpointSlices that many clients still read.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::core::Selector;
use mini_client::{Cache, Caches, Client, reference};

use crate::driver::{Key, Outcome, Source, Writes, code, optional};
use crate::endpoint_pods::{self, addresses, hostname, of_pods, selector, target};
use crate::owner::matches;
use crate::pods;

pub(crate) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "endpoint-controller";
/// More addresses are left out: this is the old form.
const MOST: usize = 1000;

pub(crate) struct Controller {
    client: Client,
    services: Cache<Service>,
    endpoints: Cache<Endpoints>,
    pods: Cache<Pod>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches) -> Self {
        let (services, endpoints, pods) = (caches.of(), caches.of(), caches.of());
        Self { client: client.clone(), services, endpoints, pods }
    }

    fn subsets(&self, service: &Service, selector: &Selector) -> Vec<EndpointSubset> {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let spec = service.spec.clone().unwrap_or_default();
        let v6 = spec.ip_families.as_ref().and_then(|families| families.first()).is_some_and(|f| f == "IPv6");
        let unready_too = spec.publish_not_ready_addresses == Some(true);
        let mut subsets: Vec<EndpointSubset> = Vec::new();
        let mut selected = self.pods.list_in(namespace);
        selected.retain(|pod| {
            matches(selector, &pod.metadata)
                && !pods::is_finished(pod)
                && (unready_too || pod.metadata.deletion_timestamp.is_none())
        });
        for pod in selected.iter().take(MOST) {
            let Some(ip) = addresses(pod, v6).pop() else { continue };
            let wished = spec.ports.clone().unwrap_or_default();
            let ports: Vec<_> = wished.iter().filter_map(|port| resolve(pod, port)).collect();
            if ports.is_empty() && !(wished.is_empty() && endpoint_pods::is_headless(&spec)) {
                continue;
            }
            let ports = (!ports.is_empty()).then_some(ports);
            let address = address(pod, service, ip);
            let at = subsets.iter().position(|subset| subset.ports == ports).unwrap_or_else(|| {
                subsets.push(EndpointSubset { ports, ..EndpointSubset::default() });
                subsets.len() - 1
            });
            if let Some(subset) = subsets.get_mut(at) {
                let ready = unready_too || pods::is_ready(pod);
                let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
                list.get_or_insert_default().push(address);
            }
        }
        for subset in &mut subsets {
            for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
                list.sort_by(|a, b| a.ip.cmp(&b.ip));
            }
        }
        subsets
    }

    async fn write(&self, key: &Key, present: Option<&Endpoints>, wished: Endpoints, writes: &mut Writes) -> Outcome {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let written = match present {
            Some(_) => api.replace(&key.name, &PostParams::default(), &wished).await,
            None => api.create(&PostParams::default(), &wished).await,
        };
        match written {
            Ok(written) => writes.wrote(&self.endpoints, &written),
            // The namespace is leaving.
            Err(error) if present.is_none() && matches!(code(&error), 403 | 404) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }
}

fn resolve(pod: &Pod, port: &k8s_openapi::api::core::v1::ServicePort) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: target(pod, port)?,
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    })
}

fn address(pod: &Pod, service: &Service, ip: String) -> EndpointAddress {
    let mut target = reference(pod);
    (target.api_version, target.resource_version) = (None, None);
    EndpointAddress {
        ip,
        hostname: hostname(pod, service),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(target),
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    if service.spec.as_ref().is_some_and(endpoint_pods::is_headless) {
        labels.insert(endpoint_pods::HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "endpoints"
    }

    fn sources(&self) -> Vec<Source> {
        let services = self.services.clone();
        let own = Source::of(&self.endpoints, move |change| {
            let key = Key::of(change.object().as_ref());
            services.get(&key.namespace, &key.name).map(|_| key).into_iter().collect()
        });
        vec![Source::own(&self.services), of_pods(&self.pods, &self.services), own]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let present = self.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            if let Some(present) = present {
                let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
                optional(api.delete(&key.name, &DeleteParams::default()).await)?;
                writes.deleted(&self.endpoints, present.as_ref());
            }
            return Ok(None);
        };
        let Some(selector) = selector(&service).filter(|_| service.metadata.deletion_timestamp.is_none()) else {
            return Ok(None);
        };
        let subsets = Some(self.subsets(&service, &selector)).filter(|subsets| !subsets.is_empty());
        let labels = Some(labels(&service));
        let same = present.as_ref().is_some_and(|present| {
            present.subsets.clone().filter(|subsets| !subsets.is_empty()) == subsets
                && present.metadata.labels == labels
        });
        if same {
            return Ok(None);
        }
        let metadata = match &present {
            Some(present) => ObjectMeta { labels, ..present.metadata.clone() },
            None => ObjectMeta {
                name: Some(key.name.clone()),
                namespace: Some(key.namespace.clone()),
                labels,
                ..ObjectMeta::default()
            },
        };
        self.write(key, present.as_deref(), Endpoints { metadata, subsets }, writes).await
    }
}
