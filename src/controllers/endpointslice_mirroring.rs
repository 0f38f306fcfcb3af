//! Mirrors Endpoints that somebody writes by hand into EndpointSlices, which is what the service proxy reads.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use mini_client::{Cache, Caches, Client};

use crate::driver::{Key, Outcome, Source, Writes};
use crate::endpointslice::slices::{self, Group, Plan};
use crate::endpointslice::{MANAGED_BY, SERVICE_NAME};
use crate::{endpoint_pods, endpoints};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// More addresses of one subset are left out, as upstream does.
const MOST: usize = 1000;

pub(crate) struct Controller {
    client: Client,
    services: Cache<Service>,
    endpoints: Cache<Endpoints>,
    slices: Cache<EndpointSlice>,
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches) -> Self {
        Self { client: client.clone(), services: caches.of(), endpoints: caches.of(), slices: caches.of() }
    }
}

/// Written by hand: not by our own controller, nor by somebody who keeps the slices too.
fn is_custom(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    let label = |name: &str| labels.and_then(|labels| labels.get(name)).map(String::as_str);
    let leads = endpoints.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    label(SKIP) != Some("true") && label(endpoints::MANAGED_BY) != Some(endpoints::MANAGER) && !leads
}

fn mirror(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        });
        let ports: Vec<_> = ports.collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(unready).take(MOST) {
            let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            let endpoint = mirror(address, ready);
            match groups.iter_mut().find(|group| group.family == family && group.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => {
                    groups.push(Group { family: family.to_owned(), ports: ports.clone(), endpoints: vec![endpoint] });
                }
            }
        }
    }
    groups
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring"
    }

    fn sources(&self) -> Vec<Source> {
        let slices = Source::of(&self.slices, |change| {
            let slice = change.object();
            let label = |name: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(name));
            let ours = label(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
            let service = label(SERVICE_NAME).filter(|_| ours);
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            service.map(|service| Key::new(namespace, service.clone())).into_iter().collect()
        });
        vec![Source::own(&self.endpoints), Source::own(&self.services), slices]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let label = |slice: &EndpointSlice, name: &str, value: &str| {
            slice.metadata.labels.as_ref().and_then(|labels| labels.get(name)).is_some_and(|found| found == value)
        };
        let ours = |slice: &EndpointSlice| label(slice, MANAGED_BY, MANAGER) && label(slice, SERVICE_NAME, &key.name);
        let present: Vec<_> = self.slices.list_in(&key.namespace).into_iter().filter(|slice| ours(slice)).collect();
        let service = self.services.get(&key.namespace, &key.name);
        let by_hand = service.is_some_and(|service| endpoint_pods::selector(&service).is_none());
        let custom = self.endpoints.get(&key.namespace, &key.name).filter(|custom| by_hand && is_custom(custom));
        let plan = match custom.as_deref() {
            Some(custom) => {
                let mut labels = custom.metadata.labels.clone().unwrap_or_default();
                let own = [(SERVICE_NAME, key.name.as_str()), (MANAGED_BY, MANAGER)];
                let own: BTreeMap<_, _> = own.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                labels.extend(own);
                slices::plan(custom, labels, groups(custom), present)
            }
            None => Plan { delete: present, ..Plan::default() },
        };
        slices::carry_out(&self.client, &self.slices, &key.namespace, plan, writes).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::Running;

    #[tokio::test]
    async fn what_is_written_by_hand_is_mirrored_and_goes_with_it() {
        let service = |name: &str, selector: Value| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "a"},
                "spec": {"selector": selector, "ports": [{"port": 80}]}})
        };
        let endpoints = |name: &str, labels: Value| {
            json!({"apiVersion": "v1", "kind": "Endpoints",
                "metadata": {"name": name, "namespace": "a", "labels": labels},
                "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "notReadyAddresses": [{"ip": "192.0.2.8"}],
                    "ports": [{"port": 8080}]}]})
        };
        let running = Running::new(&[
            service("far", Value::Null),
            endpoints("far", json!({"team": "x"})),
            service("skipped", Value::Null),
            endpoints("skipped", json!({SKIP: "true"})),
            service("selecting", json!({"app": "web"})),
            endpoints("selecting", json!({})),
        ]);
        running.start(Controller::new(&running.client, &running.caches));
        running.api.until("endpointslices", |slices| slices.len() == 1).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let slices = running.api.list("endpointslices");
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0]["metadata"]["labels"]["team"], "x");
        assert_eq!(slices[0]["metadata"]["labels"]["kubernetes.io/service-name"], "far");
        assert_eq!(slices[0]["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
        let ready: Vec<_> =
            slices[0]["endpoints"].as_array().unwrap().iter().map(|e| &e["conditions"]["ready"]).collect();
        assert_eq!(ready, [true, false]);
        running.api.edit("endpoints", "a", "far", |far| far["subsets"][0]["addresses"][0]["ip"] = json!("192.0.2.9"));
        running.api.until("endpointslices", |slices| slices[0].to_string().contains("192.0.2.9")).await;
        running.api.edit("endpoints", "a", "far", |far| far["subsets"] = json!([]));
        running.api.until("endpointslices", <[Value]>::is_empty).await;
    }
}
