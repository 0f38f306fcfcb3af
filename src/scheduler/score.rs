//! Which of the nodes that can take a pod should: the emptiest and most even one that its preferences allow.

mod images;

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Namespace, Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use mini_client::Cache;
use mini_client::requests::{Amounts, needs};

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
    let (needs, owner) = (needs(pod), owner(pod));
    let wishes = wishes(pod, cluster, namespaces);
    let spread = crate::filter::Soft::gather(pod, cluster);
    let images = images::Spread::of(pod, cluster);
    let all: Vec<Facts<'_>> = nodes
        .iter()
        .map(|state| Facts {
            state,
            taints: i64::try_from(unwanted(pod, state)).unwrap_or_default(),
            preference: matches_preference(pod, state),
            company: company(pod, state, cluster, namespaces) + wished(&wishes, state),
            kin: if spread.is_empty() { kin(owner, state) } else { 0 },
        })
        .collect();
    let most = |of: fn(&Facts<'_>) -> i64| all.iter().map(of).max().unwrap_or_default().max(1);
    let (most_taints, most_preference) = (most(|facts| facts.taints), most(|facts| facts.preference));
    let (most_company, most_kin) = (most(|facts| facts.company.abs()), most(|facts| facts.kin));
    let score = |facts: &Facts<'_>| {
        let usage = usage(&needs, facts.state);
        room(usage)
            + evenness(usage)
            + 3 * (100 - 100 * facts.taints / most_taints)
            + 2 * (100 * facts.preference / most_preference)
            + 2 * (100 * facts.company / most_company)
            + if spread.is_empty() {
                2 * (100 - 100 * facts.kin / most_kin)
            } else {
                2 * spread.score(facts.state, nodes)
            }
            + images.score(facts.state)
    };
    let scored = all.iter().map(|facts| (score(facts), std::cmp::Reverse(facts.state.name())));
    scored.max().map(|(_, name)| name.0.to_owned())
}

/// What a node is worth by itself; the most of all nodes is the measure.
struct Facts<'a> {
    state: &'a NodeState,
    taints: i64,
    preference: i64,
    company: i64,
    kin: i64,
}

type Usage = [(i64, i64); 2];

/// Taken and offered of cpu and memory with a pod of these needs on the node.
fn usage(needs: &Amounts, state: &NodeState) -> Usage {
    LEAST.map(|(name, least)| (state.taken.get(name) + needs.get(name).max(least), state.offers.get(name).max(1)))
}

/// 0 to 100: how much is left.
fn room(usage: Usage) -> i64 {
    let left = usage.map(|(taken, offered)| 100 * (offered - taken).max(0) / offered);
    left.iter().sum::<i64>() / 2
}

/// 0 to 100: how alike the shares of cpu and memory are.
fn evenness(usage: Usage) -> i64 {
    let [cpu, memory] = usage.map(|(taken, offered)| (100 * taken / offered).min(100));
    100 - (cpu - memory).abs() / 2
}

/// The uid of the controller that a pod belongs to.
fn owner(pod: &Pod) -> Option<&str> {
    let mut references = pod.metadata.owner_references.iter().flatten();
    references.find(|reference| reference.controller == Some(true)).map(|reference| reference.uid.as_str())
}

/// Pods of the same controller on the node.
fn kin(mine: Option<&str>, state: &NodeState) -> i64 {
    let same = state.pods.values().filter(|placed| mine.is_some() && owner(&placed.pod) == mine);
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
