//! Required affinity and anti-affinity between pods, in both directions.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Namespace, Pod, PodAffinityTerm};
use mini_client::Cache;

use super::affinity::{Term, matches_term};
use crate::cluster::{Cluster, NodeState};

/// What the present pods say about one pod, by topology key and value.
pub(super) struct Facts {
    /// Per required term: its topology, and the values at which a matching pod runs.
    wanted: Vec<(String, HashSet<String>)>,
    /// No pod matches any term, and the pod matches all of its own: it may be the first.
    first: bool,
    /// Where pods run that this one must avoid.
    avoided: HashSet<(String, String)>,
    /// Where pods run that must avoid this one.
    avoiding: HashSet<(String, String)>,
}

fn affinity(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_affinity.as_ref());
    affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
}

fn anti_affinity(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
    affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default()
}

impl Facts {
    pub(super) fn gather(pod: &Pod, cluster: &Cluster, namespaces: &Cache<Namespace>) -> Self {
        let wants: Vec<_> = affinity(pod).iter().map(|term| Term::of(term, pod)).collect();
        let avoids: Vec<_> = anti_affinity(pod).iter().map(|term| Term::of(term, pod)).collect();
        let mut wanted: Vec<_> = wants.iter().map(|term| (term.topology.clone(), HashSet::new())).collect();
        let (mut avoided, mut avoiding) = (HashSet::new(), HashSet::new());
        for state in cluster.nodes() {
            let at = |topology: &str| Some((topology.to_owned(), state.label(topology)?.to_owned()));
            for placed in state.pods.values() {
                // One pod must match all terms to count for any.
                if !wants.is_empty() && wants.iter().all(|term| matches_term(term, &placed.pod, namespaces)) {
                    for (topology, values) in &mut wanted {
                        values.extend(state.label(topology).map(str::to_owned));
                    }
                }
                let matching = avoids.iter().filter(|term| matches_term(term, &placed.pod, namespaces));
                avoided.extend(matching.filter_map(|term| at(&term.topology)));
                let theirs = anti_affinity(&placed.pod).iter().map(|term| Term::of(term, &placed.pod));
                let about_us = theirs.filter(|term| matches_term(term, pod, namespaces));
                avoiding.extend(about_us.filter_map(|term| at(&term.topology)));
            }
        }
        let first = wanted.iter().all(|(_, values)| values.is_empty())
            && wants.iter().all(|term| matches_term(term, pod, namespaces));
        Self { wanted, first, avoided, avoiding }
    }

    pub(super) fn refuses(&self, state: &NodeState) -> Option<String> {
        let near = |(topology, values): &(String, HashSet<String>)| {
            state.label(topology).is_some_and(|value| self.first || values.contains(value))
        };
        let at = |(topology, value): &(String, String)| state.label(topology) == Some(value);
        if !self.wanted.iter().all(near) {
            Some("node(s) didn't match pod affinity rules".to_owned())
        } else if self.avoided.iter().any(at) {
            Some("node(s) didn't match pod anti-affinity rules".to_owned())
        } else if self.avoiding.iter().any(at) {
            Some("node(s) didn't satisfy existing pods anti-affinity rules".to_owned())
        } else {
            None
        }
    }
}
