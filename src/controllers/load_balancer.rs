//! Services of type LoadBalancer answer at the node's own address, as far as their ports are free there.
//!
//! The service proxy does the rest once the address is in the status. A port belongs to the Service that had it first;
//! one that a host port or a program of the machine holds is left to it, and the Service waits and says why.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Pod, Service, ServicePort};
use kube::Api;
use kube::api::{Patch, PatchParams};
use mini_client::{Cache, Caches, Client, EventType, Recorder, reference};
use mini_sys::listeners::Listeners;
use serde_json::json;

use crate::driver::{Key, Outcome, Source, Writes, optional};
use crate::pods;

/// When a port that a program holds is looked at again; the kernel tells nobody when it is free.
const RETRY: Duration = Duration::from_secs(30);

pub(crate) struct Controller {
    client: Client,
    services: Cache<Service>,
    pods: Cache<Pod>,
    recorder: Recorder,
    node: String,
    address: String,
}

fn is_ours(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.as_deref().is_none_or(str::is_empty)
    }) && service.metadata.deletion_timestamp.is_none()
}

fn is_balancer(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer")
}

fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.as_deref()).unwrap_or_default()
}

fn protocol(protocol: Option<&str>) -> &str {
    protocol.unwrap_or("TCP")
}

fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

impl Controller {
    pub(crate) fn new(client: &Client, caches: &Caches, node: &crate::Node, recorder: Recorder) -> Self {
        let (services, pods) = (caches.of(), caches.of());
        let (node, address) = (node.name.clone(), node.address.to_string());
        Self { client: client.clone(), services, pods, recorder, node, address }
    }

    fn has_address(&self, service: &Service) -> bool {
        matches!(ingress(service), [one] if one.ip.as_deref() == Some(&self.address))
    }

    /// Who has a port of the service, in words.
    async fn holder(&self, service: &Service, key: &Key) -> Option<String> {
        // Where several have or wish a port: who has it, then who wished first.
        let rank = |other: &Service| {
            let created = other.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!self.has_address(other), created, Key::of(other))
        };
        let others: Vec<Arc<Service>> = self
            .services
            .list()
            .into_iter()
            .filter(|other| is_ours(other) && Key::of(other.as_ref()) != *key)
            .collect();
        let (mut all_pods, mine) = (self.pods.list(), rank(service));
        all_pods.retain(|pod| pods::is_active(pod) && on_node(pod, &self.node));
        for port in ports(service) {
            let (number, l4) = (port.port, protocol(port.protocol.as_deref()));
            let same = |other: &&Arc<Service>| {
                let clash = |theirs: &ServicePort| theirs.port == number && protocol(theirs.protocol.as_deref()) == l4;
                rank(other) < mine && ports(other).iter().any(clash)
            };
            if let Some(other) = others.iter().find(same) {
                return Some(format!("port {number}/{l4} is taken by Service {}", Key::of(other.as_ref())));
            }
            if let Some(pod) = all_pods.iter().find(|pod| has_host_port(pod, number, l4)) {
                return Some(format!("port {number}/{l4} is a host port of Pod {}", Key::of(pod.as_ref())));
            }
        }
        if self.has_address(service) {
            // A program that came later does not take it away: it is told by the proxy.
            return None;
        }
        let wished: Vec<_> = ports(service)
            .iter()
            .filter_map(|port| Some((u16::try_from(port.port).ok()?, protocol(port.protocol.as_deref()).to_owned())))
            .collect();
        let look = move || {
            let listeners = Listeners::read();
            wished.iter().find_map(|(number, l4)| {
                let program = listeners.reachable(l4, *number)?;
                Some(format!("port {number}/{l4} is taken by {program}"))
            })
        };
        tokio::task::spawn_blocking(look).await.ok().flatten()
    }

    async fn publish(&self, service: &Service, address: Option<&str>, writes: &mut Writes) -> Result<(), kube::Error> {
        let list = address.map(|ip| json!([{"ip": ip, "ipMode": "VIP"}]));
        let patch = json!({"metadata": {"uid": service.metadata.uid}, "status": {"loadBalancer": {"ingress": list}}});
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let written = optional(api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        if let Some(written) = written {
            writes.wrote(&self.services, &written);
        }
        Ok(())
    }
}

