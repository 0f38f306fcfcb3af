//! What Endpoints and EndpointSlices have in common: which pods serve a Service, and on which ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::Selector;
use mini_client::{Cache, Change};

use crate::driver::{Key, Source};
use crate::owner::matches;
use crate::pods;

pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// The selector of a Service whose endpoints are ours to keep.
pub(crate) fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    let wanted: BTreeMap<String, String> = spec.selector.clone().unwrap_or_default();
    let external = spec.type_.as_deref() == Some("ExternalName");
    (!wanted.is_empty() && !external).then(|| wanted.into_iter().collect())
}

pub(crate) fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

/// The Services that select a changed pod, before or after.
pub(crate) fn of_pods(pods: &Cache<Pod>, services: &Cache<Service>) -> Source {
    let services = services.clone();
    Source::of(pods, move |change: &Change<Pod>| {
        if let Change::Updated { old, new } = change
            && !concerns(old, new)
        {
            return Vec::new();
        }
        let namespace = change.object().metadata.namespace.as_deref().unwrap_or_default();
        let selects = |service: &Arc<Service>| {
            let selector = selector(service);
            selector.is_some_and(|selector| change.states().any(|pod| matches(&selector, &pod.metadata)))
        };
        services.list_in(namespace).iter().filter(|s| selects(s)).map(|s| Key::of(s.as_ref())).collect()
    })
}

/// Whether a pod's change can change an endpoint: most status writes cannot.
fn concerns(old: &Pod, new: &Pod) -> bool {
    let facts = |pod: &Pod| {
        let status = pod.status.as_ref();
        let ips = status.and_then(|status| status.pod_ips.clone());
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        (pods::is_ready(pod), pods::is_finished(pod), pod.metadata.deletion_timestamp.is_some(), ips, node)
    };
    old.metadata.labels != new.metadata.labels
        || old.metadata.uid != new.metadata.uid
        || facts(old) != facts(new)
        || pod_ip(old) != pod_ip(new)
}

fn pod_ip(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}

/// The addresses of a pod, of one family.
pub(crate) fn addresses(pod: &Pod, v6: bool) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone());
    let mut found: Vec<String> = all.filter(|ip| ip.contains(':') == v6).collect();
    if found.is_empty() {
        found.extend(status.pod_ip.iter().filter(|ip| ip.contains(':') == v6).cloned());
    }
    found.truncate(1);
    found
}

pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let subdomain = spec.subdomain.as_ref()?;
    (Some(subdomain) == service.metadata.name.as_ref()).then(|| spec.hostname.clone()).flatten()
}

/// The number a Service's port means on this pod; `None` where the pod has no port of that name.
pub(crate) fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars =
                spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let ports = |container: &Container| container.ports.clone().unwrap_or_default();
            let mut all = spec.containers.iter().chain(sidecars).flat_map(ports);
            all.find(|p| p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol)
                .map(|p| p.container_port)
        }
    }
}
