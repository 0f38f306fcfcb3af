//! Which of the nodes that can take a pod should: the emptiest and most even one that its preferences allow.

mod images;

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Namespace, Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use mini_client::Cache;
use mini_client::requests::needs;

use crate::cluster::{Cluster, NodeState};
use crate::filter::{Term, matches_preference, matches_term, unwanted};

/// A pod that asks for nothing still counts as this much.
const LEAST: [(&str, i64); 2] = [("cpu", 100), ("memory", 200 << 20)];

/// The name of the best node; the first by name among equals.
pub(crate) fn best(
    pod: &Pod,
    nodes: &[&NodeState],
    cluster: &Cluster,
    namespaces: &Cache<Namespace>,
) -> Option<String> {
    if let [only] = nodes {
        return Some(only.name().to_owned());
    }
    let most = |of: &dyn Fn(&NodeState) -> i64| nodes.iter().map(|state| of(state)).max().unwrap_or_default().max(1);
    let taints = |state: &NodeState| i64::try_from(unwanted(pod, state)).unwrap_or_default();
    let preference = |state: &NodeState| matches_preference(pod, state);
    let wishes = wishes(pod, cluster, namespaces);
    let company = |state: &NodeState| company(pod, state, cluster, namespaces) + wished(&wishes, state);
    let kin = |state: &NodeState| kin(pod, state);
    let (most_taints, most_preference, most_kin) = (most(&taints), most(&preference), most(&kin));
    let (images, spread) = (images::Spread::of(pod, cluster), crate::filter::Soft::gather(pod, cluster));
    let most_company = nodes.iter().map(|state| company(state).abs()).max().unwrap_or_default().max(1);
    let score = |state: &NodeState| {
        room(pod, state)
            + evenness(pod, state)
            + 3 * (100 - 100 * taints(state) / most_taints)
            + 2 * (100 * preference(state) / most_preference)
            + 2 * (100 * company(state) / most_company)
            + if spread.is_empty() { 2 * (100 - 100 * kin(state) / most_kin) } else { 2 * spread.score(state, nodes) }
            + images.score(pod, state)
    };
    let scored = nodes.iter().map(|state| (score(state), std::cmp::Reverse(state.name())));
    scored.max().map(|(_, name)| name.0.to_owned())
}

/// Taken and offered of cpu and memory with the pod on the node.
fn usage(pod: &Pod, state: &NodeState) -> [(i64, i64); 2] {
    let needs = needs(pod);
    LEAST.map(|(name, least)| (state.taken.get(name) + needs.get(name).max(least), state.offers.get(name).max(1)))
}

/// 0 to 100: how much is left.
fn room(pod: &Pod, state: &NodeState) -> i64 {
    let left = usage(pod, state).map(|(taken, offered)| 100 * (offered - taken).max(0) / offered);
    left.iter().sum::<i64>() / 2
}

/// 0 to 100: how alike the shares of cpu and memory are.
fn evenness(pod: &Pod, state: &NodeState) -> i64 {
    let [cpu, memory] = usage(pod, state).map(|(taken, offered)| (100 * taken / offered).min(100));
    100 - (cpu - memory).abs() / 2
}

/// Pods of the same controller on the node.
fn kin(pod: &Pod, state: &NodeState) -> i64 {
    let owner = |pod: &Pod| {
        let references = pod.metadata.owner_references.iter().flatten();
        references.filter(|reference| reference.controller == Some(true)).map(|r| r.uid.clone()).next()
    };
    let Some(mine) = owner(pod) else { return 0 };
    let same = state.pods.values().filter(|placed| owner(&placed.pod).as_ref() == Some(&mine));
    i64::try_from(same.count()).unwrap_or_default()
}

/// The weights of preferred (anti-)affinity to pods that share the node's topology.
fn company(pod: &Pod, state: &NodeState, cluster: &Cluster, namespaces: &Cache<Namespace>) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let near = affinity.and_then(|a| a.pod_affinity.as_ref());
    let near = near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    let far = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
    let far = far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
    let weigh = |term: &WeightedPodAffinityTerm| -> i64 {
        let compiled = Term::of(&term.pod_affinity_term, pod);
        let Some(here) = state.label(&compiled.topology) else { return 0 };
        let around = cluster.nodes().filter(|other| other.label(&compiled.topology) == Some(here));
        let pods = around.flat_map(|other| other.pods.values());
        let count = pods.filter(|placed| matches_term(&compiled, &placed.pod, namespaces)).count();
        i64::from(term.weight) * i64::try_from(count).unwrap_or_default()
    };
    let sum = |terms: Option<&[WeightedPodAffinityTerm]>| terms.unwrap_or_default().iter().map(weigh).sum::<i64>();
    sum(near) - sum(far)
}

/// The same from the other side, by topology and value: what placed pods would rather have near or far. What they
/// require counts like the weakest wish.
fn wishes(pod: &Pod, cluster: &Cluster, namespaces: &Cache<Namespace>) -> HashMap<(String, String), i64> {
    let mut sums: HashMap<(String, String), i64> = HashMap::new();
    for state in cluster.nodes() {
        for placed in state.pods.values() {
            let Some(affinity) = placed.pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { continue };
            let mut count = |term: &PodAffinityTerm, weight: i64| {
                let term = Term::of(term, &placed.pod);
                if let Some(value) = state.label(&term.topology)
                    && matches_term(&term, pod, namespaces)
                {
                    *sums.entry((term.topology.clone(), value.to_owned())).or_default() += weight;
                }
            };
            if let Some(near) = &affinity.pod_affinity {
                for term in near.required_during_scheduling_ignored_during_execution.iter().flatten() {
                    count(term, 1);
                }
                for wish in near.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                    count(&wish.pod_affinity_term, i64::from(wish.weight));
                }
            }
            if let Some(far) = &affinity.pod_anti_affinity {
                for wish in far.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
                    count(&wish.pod_affinity_term, -i64::from(wish.weight));
                }
            }
        }
    }
    sums
}

fn wished(wishes: &HashMap<(String, String), i64>, state: &NodeState) -> i64 {
    let here = wishes.iter().filter(|((topology, value), _)| state.label(topology) == Some(value));
    here.map(|(_, weight)| weight).sum()
}