fn on_node(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

fn has_host_port(pod: &Pod, number: i32, l4: &str) -> bool {
    let spec = pod.spec.as_ref();
    let containers =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .any(|port| port.host_port == Some(number) && protocol(port.protocol.as_deref()) == l4)
}

impl crate::driver::Controller for Controller {
    fn name(&self) -> &'static str {
        "load-balancer"
    }

    fn sources(&self) -> Vec<Source> {
        let all = self.services.clone();
        let services = Source::of(&self.services, move |change| {
            let service = change.object();
            let mut keys = vec![Key::of(service.as_ref())];
            // What it has, had or gives up may be what others wait for.
            if change.states().any(|state| is_balancer(state)) {
                let waiting = all.list().into_iter().filter(|other| is_ours(other) && ingress(other).is_empty());
                keys.extend(waiting.map(|other| Key::of(other.as_ref())));
            }
            keys
        });
        let all = self.services.clone();
        let pods = Source::of(&self.pods, move |change| {
            let pod = change.object();
            let host_ports = |container: &k8s_openapi::api::core::v1::Container| {
                container.ports.iter().flatten().any(|port| port.host_port.is_some())
            };
            if !pod.spec.as_ref().is_some_and(|spec| spec.containers.iter().any(host_ports)) || pods::is_active(pod) {
                return Vec::new();
            }
            let waiting = all.list().into_iter().filter(|service| is_ours(service) && ingress(service).is_empty());
            waiting.map(|service| Key::of(service.as_ref())).collect()
        });
        vec![services, pods]
    }

    async fn reconcile(&self, key: &Key, writes: &mut Writes) -> Outcome {
        let Some(service) = self.services.get(&key.namespace, &key.name) else { return Ok(None) };
        if !is_ours(&service) {
            // A balancer of another class keeps its status; what is none any more has none.
            if !is_balancer(&service) && !ingress(&service).is_empty() {
                self.publish(&service, None, writes).await?;
            }
            return Ok(None);
        }
        if let Some(why) = self.holder(&service, key).await {
            let said = format!("Error syncing load balancer: {why} on node {}", self.node);
            self.recorder.event(&reference(service.as_ref()), EventType::Warning, "SyncLoadBalancerFailed", said);
            if !ingress(&service).is_empty() {
                self.publish(&service, None, writes).await?;
            }
            return Ok(Some(RETRY));
        }
        if !self.has_address(&service) {
            self.publish(&service, Some(&self.address), writes).await?;
            let said = "Ensured load balancer".to_owned();
            self.recorder.event(&reference(service.as_ref()), EventType::Normal, "EnsuredLoadBalancer", said);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fake::{Running, named};

    fn service(name: &str, port: u16, extra: &Value) -> Value {
        let mut spec = json!({"type": "LoadBalancer", "ports": [{"port": port, "protocol": "TCP"}]});
        for (field, value) in extra.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "a"}, "spec": spec})
    }

    fn start(objects: &[Value]) -> Running {
        let running = Running::new(objects);
        let node = crate::fake::node();
        running.start(Controller::new(&running.client, &running.caches, &node, running.recorder()));
        running
    }

    fn address(services: &[Value], name: &str) -> Value {
        named(services, name)["status"]["loadBalancer"]["ingress"][0].clone()
    }

    /// A port that nobody on this machine listens on.
    fn free_port() -> u16 {
        std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn the_nodes_address_is_published_and_taken_back() {
        let (port, plain) = (free_port(), json!({}));
        let foreign = service("foreign", port, &json!({"loadBalancerClass": "example.com/other"}));
        let running = start(&[service("web", port, &plain), foreign]);
        running.api.until("services", |all| address(all, "web") == json!({"ip": "192.0.2.1", "ipMode": "VIP"})).await;
        assert!(address(&running.api.list("services"), "foreign").is_null());
        running.api.edit("services", "a", "web", |web| web["spec"]["type"] = json!("ClusterIP"));
        running.api.until("services", |all| address(all, "web").is_null()).await;
    }

    #[tokio::test]
    async fn a_port_has_one_holder_and_the_next_gets_it_after() {
        let (port, plain) = (free_port(), json!({}));
        let running = start(&[service("web", port, &plain)]);
        running.api.until("services", |all| !address(all, "web").is_null()).await;
        running.api.put(&service("second", port, &plain));
        let said = format!("Error syncing load balancer: port {port}/TCP is taken by Service a/web on node n");
        running.api.until("events", |all| all.iter().any(|event| event["message"] == said.as_str())).await;
        assert!(address(&running.api.list("services"), "second").is_null());
        running.api.remove("v1", "services", "a", "web");
        running.api.until("services", |all| !address(all, "second").is_null()).await;
    }

    #[tokio::test]
    async fn what_a_program_or_a_host_port_has_is_left_to_it() {
        let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let inner = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, loopback) = (taken.local_addr().unwrap().port(), inner.local_addr().unwrap().port());
        let (host_port, plain) = (free_port(), json!({}));
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "edge", "namespace": "a"},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": host_port}]}]}});
        let running = start(&[
            pod,
            service("program", port, &plain),
            service("edge", host_port, &plain),
            service("inner", loopback, &plain),
        ]);
        running.api.until("services", |all| !address(all, "inner").is_null()).await;
        for said in [format!("{port}/TCP is taken by "), format!("{host_port}/TCP is a host port of Pod a/edge")] {
            let told = |event: &Value| event["message"].as_str().is_some_and(|message| message.contains(&said));
            running.api.until("events", |all| all.iter().any(told)).await;
        }
        let services = running.api.list("services");
        assert!(address(&services, "program").is_null() && address(&services, "edge").is_null());
    }
}
