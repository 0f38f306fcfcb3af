//! Which nodes a pod names, selects or requires by node affinity.

use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod};
use mini_client::node_selector;

use crate::cluster::NodeState;
use crate::selection;

pub(super) fn refuses(pod: &Pod, state: &NodeState) -> Option<String> {
    if selection::node(pod).is_some_and(|name| name != state.name()) {
        return Some("node(s) didn't match the requested node name".to_owned());
    }
    (!selects(pod, state)).then(|| "node(s) didn't match Pod's node affinity/selector".to_owned())
}

/// Whether a pod's node selector and required node affinity hold for a node.
pub(super) fn selects(pod: &Pod, state: &NodeState) -> bool {
    let (Some(spec), Some(node)) = (&pod.spec, &state.node) else { return true };
    node_selector::selects(spec, node)
}

pub(crate) fn holds(term: &NodeSelectorTerm, state: &NodeState) -> bool {
    state.node.as_ref().is_some_and(|node| node_selector::holds(term, node))
}

/// The weights of the preferences that a node meets.
pub(crate) fn matches_preference(pod: &Pod, state: &NodeState) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let met = preferred.into_iter().flatten().filter(|preferred| holds(&preferred.preference, state));
    met.map(|preferred| i64::from(preferred.weight)).sum()
}
