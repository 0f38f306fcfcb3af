//! Which nodes can take a pod, and if none can, why: one reason per node and plugin, as upstream counts them.

mod affinity;
mod fit;
mod inter_pod;
mod node_affinity;
mod spread;
mod taints;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use mini_client::requests::{Amounts, needs};
use mini_client::{Cache, host_ports};

use crate::claims::PodVolumes;
use crate::cluster::{Cluster, NodeState};

pub(crate) use affinity::{Term, matches_term};
pub(crate) use node_affinity::{holds, matches_preference};
pub(crate) use spread::Soft;
pub(crate) use taints::unwanted;

/// The nodes that can take the pod, or upstream's sentence about why none can.
pub(crate) fn feasible<'a>(
    pod: &Pod,
    volumes: &PodVolumes,
    cluster: &'a Cluster,
    namespaces: &Cache<Namespace>,
) -> Result<Vec<&'a NodeState>, String> {
    let needs = needs(pod);
    let inter_pod = inter_pod::Facts::gather(pod, cluster, namespaces);
    let spread = spread::Facts::gather(pod, cluster);
    let mut fit = Vec::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = 0;
    for state in cluster.nodes() {
        count += 1;
        let refused = check(pod, state, &needs, volumes, &inter_pod, &spread);
        if refused.is_empty() {
            fit.push(state);
        }
        for reason in refused {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    if !fit.is_empty() {
        return Ok(fit);
    }
    if count == 0 {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut told: Vec<_> = reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    told.sort();
    Err(format!("0/{count} nodes are available: {}.", told.join(", ")))
}

/// Whether one node can take the pod.
pub(crate) fn fits_on(
    pod: &Pod,
    volumes: &PodVolumes,
    cluster: &Cluster,
    namespaces: &Cache<Namespace>,
    name: &str,
) -> bool {
    let inter_pod = inter_pod::Facts::gather(pod, cluster, namespaces);
    let spread = spread::Facts::gather(pod, cluster);
    let fits = |state: &NodeState| check(pod, state, &needs(pod), volumes, &inter_pod, &spread).is_empty();
    cluster.node(name).is_some_and(fits)
}

/// Whether other pods are all that may keep the pod off a node.
pub(crate) fn may_fit(pod: &Pod, state: &NodeState) -> bool {
    taints::unschedulable(pod, state).is_none()
        && taints::untolerated(pod, state).is_none()
        && node_affinity::refuses(pod, state).is_none()
}

/// The first plugin that refuses a node tells its reasons; later ones are not asked.
fn check(
    pod: &Pod,
    state: &NodeState,
    needs: &Amounts,
    volumes: &PodVolumes,
    inter_pod: &inter_pod::Facts,
    spread: &spread::Facts,
) -> Vec<String> {
    let one = |reason: Option<String>| reason.into_iter().collect::<Vec<_>>();
    let checks: [&dyn Fn() -> Vec<String>; 8] = [
        &|| one(taints::unschedulable(pod, state)),
        &|| one(taints::untolerated(pod, state)),
        &|| one(node_affinity::refuses(pod, state)),
        &|| one(no_free_port(pod, state)),
        &|| fit::lacks(needs, state),
        &|| one(volumes.refuses(state)),
        &|| one(spread.refuses(state)),
        &|| one(inter_pod.refuses(state)),
    ];
    checks.into_iter().map(|check| check()).find(|reasons| !reasons.is_empty()).unwrap_or_default()
}

fn no_free_port(pod: &Pod, state: &NodeState) -> Option<String> {
    let others = state.pods.values().map(|placed| placed.pod.as_ref());
    host_ports::conflict(pod, others).then(|| "node(s) didn't have free ports for the requested pod ports".to_owned())
}
